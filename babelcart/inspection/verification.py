"""Read the files with the proposed settings, as the pipeline would, and find out which rows it would drop."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from babelcart.core.config import build_section
from babelcart.core.errors import UserError
from babelcart.inspection.proposal import Proposal
from babelcart.inspection.tables import Table
from babelcart.prepare import PreparedTask, prepare_task
from babelcart.reading.readers import BrokenRows
from babelcart.reading.sources import Data
from babelcart.rows.cleaning import Prepare

# Files of more bytes than this are not read into memory.
MAX_BYTES = 1 << 29
MAX_BROKEN_SHARE = 0.05
_ANY = 2**53


@dataclass
class Verification:
    """The result of reading the files.

    Attributes
    ----------
    counts : dict
        Task -> split -> counts, as in metrics/prepare.
    languages : dict
        Task -> split -> language -> rows.
    broken : list of str
        Examples of broken rows.
    """

    counts: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    languages: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


def verify(proposal: Proposal, tables: Sequence[Table]) -> Verification:
    """Read and clean the rows with the proposed settings; add what is wrong to the problems of the proposal.

    Broken rows in train raise the proposed ``prepare.max_broken_rows``, if they are few.
    """
    verification = Verification()
    size = sum(table.path.stat().st_size for table in tables)
    if size > MAX_BYTES:
        proposal.remarks.append(f"the files have {size / 1e6:,.0f} MB and were not read as a test; `babelcart check` reads them")
        return verification
    section = proposal.data | {"path": str(Path(proposal.data["path"]).resolve())}
    try:
        data = build_section(Data, section, "data")
    except UserError as error:
        proposal.problems.append(str(error))
        return verification
    with tempfile.TemporaryDirectory() as folder:
        for name, query in proposal.queries.items():
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.write_text(query, encoding="utf-8")
        with contextlib.chdir(folder):
            for task in proposal.tasks:
                try:
                    prepared = _prepare(data, task, verification)
                except UserError as error:
                    proposal.problems.append(f"{task}: {error}")
                else:
                    _add_counts(proposal, verification, task, prepared)
    return verification


def _prepare(data: Data, task: str, verification: Verification) -> PreparedTask:
    try:
        return prepare_task(data, Prepare(), task)
    except BrokenRows as error:
        prepared = prepare_task(data, Prepare(max_broken_rows=_ANY), task)  # broken rows of dev and test raise again
        verification.broken += [str(problem) for problem in error.problems[:5]]
        return prepared


def _add_counts(proposal: Proposal, verification: Verification, task: str, prepared: PreparedTask) -> None:
    verification.counts[task] = {split: dict(counts) for split, counts in prepared.counts.items()}
    verification.languages[task] = {
        split: {str(language): int(rows) for language, rows in table["language"].value_counts().sort_index().items()}
        for split, table in prepared.tables.items()
    }
    proposal.remarks += [f"{task}: {warning}" for warning in prepared.warnings]
    broken = prepared.counts["broken"]["rows"]
    if not broken:
        return
    rows = len(prepared.tables["train"]) + broken
    if broken > MAX_BROKEN_SHARE * rows:
        proposal.problems.append(f"{task}: {broken:,} of {rows:,} train rows are broken, first: {verification.broken[0]}")
        return
    key = "prepare.max_broken_rows"
    proposal.settings[key] = max(broken, proposal.settings.get(key, 0))
    proposal.reasons[key] = f"{broken:,} train rows are broken, first: {verification.broken[0]}"
