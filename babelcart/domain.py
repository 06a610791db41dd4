"""What the training rows of a task covered, and what a row to score has beyond it.

A model answers every row. Where a row is unlike all training rows, the answer deserves less trust: its language is in none of them, its
category is in none of them, or the prompt holds only the beginning of its text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from babelcart.core.files import sha256
from babelcart.rows.table import read_table
from babelcart.rows.text import normalise

# Note -> what it means.
NOTES = {
    "language_not_trained": "no training row has this language",
    "candidate_not_trained": "no training row has this category",
    "query_truncated": "the query is longer than the prompt allows, and its end was not read",
    "candidate_truncated": "the candidate is longer than the prompt allows, and its end was not read",
}


@dataclass(frozen=True)
class TrainingDomain:
    """Languages and candidates of the training rows.

    Attributes
    ----------
    languages : frozenset of str
        ISO 639-1 codes, those of translated rows included.
    candidates : frozenset of str, optional
        Normal forms of the categories. None for items, most of which are new in every search.
    sha256 : str
        Of the file of training rows.
    """

    languages: frozenset[str]
    candidates: frozenset[str] | None = None
    sha256: str = ""

    @classmethod
    def read(cls, task: str, folder: Path = Path("build/negatives")) -> TrainingDomain | None:
        """Read the training rows of a task; None if they are not in the workspace."""
        path = folder / f"{task}.parquet"
        if not path.exists():
            return None
        rows = read_table(path)
        candidates = frozenset(map(normalise, set(rows["candidate"]))) if task == "qc" else None
        return cls(frozenset(rows["language"].unique()), candidates, sha256(path))

    def notes(self, language: str, candidate: str) -> list[str]:
        """Return the keys of `NOTES` that hold for a row. An empty language is unknown, and gets no note."""
        notes = ["language_not_trained"] if language and language not in self.languages else []
        if self.candidates is not None and normalise(candidate) not in self.candidates:
            notes.append("candidate_not_trained")
        return notes
