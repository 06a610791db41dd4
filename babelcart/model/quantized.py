"""Keep the NF4 form of a base model from the hub or a local folder, so that it is read and quantised once and not by every stage.

Gemma-3 12B has 24 GB in the cache of the hub and 8 GB in NF4. The folder is written as a whole and may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.core.files import read_json, sha256, temporary_folder, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

KEPT = Path(".scratch/nf4")
UNFINISHED = ".unfinished-"  # start of the name of a folder that is being written
HASHES = "sha256.json"  # in a folder of a kept model: SHA-256 of each of its files
FREE_SHARE = 0.05  # of the disk, which is left free
KEY_LENGTH = 16  # hexadecimal digits


def kept_folder(name: str, record: Mapping[str, Any], dtype: str, device: str) -> Path:
    """Return the folder for the NF4 form of a model.

    Parameters
    ----------
    name : str
        Name of the model in params.yaml.
    record : mapping
        Its ``base.json``, which lists the SHA-256 of all files.
    dtype : str
        Dtype of the layers that are not quantised, and of the results of those that are.
    device : str
        ``"cuda"`` or ``"cpu"``; the layout of the weights may differ.
    """
    libraries = [version(library) for library in ("bitsandbytes", "transformers")]
    key = hashlib.sha256(json.dumps([record, dtype, device, libraries], sort_keys=True).encode()).hexdigest()[:KEY_LENGTH]
    return KEPT / f"{name}-{key}"


def is_intact(folder: Path) -> bool:
    """Return whether a folder holds a kept model, of which no file is missing or damaged. A damaged one is deleted."""
    if not folder.exists():
        return False
    hashes = read_json(folder / HASHES, {...: str})
    if all((folder / name).exists() and sha256(folder / name) == expected for name, expected in hashes.items()):
        return True
    shutil.rmtree(folder)
    return False


def keep(model: Any, folder: Path) -> None:
    """Write a quantised model to a folder, and delete older forms of the same model. Without enough disk space, only say so.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Quantised by bitsandbytes.
    folder : pathlib.Path
        Result of `kept_folder`. If another process has written it meanwhile, its files stay.
    """
    from tqdm import tqdm

    folder.parent.mkdir(parents=True, exist_ok=True)
    needed, disk = model.get_memory_footprint(), shutil.disk_usage(folder.parent)
    if needed > disk.free - FREE_SHARE * disk.total:
        tqdm.write(f"the quantised model is not kept: {needed / 1e9:.1f} GB in {folder.parent} would fill the disk", file=sys.stderr)
        return
    try:
        with temporary_folder(folder.parent, UNFINISHED) as unfinished:
            model.save_pretrained(unfinished)
            write_json(unfinished / HASHES, {path.name: sha256(path) for path in sorted(unfinished.iterdir())})
            for other in folder.parent.glob(f"{folder.name[:-KEY_LENGTH]}{'?' * KEY_LENGTH}"):
                if other != folder:
                    shutil.rmtree(other, ignore_errors=True)
            unfinished.rename(folder)
    except OSError as error:  # the disk is full, or another process was faster
        if not folder.exists():
            tqdm.write(f"the quantised model is not kept: {error}", file=sys.stderr)
