"""The competition's submission: predictions as JSON lines, checked against the rows to answer, in a zip archive without folders."""

from __future__ import annotations

import itertools
import json
import zipfile
from collections.abc import Mapping, Sequence
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
    """Return one JSON object for each row: id, language tag as in the input files, query, candidate, and the prediction 0 or 1.

    Parameters
    ----------
    predictions : pandas.DataFrame
        Columns ``id``, ``language``, ``language_tag``, ``origin_query``, ``candidate`` and ``probability``.
    task : {"qc", "qi"}
    decision : Decision
        Thresholds, as chosen on validation.
    """
    lines = []
    for row, relevant in zip(predictions.itertuples(), decision.predict(predictions), strict=True):
        lines.append(json.dumps({**raw_row(row, task), "prediction": int(relevant)}, ensure_ascii=False))
    return lines


def check_submission(path: Path, task: str, expected: pd.DataFrame) -> None:
    """Check that a submission file answers exactly the expected rows.

    Parameters
    ----------
    path : Path
        A file ``submit_QC.txt`` or ``submit_QI.txt``.
    task : {"qc", "qi"}
    expected : pandas.DataFrame
        The rows to answer: ``id``, ``language_tag``, ``origin_query`` and ``candidate``.

    Raises
    ------
    UserError
        If a line is not JSON, lacks a field or has another one, differs from its row, has a prediction other than 0 or 1, or has an id
        that is unknown or repeated (the message names the line), or if rows are not answered (the message names the first id).
    """
    rows = {row.id: raw_row(row, task) for row in expected.itertuples()}
    fields = [*raw_fields(task), "prediction"]
    line_of_id: dict[str, int] = {}
    with path.open(encoding="utf-8", errors="surrogateescape") as handle:
        for line_number, line in enumerate(handle, 1):
            try:
                identifier = _check_line(line, fields, rows)
            except ValueError as error:
                raise UserError(f"{path.name}, line {line_number}: {error}") from None
            if identifier in line_of_id:
                raise UserError(f"{path.name}, line {line_number}: id {identifier!r} already occurs in line {line_of_id[identifier]}")
            line_of_id[identifier] = line_number
    missing = [identifier for identifier in rows if identifier not in line_of_id]
    if missing:
        raise UserError(f"{path.name}: {len(missing)} of {len(rows)} rows are not answered, the first has id {missing[0]!r}")


def check_order(lines: Sequence[str], raw_ids: Sequence[str], name: str) -> None:
    """Check that a submission answers the rows of the raw files, each once and in their order.

    Parameters
    ----------
    lines : sequence of str
        Lines of the submission, as from `submission_lines`.
    raw_ids : sequence of str
        Ids of the raw files, read independently of the tables of earlier stages (`babelcart.reading.readers.read_ids`).
    name : str
        Name of the submission, for messages.

    Raises
    ------
    UserError
        If the ids differ; names the first row that does.
    """
    ids = [json.loads(line)["id"] for line in lines]
    for position, (answered, raw) in enumerate(itertools.zip_longest(ids, raw_ids), 1):
        if answered != raw:
            raise UserError(
                f"{name}, line {position}: the answer has the id {answered!r}, but row {position} of the raw files has {raw!r} "
                f"({len(ids):,} answers, {len(raw_ids):,} raw rows). The data changed since the predictions: run `dvc repro`"
            )


def _check_line(line: str, fields: Sequence[str], rows: Mapping[str, Mapping[str, str]]) -> str:
    """Check one line against the row of its id, and return the id.

    Raises
    ------
    ValueError
        If the line is invalid. The message states what was found and what is accepted.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(record, dict) or sorted(record) != sorted(fields):
        raise ValueError(f"expected the fields {', '.join(fields)}; found {line.strip()[:80]!r}")
    identifier, prediction = record["id"], record["prediction"]
    if not isinstance(identifier, str) or identifier not in rows:
        raise ValueError(f"id {short_repr(identifier)} is not one of the {len(rows)} rows to answer")
    for name, expected in rows[identifier].items():
        if record[name] != expected:
            raise ValueError(f"{name} of id {identifier!r} is {short_repr(record[name])}; the row has {expected!r}")
    if type(prediction) is not int or prediction not in (0, 1):
        raise ValueError(f"prediction is {short_repr(prediction)}; accepted: 0 or 1")
    return identifier


def zip_files(files: Mapping[str, Path], target: Path) -> None:
    """Write files to a zip archive without folders; equal contents give equal bytes.

    Parameters
    ----------
    files : mapping of str to Path
        Files by their name in the archive.
    target : Path
        The archive.
    """
    with atomic_write(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            # A fixed date, so that the archive depends only on the contents.
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name].read_bytes())
