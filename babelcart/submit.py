"""The competition's submission: JSON lines of predictions, checked against the rows they answer, zipped flat."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from babelcart.core.errors import UserError, short_repr
from babelcart.core.files import atomic_write
from babelcart.rows.table import raw_fields, raw_row

if TYPE_CHECKING:
    import pandas as pd

    from babelcart.scores.metrics import Decision


@dataclass(frozen=True)
class Submit:
    """The section ``submit`` of params.yaml."""

    SECTION: ClassVar[str] = "submit"

    split: Literal["dev", "test"] = "test"


def submission_lines(predictions: pd.DataFrame, task: str, decision: Decision) -> list[str]:
    """One JSON object a row: id, language as the files write it, query, candidate, and the prediction 0 or 1.

    Parameters
    ----------
    predictions : pandas.DataFrame
        ``id``, ``language``, ``language_tag``, ``origin_query``, ``candidate``, ``probability``.
    decision : Decision
        The thresholds that validation chose.
    """
    lines = []
    for row, threshold in zip(predictions.itertuples(), decision.thresholds(predictions["language"]), strict=True):
        record = {**raw_row(row, task), "prediction": int(row.probability >= threshold)}
        lines.append(json.dumps(record, ensure_ascii=False))
    return lines


def check_submission(path: Path, task: str, expected: pd.DataFrame) -> None:
    """Refuse a submission file that does not answer exactly the expected rows.

    Parameters
    ----------
    path : Path
        A ``submit_QC.txt`` or ``submit_QI.txt``.
    expected : pandas.DataFrame
        The rows to answer: ``id``, ``language_tag``, ``origin_query``, ``candidate``.

    Raises
    ------
    UserError
        Names the line: not JSON, a field missing or changed, a prediction that is not 0 or 1, an id that is foreign or
        stands twice; or the ids that are missing.
    """
    rows = {row.id: row for row in expected.itertuples()}
    fields = [*raw_fields(task), "prediction"]
    seen: dict[str, int] = {}
    with path.open(encoding="utf-8", errors="surrogateescape") as handle:
        for number, line in enumerate(handle, 1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path.name}, line {number}: not JSON ({error})") from None
            if not isinstance(record, dict) or sorted(record) != sorted(fields):
                raise UserError(f"{path.name}, line {number}: expected the fields {', '.join(fields)}; found {line.strip()[:80]!r}")
            identifier = record["id"]
            if not isinstance(identifier, str) or identifier not in rows:
                raise UserError(f"{path.name}, line {number}: id {short_repr(identifier)} is not one of the {len(rows)} rows to answer")
            if identifier in seen:
                raise UserError(f"{path.name}, line {number}: id {identifier!r} stands already in line {seen[identifier]}")
            seen[identifier] = number
            row = rows[identifier]
            for name, value in raw_row(row, task).items():
                if record[name] != value:
                    raise UserError(
                        f"{path.name}, line {number}: {name} of id {identifier!r} is {short_repr(record[name])}; the row has {value!r}"
                    )
            if type(record["prediction"]) is not int or record["prediction"] not in (0, 1):
                raise UserError(f"{path.name}, line {number}: prediction is {short_repr(record['prediction'])}; accepted: 0 or 1")
    missing = [identifier for identifier in rows if identifier not in seen]
    if missing:
        raise UserError(f"{path.name}: {len(missing)} of {len(rows)} rows are not answered, the first has id {missing[0]!r}")


def zip_files(files: Mapping[str, Path], target: Path) -> None:
    """Zip files flat; equal contents give equal bytes."""
    with atomic_write(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            # A fixed date: the archive depends on nothing but the contents.
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name].read_bytes())
