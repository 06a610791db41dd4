"""Read, check and clean all rows of a task: the work of the stage `prepare`, which `babelcart check` repeats without writing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.core.errors import UserError, short_repr
from babelcart.core.files import sha256
from babelcart.reading import readers
from babelcart.reading.sources import SPLITS, Data
from babelcart.rows.cleaning import Prepare, drop_uninformative
from babelcart.rows.damage import check_texts
from babelcart.rows.labels import LabelRule
from babelcart.rows.scripts import check_languages

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class PreparedTask:
    """The rows of a task and facts about them.

    Attributes
    ----------
    tables : dict of str to pandas.DataFrame
        Split -> its rows.
    counts : dict
        Counts for metrics/prepare.
    hashes : dict of str to str
        Raw file, relative to ``data.path`` -> SHA-256.
    warnings : list of str
        Facts that may show a wrong setting.
    """

    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def prepare_task(data: Data, settings: Prepare, task: str) -> PreparedTask:
    """Read, check and clean the rows of a task.

    Raises
    ------
    UserError
        If a file cannot be read, too many rows of train or any row of dev or test are broken, labels match no row, or train has no rows or
        only one label.
    """
    prepared = PreparedTask()
    problems_of_train: list[readers.Problem] = []
    all_facts: list[readers.FileFacts] = []
    for split in SPLITS:
        files, label_files = data.raw_files(task, split), data.raw_files(task, f"{split}_labels")
        table, problems, facts = readers.read_rows(files, task, labelled=split == "train" and not label_files)
        counts: dict[str, Any] = {"rows": len(table)}
        prepared.warnings += facts.warnings
        prepared.warnings += [f"{split}: {warning}" for warning in [*check_languages(table), *check_texts(table)]]
        if label_files:
            labels, label_problems, label_facts = readers.read_labels(label_files, task)
            problems = problems + label_problems
            all_facts.append(label_facts)
            if not problems or split == "train":
                hint = _id_hint(table["id"], labels["id"])
                table, joined = join_labels(table, labels, [str(file.path) for file in label_files])
                counts |= joined
                prepared.warnings += _join_warnings(split, joined, hint)
        if split == "train":
            problems_of_train = problems
        else:
            readers.refuse_any_broken(problems)
        counts |= {"broken": len(problems), "labelled": int(table["label"].notna().sum())}
        if facts.separators:
            counts["separators"] = dict(sorted(facts.separators.items()))
        if facts.unlabelled:
            counts["left_out_unlabelled"] = facts.unlabelled
        prepared.tables[split], prepared.counts[split] = table, counts
        paths = dict.fromkeys(path for file in [*files, *label_files] for path in file.files_read())
        prepared.hashes |= {_relative(path, data): sha256(path) for path in paths}
        all_facts.append(facts)
    readers.refuse_broken(problems_of_train, settings.max_broken_rows)
    prepared.warnings += _key_warnings(task, all_facts) + _option_warnings(data, task)
    _clean_train(prepared, settings, data, task)
    prepared.counts["broken"] = {"rows": len(problems_of_train)}
    return prepared


def join_labels(table: pd.DataFrame, labels: pd.DataFrame, names: list[str]) -> tuple[pd.DataFrame, dict[str, int]]:
    """Join labels from files of their own to rows by id.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows. A label in the rows must not contradict that of the files.
    labels : pandas.DataFrame
        ``id``, ``label``, ``grade``; ids are unique.
    names : list of str
        Names of the label files, for messages.

    Returns
    -------
    tuple
        The rows with labels, and the counts ``label_rows``, ``matched`` (rows with a row in the label files) and ``unmatched`` (label rows
        whose id no row has).

    Raises
    ------
    UserError
        If no id matches, or a label contradicts that of its row.
    """
    files = ", ".join(names)
    by_id = labels.set_index("id")
    matched = table["id"].isin(by_id.index)
    if len(table) and not matched.any():
        hint = _id_hint(table["id"], labels["id"])
        raise UserError(
            f"{files}: none of its {len(labels)} ids is the id of a row. It has the ids {_examples(labels['id'])}; the rows have "
            f"{_examples(table['id'])}.{hint} Correct the ids, or set `columns: {{id: ...}}` in data"
        )
    joined = table["id"].map(by_id["label"]).astype("Int8")
    contradictory = joined.notna() & table["label"].notna() & (joined != table["label"]).fillna(False)
    if contradictory.any():
        identifier = table["id"][contradictory].iloc[0]
        raise UserError(
            f"{files}: {int(contradictory.sum())} labels differ from the labels in the rows, first for the id {identifier!r}; "
            "correct one of them, or set `columns: {label: null}` for the rows in data"
        )
    grades = table["id"].map(by_id["grade"]).fillna("").astype("str")
    table = table.assign(label=joined.fillna(table["label"]), grade=grades.where(grades != "", table["grade"]))
    counts = {"label_rows": len(labels), "matched": int(matched.sum()), "unmatched": int((~labels["id"].isin(table["id"])).sum())}
    return table, counts


def _examples(ids: pd.Series) -> str:
    return ", ".join(map(repr, ids.head(3)))


def _id_hint(row_ids: pd.Series, label_ids: pd.Series) -> str:
    """Return a sentence about the most frequent difference between ids that do not match, or an empty text."""
    rows, labels = set(row_ids) - set(label_ids), set(label_ids) - set(row_ids)
    matches: dict[str, int] = {}
    for change, difference in ((_loosened, "case or spaces"), (_without_zeros, "leading zeros"), (_without_fraction, "a trailing `.0`")):
        matches[difference] = len(set(map(change, rows)) & set(map(change, labels)))
    difference = max(matches, key=lambda name: matches[name])
    return f" {matches[difference]:,} ids differ only in {difference}." if matches[difference] else ""


def _loosened(identifier: str) -> str:
    return identifier.strip().casefold()


def _without_zeros(identifier: str) -> str:
    return identifier.strip().lstrip("0") or "0"


def _without_fraction(identifier: str) -> str:
    return identifier.strip().removesuffix(".0")


def _join_warnings(split: str, joined: dict[str, int], hint: str) -> list[str]:
    if not joined["unmatched"]:
        return []
    return [
        f"{split}: {joined['unmatched']:,} of {joined['label_rows']:,} labels have an id that no row has, "
        f"and {joined['matched']:,} rows have a label in the label files.{hint}"
    ]


def _key_warnings(task: str, all_facts: list[readers.FileFacts]) -> list[str]:
    """Return a warning for each key of `languages` and `labels` that no row of the task has, such as a misspelt one."""
    unused = {key for facts in all_facts for key in facts.unused_keys} - {key for facts in all_facts for key in facts.used_keys}
    return [
        f"{task}: `{option}` in data maps {key!r}, which no row has; check its spelling, or remove it" for option, key in sorted(unused)
    ]


def _option_warnings(data: Data, task: str) -> list[str]:
    """Return a warning for each option that is set, but has no effect on any file of the task."""
    files = [file for split in SPLITS for name in (split, f"{split}_labels") for file in data.raw_files(task, name)]
    formats = " or ".join(sorted({str(file.format) for file in files}))
    unused = set.intersection(*(file.unused_options() for file in files))
    return [f"{task}: `{option}` in data has no effect on files in the format {formats}; remove it" for option in sorted(unused)]


def _clean_train(prepared: PreparedTask, settings: Prepare, data: Data, task: str) -> None:
    """Clean the train table, and check that what remains can be trained on."""
    table = prepared.tables["train"]
    missing = int(table["label"].isna().sum())
    if missing:
        prepared.counts["train"]["left_out_unlabelled"] = prepared.counts["train"].get("left_out_unlabelled", 0) + missing
        table = table[table["label"].notna()].reset_index(drop=True)
    table, cleaned = drop_uninformative(
        table, settings.contradictions, _rule_with_cut(data, task) if settings.contradictions == "mean" else None
    )
    prepared.tables["train"] = table
    prepared.counts["train"] = {**prepared.counts["train"], **cleaned}
    if table.empty:
        raise UserError(f"{task}: train has no labelled row left; {short_repr(prepared.counts['train'])}")
    if table["label"].nunique() == 1:
        raise UserError(
            f"{task}: all {len(table):,} train rows have the label {int(table['label'].iloc[0])}, so that nothing can be learnt; "
            "add rows with the other label, or change `labels` in data"
        )


def _rule_with_cut(data: Data, task: str) -> LabelRule | None:
    """Return the label rule of the train files if all of them have the same cut, else None."""
    files = data.raw_files(task, "train_labels") or data.raw_files(task, "train")
    rules = [LabelRule(file.options.labels) for file in files]
    return rules[0] if len({rule.cut for rule in rules}) == 1 else None


def _relative(path: Path, data: Data) -> str:
    return path.relative_to(data.path).as_posix() if path.is_relative_to(data.path) else path.as_posix()
