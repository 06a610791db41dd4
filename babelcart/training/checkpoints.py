"""Checkpoints of a training run.

They are kept outside of DVC's outputs, because DVC deletes the outputs of a stage before the stage runs again. The folder of a run
is named by a fingerprint of everything that affects the adapter, so that a run never resumes from a checkpoint of another
configuration. The tensors of a checkpoint are written first, the record with their hash last. A checkpoint that was interrupted
while it was written has no record, or a record with another hash, and the checkpoint before it is used.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.core.files import atomic_write, sha256, write_json
from babelcart.imports import imported_modules

if TYPE_CHECKING:
    import torch

MAX_CHECKPOINTS = 2  # of a run that is not finished
FINGERPRINT_LENGTH = 32  # hexadecimal digits
FINISHED = "finished"  # name of the file that marks a finished run


def fingerprint(script: Path, *parts: Any) -> str:
    """Hash everything that affects the adapter: settings, rows, code, versions of the libraries, and the device.

    Parameters
    ----------
    script : Path
        The script that trains. Its code and that of all modules of this project that it imports are hashed. DVC reruns the stage
        when one of the same files changes.
    *parts
        Settings and rows. Their ``repr`` must show their complete content, as that of dataclasses, numbers, strings and lists does.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    import torch

    code = [(name, sha256(path)) for name, path in imported_modules(script).items()]
    libraries = [version(name) for name in ("torch", "transformers", "peft")]
    # Sums of floats differ between devices and between numbers of threads.
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else torch.get_num_threads()
    return hashlib.sha256(repr((parts, code, libraries, device)).encode()).hexdigest()[:FINGERPRINT_LENGTH]


def _checkpoint_hash(tensors: Path, state: Mapping[str, Any]) -> str:
    """Hash of a checkpoint: its file of tensors and its state."""
    return hashlib.sha256(json.dumps([sha256(tensors), state], sort_keys=True).encode()).hexdigest()


class Checkpoints:
    """The checkpoints of one run.

    Parameters
    ----------
    folder : Path
        Folder that no other run uses. Its name ends in the `fingerprint` of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Write a checkpoint and delete all older ones except the previous one.

        Parameters
        ----------
        step : int
            Number of optimizer steps done.
        tensors : mapping of str to torch.Tensor
        state : mapping
            Everything else, as JSON can hold it.
        """
        from safetensors.torch import save_file

        path = self.folder / f"{step:08d}.safetensors"
        with atomic_write(path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        write_json(path.with_suffix(".json"), {"sha256": _checkpoint_hash(path, state), "state": dict(state)})
        self._delete_old(keep=MAX_CHECKPOINTS)

    def _delete_old(self, keep: int) -> None:
        for record_path in sorted(self.folder.glob("*.json"))[:-keep]:
            record_path.unlink()
            record_path.with_suffix(".safetensors").unlink(missing_ok=True)

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Return the tensors and state of the newest complete checkpoint, or None. Damaged checkpoints are skipped."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        for record_path in sorted(self.folder.glob("*.json"), reverse=True):
            tensors_path = record_path.with_suffix(".safetensors")
            try:
                record = json.loads(record_path.read_text(encoding="utf-8"))
                if record["sha256"] == _checkpoint_hash(tensors_path, record["state"]):
                    return load_file(tensors_path), record["state"]
            except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError):
                continue
        return None

    def finish(self) -> None:
        """Mark the run as finished: delete all but its last checkpoint, and earlier finished runs of the same model and task.

        The last checkpoint is kept because DVC has not recorded the adapter yet. If the process is killed before DVC does, the stage
        runs again and resumes at the end.
        """
        same_model_and_task = self.folder.name[: -len("-") - FINGERPRINT_LENGTH] + "-" + "?" * FINGERPRINT_LENGTH
        for marker in self.folder.parent.glob(f"{same_model_and_task}/{FINISHED}"):
            if marker.parent != self.folder:
                shutil.rmtree(marker.parent)
        if self.folder.exists():
            self._delete_old(keep=1)
            (self.folder / FINISHED).touch()
