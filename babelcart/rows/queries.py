"""Queries as sources of rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from babelcart.core.errors import UserError


def read_query(path: Path, folder: Path, **options: Any) -> Iterator[Any]:
    """Run a query over the files of a folder; yields Arrow record batches."""
    raise UserError(f"{path}: queries cannot be read yet")


def files_read(path: Path, folder: Path) -> list[Path]:
    """The files that a query reads."""
    return []
