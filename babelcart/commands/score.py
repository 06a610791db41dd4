"""Score the rows of files with a trained model.

FILES are read with the options of the section data in params.yaml, including those of the task; `-` reads JSON Lines from standard input.
The output has all columns of the files, p(relevant), the decision at the threshold, the model, and notes on rows that are unlike the
training rows. If a run is interrupted, run the same command again: it continues where it stopped.

Example: babelcart score --task qc --model gemma3-270m log.csv --out scores.parquet
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from babelcart.commands import cli
from babelcart.commands.results import COLUMNS, cells, header
from babelcart.core import config
from babelcart.core.errors import UserError, printable
from babelcart.core.files import parse_yaml, read_json, sha256, temporary_folder
from babelcart.domain import NOTES
from babelcart.reading.sources import Data, RawFile, ReadOptions
from babelcart.scores import metrics
from babelcart.scores.formatting import format_count
from babelcart.scores.slices import reading_order

if TYPE_CHECKING:
    import pandas as pd

    from babelcart.score import Summary
    from babelcart.scorer import Scorer

SCRATCH = Path(".scratch/score")
COLUMN_NAMES = ("origin_query", "candidate", "language", "label", "grade")
READ_OPTIONS = tuple(field.name for field in fields(ReadOptions) if field.name not in ("columns", "constants"))
ADVICE = (
    "If these files differ from the training files, do not change params.yaml: give the names of columns with --column "
    "origin_query=NAME, and other reading options with --read, such as --read delimiter=';'. `babelcart inspect FILE` finds them"
)


@dataclass(frozen=True)
class Options:
    """The options of the command."""

    out: str
    columns: tuple[str, ...]
    read: tuple[str, ...]
    language: str | None
    threshold: float | None
    evaluate: bool
    against: Path | None
    top: int
    prefix: str

    def read_options(self) -> ReadOptions:
        """Return the reading options that precede those of params.yaml."""
        names = _pairs("--column", self.columns, COLUMN_NAMES)
        values = {name: _parsed(name, value) for name, value in _pairs("--read", self.read, READ_OPTIONS).items()}
        try:
            options = config.build_section(ReadOptions, values, "--read") if values else ReadOptions()
            chosen = ReadOptions(columns={**names}, constants={"language": self.language} if self.language else None)
            return options.overridden_by(chosen)
        except config.SettingError as error:
            raise click.UsageError(error.message) from error
        except ValueError as error:
            raise click.UsageError(str(error)) from error


def _pairs(option: str, texts: Sequence[str], accepted: Sequence[str]) -> dict[str, str]:
    """Return the names and values of an option that is given as NAME=VALUE."""
    pairs = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in accepted or not value:
            raise click.UsageError(f"{option} is {text!r}; accepted: NAME=VALUE with a name out of {', '.join(accepted)}")
        pairs[name] = value
    return pairs


def _parsed(name: str, value: str) -> Any:
    """Parse a value as YAML, except for single characters, such as ``|``, which have a meaning there."""
    return value if len(value) == 1 else parse_yaml(value, f"--read {name}")


@contextmanager
def _advice() -> Iterator[None]:
    """Add to errors of reading that the options of params.yaml can be overridden for the files to score."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}\n{ADVICE}") from error


@cli.command
@click.argument("names", nargs=-1, required=True, metavar="FILES...")
@cli.task
@cli.model
@click.option("--out", "-o", required=True, help="File to write (.parquet, .csv or .jsonl); - prints JSON Lines.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME=COLUMN",
    help=f"Column of FILES that holds {', '.join(COLUMN_NAMES[:-1])} or {COLUMN_NAMES[-1]}, such as origin_query=search_term; repeatable.",
)
@click.option("--read", multiple=True, metavar="NAME=VALUE", help="Another reading option of data, such as delimiter=';'; repeatable.")
@click.option("--language", help="Language of all rows, such as de, if FILES have no column for it.")
@click.option("--threshold", type=click.FloatRange(0, 1), help="Threshold of the decision, in place of that of `evaluate`.")
@click.option("--evaluate", is_flag=True, help="Print F1 and AUC of the rows that have labels.")
@click.option(
    "--against", type=click.Path(path_type=Path), help="File of candidates, one on each line; each query of FILES is scored with all."
)
@click.option(
    "--top", type=click.IntRange(1), default=5, show_default=True, help="With --against: number of candidates to write for each query."
)
@click.option("--prefix", default="", help="Beginning of the names of the added columns.")
def main(names: tuple[str, ...], task: str, model: str, **options: Any) -> None:
    from tqdm import tqdm

    from babelcart import score
    from babelcart.scorer import load_scorer

    chosen = Options(**options)
    if chosen.evaluate and chosen.against:
        raise click.UsageError("--evaluate needs labelled pairs of query and candidate; leave out --against")
    score.check_output(chosen.out)
    if chosen.out in names and chosen.out != score.STANDARD_OUTPUT:
        raise click.UsageError(f"--out is {chosen.out}, which is one of the files to score; choose another name")
    if names.count("-") > 1:
        raise click.UsageError("standard input (-) can be read only once")
    candidates = score.read_candidates(chosen.against) if chosen.against else []
    texts, added = (score.QUERY, score.ADDED_TO_RANKED) if candidates else (score.TEXTS, score.ADDED)
    with _input_files(names, task, chosen.read_options()) as files:
        with _advice():
            facts = score.survey(files, task, texts, chosen.evaluate)
        score.check_added_columns([chosen.prefix + name for name in added], facts, files[0].path)
        scorer = load_scorer(model, task, chosen.threshold)
        if scorer.domain is None:
            click.echo(
                f"build/negatives/{task}.parquet is missing (`dvc pull` fetches it): rows that are unlike the training rows get no note",
                err=True,
            )
        job = score.Job(scorer, files, facts, SCRATCH / _key(scorer, files, chosen, candidates), chosen.prefix)
        with tqdm(total=facts.rows, desc="score", unit="row", disable=None) as bar:
            if candidates:
                paths = score.rank_candidates(job, candidates, chosen.top, bar.update)
            else:
                paths = score.score_chunks(job, bar.update)
        summary = score.write_output(chosen.out, paths, chosen.prefix)
        click.echo("\n".join(_lines(summary)), err=True)
        if chosen.evaluate:
            table = score.answered_rows(files, task, paths, chosen.prefix)
            click.echo("\n".join(_scores(table, task, scorer.decision)), err=chosen.out == score.STANDARD_OUTPUT)
    shutil.rmtree(job.folder)


def _key(scorer: Scorer, files: Sequence[RawFile], chosen: Options, candidates: Sequence[str]) -> str:
    """Return a hash of everything that the scored chunks depend on."""
    from babelcart.training.checkpoints import fingerprint

    task_model = scorer.task_model
    settings = (scorer.name, task_model.local_settings, task_model.prompt, scorer.settings, scorer.decision, chosen.prefix, chosen.top)
    versions = (scorer.revision, task_model.source_record(), scorer.domain.sha256 if scorer.domain else None)
    return fingerprint(Path(__file__), settings, versions, _content(files), candidates, chosen.out)


@contextmanager
def _input_files(names: tuple[str, ...], task: str, options: ReadOptions) -> Iterator[list[RawFile]]:
    """Yield the files with their reading options; standard input is copied to a temporary file."""
    data = config.load_section(Data)
    with temporary_folder(SCRATCH, "input-") as folder:
        files = []
        for name in names:
            path = Path(name)
            if name == "-":
                path = folder / "standard-input.jsonl"
                with path.open("wb") as copy:
                    shutil.copyfileobj(sys.stdin.buffer, copy)
            file = data.raw_file(task, path)
            files.append(replace(file, options=file.options.overridden_by(options)))
        yield files


def _lines(summary: Summary) -> list[str]:
    """Return lines with the counts of the written rows."""
    lines = [f"{summary.rows:,} rows written, {summary.relevant:,} relevant"]
    return lines + [f"  {note}: {count:,} rows ({NOTES[note]})" for note, count in summary.notes.most_common()]


def _content(files: Sequence[RawFile]) -> list[tuple[str, ...]]:
    """Return the hashes of files, of those that queries read, and the options."""
    return [(*map(sha256, file.files_read()), repr(file.options)) for file in files]


def _scores(table: pd.DataFrame, task: str, decision: metrics.Decision) -> list[str]:
    """Return lines of a table of scores, overall and of each slice."""
    native_languages = read_json(Path(f"build/train_languages/{task}.json"), [str])
    summary, slices = metrics.evaluate(table, decision, native_languages, config.load_section(metrics.Evaluate))
    groups = {"languages": {name: summary[name] for name in ("overall", "seen", "unseen") if name in summary}}
    groups |= {"language": summary["language"], **slices}
    lines = header("group, slice, rows", COLUMNS)
    for group, values in groups.items():
        for name in sorted(values, key=reading_order) if group != "languages" else values:
            lines.append(f"| {group} | {printable(name)} | {format_count(values[name])} | {cells(values[name], COLUMNS)} |")
    return lines
