"""Checkpoints of a training run, kept outside DVC's outputs, which DVC deletes before a stage runs again.

A run is named by a fingerprint of all that decides its result, so that no other configuration can resume it. Of each
checkpoint the tensors are written first and the record with their hash last: what a kill left half-written has no record, or
one that does not match, and is passed over for the checkpoint before it.
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

KEPT = 2
NAME = 32  # characters of a fingerprint
FINISHED = "finished"


def fingerprint(script: Path, *parts: Any) -> str:
    """Name a run by a hash of its settings and rows, its code, the libraries and the device.

    Parameters
    ----------
    script : Path
        The script that trains. The code is this script and all modules of the project that it imports: the script too decides
        the result (it sets the seed and the learning rate), and DVC reruns the stage for exactly the same files.
    *parts
        Objects whose ``repr`` shows their complete value: dataclasses, numbers, strings, lists of them.
    """
    import torch

    code = [(name, sha256(path)) for name, path in imported_modules(script).items()]
    libraries = [version(name) for name in ("torch", "transformers", "peft")]
    # Float sums differ by device and thread count.
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else torch.get_num_threads()
    return hashlib.sha256(repr((parts, code, libraries, device)).encode()).hexdigest()[:NAME]


def _seal(tensors: Path, state: Mapping[str, Any]) -> str:
    """One hash of both halves of a checkpoint."""
    return hashlib.sha256(json.dumps([sha256(tensors), state], sort_keys=True).encode()).hexdigest()


class Checkpoints:
    """The checkpoints of one run.

    Parameters
    ----------
    folder : Path
        Of this run alone: its name ends in the run's `fingerprint`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Keep the run as it is after `step` optimiser steps; of older checkpoints, one is kept."""
        from safetensors.torch import save_file

        path = self.folder / f"{step:08d}.safetensors"
        with atomic_write(path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        write_json(path.with_suffix(".json"), {"sha256": _seal(path, state), "state": dict(state)})
        self._keep(KEPT)

    def _keep(self, newest: int) -> None:
        for old in sorted(self.folder.glob("*.json"))[:-newest]:
            old.unlink()
            old.with_suffix(".safetensors").unlink(missing_ok=True)

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Tensors and state of the newest whole checkpoint, or None."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        for record in sorted(self.folder.glob("*.json"), reverse=True):
            tensors = record.with_suffix(".safetensors")
            try:
                found = json.loads(record.read_text(encoding="utf-8"))
                if found["sha256"] == _seal(tensors, found["state"]):
                    return load_file(tensors), found["state"]
            except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError):
                continue
        return None

    def finish(self) -> None:
        """The adapter is written: keep the last checkpoint alone, and none of other finished runs of this model and task.

        The last one stays because DVC has recorded nothing yet: killed before it has, it runs the stage again, which then goes on
        from the end.
        """
        others = self.folder.name[: -len("-") - NAME] + "-" + "?" * NAME
        for marker in self.folder.parent.glob(f"{others}/{FINISHED}"):
            if marker.parent != self.folder:
                shutil.rmtree(marker.parent)
        if self.folder.exists():
            self._keep(1)
            (self.folder / FINISHED).touch()
