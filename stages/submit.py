"""Write the predictions of a model in the competition's format: submit_QC.txt, submit_QI.txt and submit.zip.

Reads predictions/MODEL, the thresholds in metrics/MODEL and `submit` of params.yaml; writes to submissions/MODEL. Every file is checked
against the rows to answer: ids must not be missing, repeated or unknown, and texts must not differ. The ids of the raw files must all be
answered, in their order.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from babelcart import submit
from babelcart.commands import cli
from babelcart.core import config
from babelcart.core.files import read_json, write_text
from babelcart.core.tasks import Task
from babelcart.reading import readers
from babelcart.reading.sources import Data
from babelcart.rows.table import read_table
from babelcart.scores import metrics


@cli.command
@cli.model
def main(model: str) -> None:
    split, data = config.load_section(submit.Submit).split, config.load_section(Data)
    with tempfile.TemporaryDirectory() as folder:  # files are moved only after all of them are checked
        files = {}
        for task in config.load("tasks", tuple[Task, ...]):
            predictions = read_table(Path(f"predictions/{model}/{task}/{split}.parquet"), "probability")
            decision = metrics.Decision.from_scores(read_json(Path(f"metrics/{model}/{task}.json"), metrics.SCORES))
            path = Path(folder) / f"submit_{task.upper()}.txt"
            lines = submit.submission_lines(predictions, task, decision)
            write_text(path, "".join(line + "\n" for line in lines))
            submit.check_submission(path, task, read_table(Path(f"build/split/{task}/{split}.parquet")))
            if data.files(task).sources(split):  # with split.test_share, the test rows are train rows of the raw files
                submit.check_order(lines, readers.read_ids(data, task, split), path.name)
            files[path.name] = path
        out = Path("submissions") / model
        submit.zip_files(files, out / "submit.zip")
        for path in files.values():
            write_text(out / path.name, path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
