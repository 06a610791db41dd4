"""Score the rows of files of any size: the work of `babelcart score`.

The files are read twice. The first pass checks every row, so that a broken one is reported before anything is scored. The second pass
scores chunk by chunk, in the same chunks, packs and prefix caches as the stage `predict`, so that equal rows get equal bytes. Scored
chunks are kept in .scratch, and an interrupted run continues with the next one.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from babelcart.core.errors import UserError, short_repr
from babelcart.core.files import atomic_write
from babelcart.model import scoring
from babelcart.model.prompts import RowTexts
from babelcart.reading.batches import JSON
from babelcart.reading.readers import BrokenRows, Problem, Records, read_records
from babelcart.reading.sources import RawFile

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from babelcart.scorer import Scorer

# The columns that are added to those of the files, and their types.
ADDED = {"p_relevant": "float64", "relevant": "int8", "model": "large_string", "revision": "large_string", "notes": "large_string"}
# Those of the best candidates of a query.
ADDED_TO_RANKED = {"rank": "int32", "candidate": "large_string", **ADDED}
QUERY = ("language", "origin_query")
TEXTS = (*QUERY, "candidate")
FORMATS = (".parquet", ".csv", ".jsonl")
STANDARD_OUTPUT = "-"
MAX_PROBLEMS = 10_000  # malformed rows; a file with more is not read to its end


@dataclass
class Survey:
    """Facts about the files to score, from the first pass.

    Attributes
    ----------
    rows : int
    schema : pyarrow.Schema
        All fields of all files. Fields of JSON Lines have the metadata `JSON`.
    """

    rows: int
    schema: pa.Schema


@dataclass
class Summary:
    """Counts of the scored rows."""

    rows: int = 0
    relevant: int = 0
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, table: pa.Table) -> None:
        """Count the rows of a table with the columns `ADDED`."""
        self.rows += table.num_rows
        self.relevant += sum(table["relevant"].to_pylist())
        for notes in table["notes"].to_pylist():
            self.notes.update(notes.split())


def survey(files: Sequence[RawFile], task: str, texts: Sequence[str], with_labels: bool = False) -> Survey:
    """Read all rows of the files, and check them.

    Parameters
    ----------
    files : sequence of RawFile
    task : str
    texts : sequence of str
        `TEXTS`, or `QUERY` for files of queries.
    with_labels : bool
        Whether to check the labels, too; at least one row must have one.

    Raises
    ------
    UserError
        If a row is malformed, no row has a label, or the formats or types of the files differ.
    """
    import pyarrow as pa

    if len(formats := {file.format for file in files}) > 1:
        raise UserError(f"the files have different formats ({', '.join(sorted(map(str, formats)))}); score them one after another")
    rows, labelled, problems, schemas = 0, 0, list[Problem](), list[pa.Schema]()
    for records in read_records(files, task, texts, with_labels=with_labels):
        rows += records.rows.num_rows
        labelled += records.rows.num_rows - records.rows["label"].null_count if with_labels else 0
        problems += records.problems
        if not schemas or records.records.schema != schemas[-1]:
            schemas.append(records.records.schema)
        if len(problems) > MAX_PROBLEMS:
            break
    if problems:
        end = f", and the files were read up to {problems[-1].file}, line {problems[-1].line} only" if len(problems) > MAX_PROBLEMS else ""
        raise BrokenRows(problems, 0, f"Fix the files: every row needs an answer, so that none can be left out{end}")
    if with_labels and not labelled:
        raise UserError(
            f"{files[0].path}: no row has a label, which --evaluate needs; the fields are {', '.join(map(short_repr, schemas[0].names))}. "
            "State the field with --column label=NAME, or score without --evaluate"
        )
    try:
        schema = pa.unify_schemas(schemas)
    except pa.ArrowException as error:
        raise UserError(f"the files have different types in a column ({error}); score them one after another") from error
    return Survey(rows, schema.remove_metadata())


def check_added_columns(added: Sequence[str], facts: Survey, path: Path) -> None:
    """Raise `UserError` if a file to score has a column with the name of an added one."""
    if taken := sorted(set(added) & set(facts.schema.names)):
        raise UserError(
            f"{path} already has the column {taken[0]!r}, which this command writes; choose other names, for example with --prefix new_"
        )


@dataclass(frozen=True)
class Job:
    """Files to score, with the model, and the folder of the scored chunks.

    Attributes
    ----------
    scorer : Scorer
    files : sequence of RawFile
    facts : Survey
    folder : Path
        Chunks that it holds are not scored again; its name must depend on the files, the model and all settings.
    prefix : str
        Beginning of the names of the added columns.
    """

    scorer: Scorer
    files: Sequence[RawFile]
    facts: Survey
    folder: Path
    prefix: str = ""


def score_chunks(job: Job, update: Callable[[int], object]) -> list[Path]:
    """Score the rows of files, and write each chunk to a file of its own, unless it exists.

    Parameters
    ----------
    job : Job
    update : callable
        Called with numbers of scored rows.

    Returns
    -------
    list of Path
        The Parquet files of the chunks, in the order of the rows.
    """
    paths: list[Path] = []
    scorer, settings = job.scorer, job.scorer.settings
    for part in _parts(job, TEXTS, settings.part_rows):
        starts = range(0, part.rows.num_rows, settings.chunk_rows)
        part_paths = [job.folder / f"{len(paths) + index:06d}.parquet" for index in range(len(starts))]
        paths += part_paths
        if all(path.exists() for path in part_paths):
            update(part.rows.num_rows)
            continue
        texts = [RowTexts(*row) for row in zip(*(part.rows[name].to_pylist() for name in TEXTS), strict=True)]
        tokens = scorer.tokenizer.encode_many(texts)
        cache = scoring.part_prefixes(scorer.model, tokens, settings)
        for start, path in zip(starts, part_paths, strict=True):
            chunk = slice(start, start + settings.chunk_rows)
            if path.exists():
                update(len(tokens[chunk]))
                continue
            probability = scorer.chunk_probability(tokens[chunk], cache, update)
            records = part.records.slice(start, settings.chunk_rows)
            _write_parquet(path, _with_columns(records, job, ADDED, _answers(scorer, texts[chunk], probability.tolist())))
    return paths


def read_candidates(path: Path) -> list[str]:
    """Read a text file with one candidate on each line. Empty lines and repeated candidates are left out.

    Raises
    ------
    UserError
        If the file does not exist, is not UTF-8, or has no candidate.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; expected a text file with one candidate on each line") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}); expected one candidate on each line") from error
    if not (candidates := list(dict.fromkeys(stripped for line in lines if (stripped := line.strip())))):
        raise UserError(f"{path} has no candidates; expected one on each line")
    return candidates


def rank_candidates(job: Job, candidates: Sequence[str], top: int, update: Callable[[int], object]) -> list[Path]:
    """Score each query of files with every candidate, and write the best candidates of each row.

    The prefixes of all candidates are computed once. The rows of a file of the result have as many pairs as a chunk.

    Parameters
    ----------
    job : Job
        The rows of its files are queries.
    candidates : sequence of str
    top : int
        Number of candidates of each row, the most probable first; of equal probabilities, the first of `candidates` comes first.
    update : callable
        Called with numbers of scored rows of the files.

    Returns
    -------
    list of Path
        Parquet files with `top` rows for each row of `files`.
    """
    import numpy as np
    import pyarrow as pa

    paths: list[Path] = []
    scorer, cache = job.scorer, None
    for part in _parts(job, QUERY, max(1, scorer.settings.chunk_rows // len(candidates))):
        paths.append(job.folder / f"{len(paths):06d}.parquet")
        if not paths[-1].exists():
            cache = cache or scorer.candidate_prefixes(candidates)
            queries = list(zip(*(part.rows[name].to_pylist() for name in QUERY), strict=True))
            position = {query: index for index, query in enumerate(dict.fromkeys(queries))}
            pairs = [RowTexts(language, query, candidate) for language, query in position for candidate in candidates]
            probability = scorer.chunk_probability(scorer.tokenizer.encode_many(pairs), cache)
            by_query = probability.reshape(len(position), len(candidates))
            best = np.argsort(-by_query, axis=1, kind="stable")[:, :top]  # (queries, top)
            chosen = [(index, place) for query in queries for index in [position[query]] for place in best[index].tolist()]
            texts = [pairs[index * len(candidates) + place] for index, place in chosen]
            answers = _answers(scorer, texts, [float(by_query[index, place]) for index, place in chosen])
            answers |= {"rank": [*range(1, best.shape[1] + 1)] * len(queries), "candidate": [row.candidate for row in texts]}
            records = part.records.take(pa.array(np.repeat(np.arange(len(queries)), best.shape[1])))
            _write_parquet(paths[-1], _with_columns(records, job, ADDED_TO_RANKED, answers))
        update(part.rows.num_rows)
    return paths


def _parts(job: Job, texts: Sequence[str], part_rows: int) -> Iterator[Records]:
    """Yield the rows of files, in parts of exactly `part_rows` rows, the last one of fewer.

    Raises
    ------
    UserError
        If the files have changed since the survey.
    """
    import pyarrow as pa

    rows: list[pa.Table] = []
    records: list[pa.Table] = []

    def part() -> Records:
        return Records(pa.concat_tables(rows), pa.concat_tables(records, promote_options="default"), [])

    row_count = 0
    for batch in read_records(job.files, job.scorer.task, texts):
        start, row_count = 0, row_count + batch.rows.num_rows
        if batch.problems or row_count > job.facts.rows:
            raise UserError(f"{batch.problems[0].file if batch.problems else job.files[-1].path} changed while it was scored; try again")
        while start < batch.rows.num_rows:
            wanted = part_rows - sum(table.num_rows for table in rows)
            rows.append(batch.rows.slice(start, wanted))
            records.append(batch.records.slice(start, wanted))
            start += wanted
            if sum(table.num_rows for table in rows) == part_rows:
                yield part()
                rows, records = [], []
    if row_count < job.facts.rows:
        raise UserError(f"{job.files[-1].path} changed while it was scored; try again")
    if rows:
        yield part()


def _answers(scorer: Scorer, texts: Sequence[RowTexts], probability: Sequence[float]) -> dict[str, list[Any]]:
    """Return the values of the columns `ADDED`."""
    return {
        "p_relevant": list(probability),
        "relevant": [int(p >= scorer.threshold(row.language)) for p, row in zip(probability, texts, strict=True)],
        "model": [scorer.name] * len(texts),
        "revision": [scorer.revision] * len(texts),
        "notes": [" ".join(notes) for notes in scorer.notes(texts)],
    }


def _with_columns(records: pa.Table, job: Job, added: Mapping[str, str], values: Mapping[str, list[Any]]) -> pa.Table:
    """Return records with all fields of the job's files, and the columns `added` with their values."""
    import pyarrow as pa

    rows, fields = records.num_rows, list(job.facts.schema)
    columns = {field.name: records[field.name] if field.name in records.column_names else pa.nulls(rows, field.type) for field in fields}
    for name, kind in added.items():
        fields.append(pa.field(job.prefix + name, pa.type_for_alias(kind)))
        columns[job.prefix + name] = pa.array(values[name], fields[-1].type)
    return pa.table(columns, pa.schema(fields))


def _write_parquet(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    with atomic_write(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_chunk(path: Path) -> pa.Table:
    """Read a file of `score_chunks`."""
    import pyarrow.parquet as pq

    return pq.read_table(path)


def check_output(out: str) -> None:
    """Raise UserError if the format of an output is not known."""
    if out != STANDARD_OUTPUT and Path(out).suffix.lower() not in FORMATS:
        raise UserError(f"{out}: unknown format; accepted: names that end in {', '.join(FORMATS)}, and - for JSON Lines on standard output")


def write_output(out: str, paths: Sequence[Path], prefix: str) -> Summary:
    """Join the chunks in one file, or print them, and count their rows.

    Parameters
    ----------
    out : str
        Name of a file with a suffix of `FORMATS`, or `STANDARD_OUTPUT`.
    paths : sequence of Path
        Result of `score_chunks`.
    prefix : str
        Beginning of the names of the added columns.
    """
    summary = Summary()
    if out == STANDARD_OUTPUT:
        _write_json_lines(sys.stdout, _counted(paths, prefix, summary))
        return summary
    suffix = Path(out).suffix.lower()
    if suffix == ".parquet":
        _write_decoded_parquet(Path(out), paths, _counted(paths, prefix, summary))
        return summary
    with atomic_write(Path(out)) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        write = _write_csv if suffix == ".csv" else _write_json_lines
        write(handle, _counted(paths, prefix, summary))
    return summary


def _counted(paths: Sequence[Path], prefix: str, summary: Summary) -> Iterator[pa.Table]:
    """Yield the tables of chunks, and count their rows."""
    for path in paths:
        table = read_chunk(path)
        summary.add(table.select([prefix + name for name in ADDED]).rename_columns(list(ADDED)))
        yield table


def _is_json(table: pa.Table, name: str) -> bool:
    return (table.schema.field(name).metadata or {}).items() >= JSON.items()


def _texts_of_json(values: Sequence[str | None]) -> list[str | None]:
    """Return the texts of JSON texts; other values, such as numbers and lists, stay JSON."""
    return [json.loads(value) if value is not None and value.startswith('"') else value for value in values]


def _write_decoded_parquet(path: Path, paths: Sequence[Path], tables: Iterator[pa.Table]) -> None:
    """Write tables to a Parquet file, with JSON texts decoded."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([column.remove_metadata() for column in pq.read_schema(paths[0])])
    with atomic_write(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for table in tables:
            columns = {
                name: pa.array(map(_encodable, _texts_of_json(table[name].to_pylist())), pa.large_string())
                if _is_json(table, name)
                else table[name]
                for name in table.column_names
            }
            writer.write_table(pa.table(columns, schema))


def _encodable(text: str | None) -> str | None:
    """Return a text with halves of surrogate pairs as escapes, because UTF-8 cannot hold them."""
    return text if text is None or text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _write_csv(handle: IO[str], tables: Iterator[pa.Table]) -> None:
    writer = csv.writer(handle, lineterminator="\n")
    for index, table in enumerate(tables):
        if index == 0:
            writer.writerow(table.column_names)
        columns = []
        for name in table.column_names:
            values = table[name].to_pylist()
            columns.append(list(map(_encodable, _texts_of_json(values))) if _is_json(table, name) else list(map(_cell, values)))
        writer.writerows(zip(*columns, strict=True))


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, (list, dict, bool)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return repr(value) if isinstance(value, float) else str(value)


def _write_json_lines(handle: IO[str], tables: Iterator[pa.Table]) -> None:
    for table in tables:
        columns = []
        for name in table.column_names:
            values = table[name].to_pylist()
            columns.append([value or "null" for value in values] if _is_json(table, name) else list(map(_json, values)))
        names = [json.dumps(name, ensure_ascii=False) for name in table.column_names]
        for row in zip(*columns, strict=True):
            handle.write("{" + ", ".join(f"{name}: {value}" for name, value in zip(names, row, strict=True)) + "}\n")


def _json(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "null"
    return json.dumps(value, ensure_ascii=False, default=str)


def answered_rows(files: Sequence[RawFile], task: str, paths: Sequence[Path], prefix: str) -> pd.DataFrame:
    """Return the rows of files that `survey` has read, with their labels and scores, for `babelcart.scores.metrics.evaluate`."""
    import pyarrow as pa

    table = pa.concat_tables([batch.rows for batch in read_records(files, task, TEXTS, with_labels=True)]).to_pandas()
    probability = pa.concat_tables([read_chunk(path).select([prefix + "p_relevant"]) for path in paths])
    return table.assign(label=table["label"].astype("Int8"), probability=probability[0].to_numpy())
