"""Execute a notebook and store its outputs in it: `make tutorial` calls it for docs/tutorial.ipynb.

    python benchmarks/tutorial.py docs/tutorial.ipynb

Needs the packages of `make setup EXTRAS=notebook`. The file changes only if every cell succeeds, and holds no times and no versions. The
files of the notebook, of IPython and of Jupyter are in a temporary folder, which is deleted at the end.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click
import nbformat
from nbclient import NotebookClient

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


@click.command(help=__doc__)
@click.argument("notebook", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write. Default: the notebook itself.")
def main(notebook: Path, out: Path | None) -> None:
    content = nbformat.read(notebook, as_version=4)
    with tempfile.TemporaryDirectory(prefix="tutorial-") as folder:
        # Startup files of the user do not run, and their history gets no entries.
        os.environ |= {"TMPDIR": folder, "IPYTHONDIR": f"{folder}/ipython", "JUPYTER_RUNTIME_DIR": f"{folder}/jupyter"}
        NotebookClient(
            content,
            timeout=None,
            kernel_name="python3",
            resources={"metadata": {"path": str(notebook.resolve().parent)}},
            record_timing=False,
            coalesce_streams=True,
            # No warning that the connection is not encrypted: the kernel listens on the loopback interface only.
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        ).execute()
    content.metadata = nbformat.from_dict(METADATA)
    out = out or notebook
    part = out.with_name(f"{out.name}.part")
    nbformat.write(content, part)
    part.rename(out)


if __name__ == "__main__":
    main()
