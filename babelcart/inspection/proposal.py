"""Propose the section ``data`` of params.yaml, and the other settings that depend on it, for some raw files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from babelcart.core.errors import UserError
from babelcart.core.files import is_safe_path
from babelcart.core.tasks import CANDIDATE_FIELD, TASKS
from babelcart.inspection.joins import Joined, find_join, not_readable, write_query
from babelcart.inspection.keys import Key, joined_names
from babelcart.inspection.labels import LabelProposal, propose_labels
from babelcart.inspection.languages import joint_scores, language_shares, map_tag
from babelcart.inspection.roles import Roles, find_roles, folder_values, is_nested, split_of_name, split_of_value
from babelcart.inspection.tables import Database, Table
from babelcart.reading.sources import SPLITS
from babelcart.rows import languages, taxonomy
from babelcart.rows.countries import COUNTRIES

TEST_SHARE = 0.2
MEMORY = "translations.csv"  # a translation memory without entries
_ENOUGH_IDS = 0.1  # share of the rows whose ids a file of labels must have
_SECOND_LANGUAGE = 0.2  # share of the queries from which another language is mentioned
_ENOUGH_QUERIES = 20  # different queries from which the shares of their languages say something about a file
_ENOUGH_LABELS = 10  # rows of a file with a single label from which its scale may be another one
_OPTIONS = ("format", "encoding", "delimiter", "quoting", "header")


@dataclass
class Source:
    """Files of a split that are read in the same way.

    Attributes
    ----------
    split : str
        ``train``, ``dev``, ``test`` or ``dev_labels``, ``test_labels``, ``train_labels``.
    name : str
        File relative to ``data.path``, or a query.
    options : dict
        Reading options.
    reasons : dict of str to str
        Option -> why it is a guess.
    labels : dict of str to int
        Value of the label column -> rows; empty without labels.
    tags : dict of str to int
        Language code -> rows.
    """

    split: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    tags: dict[str, int] = field(default_factory=dict)


@dataclass
class Proposal:
    """Settings for some files.

    Attributes
    ----------
    data : dict
        The section ``data``.
    settings : dict of str to Any
        Dotted key of params.yaml -> value.
    reasons : dict of str to str
        Dotted key -> why the value is a guess.
    queries : dict of str to str
        Path of a query, relative to the project -> its text.
    remarks : list of str
        Facts that people should know.
    problems : list of str
        Reasons why the settings cannot be written.
    """

    data: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    queries: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def tasks(self) -> list[str]:
        """The tasks that have rows."""
        return [task for task in TASKS if task in self.data]


@dataclass(frozen=True)
class Wishes:
    """What the user states: the task, and the relevant values of the label column."""

    task: str | None = None
    relevant: tuple[str, ...] = ()


def propose(database: Database, tables: Sequence[Table], wishes: Wishes) -> Proposal:
    """Propose settings for some files.

    Raises
    ------
    UserError
        If no file holds rows.
    """
    folder = _common_folder([table.path for table in tables])
    roles = {table.name: find_roles(table) for table in tables}
    proposal = Proposal(data={"path": _relative(folder)})
    names = {table.name: table.path.resolve().relative_to(folder).as_posix() for table in tables}
    if unsafe := [name for name in names.values() if not is_safe_path(name)]:
        proposal.problems.append(f"the file name {unsafe[0]!r} cannot be used in params.yaml; rename the file")
    planner = _Planner(database, list(tables), roles, names, wishes, proposal)
    sources: dict[str, list[Source]] = {}
    for task in [wishes.task] if wishes.task else _tasks(planner):
        sources[task] = planner.sources(task)
    sources = {task: found for task, found in sources.items() if found}
    if not sources:
        raise UserError("\n".join([*dict.fromkeys(proposal.problems), _no_rows(tables, roles)]))
    for task, task_sources in sources.items():
        _check_splits(proposal, task, task_sources)
        proposal.data[task], reasons = _task_section(task_sources)
        proposal.reasons |= {f"data.{task}.{key}": reason for key, reason in reasons.items()}
    _other_settings(proposal, sources, planner)
    _remark_on_unused_files(proposal, planner, sources)
    proposal.problems = list(dict.fromkeys(proposal.problems))
    return proposal


def _remark_on_unused_files(proposal: Proposal, planner: _Planner, sources: Mapping[str, list[Source]]) -> None:
    """Add a remark for each file that no setting and no query names."""
    texts = [source.name for task_sources in sources.values() for source in task_sources] + list(proposal.queries.values())
    texts.append(str(proposal.settings["translate.memory"]))
    for table in planner.tables:
        if not any(planner.names[table.name] in text for text in texts):
            proposal.remarks.append(f"{table.path.name} is not used")


def _common_folder(paths: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([path.resolve().parent for path in paths]))


def _relative(folder: Path) -> str:
    """Return a folder as a value of ``data.path``: relative if it is in the project."""
    project = Path.cwd().resolve()
    return folder.relative_to(project).as_posix() if folder.is_relative_to(project) else folder.as_posix()


def _no_rows(tables: Sequence[Table], roles: Mapping[str, Roles]) -> str:
    lines = []
    for table in tables:
        meanings = ", ".join(f"{column} ({role})" for role, column in roles[table.name].columns.items()) or "none recognised"
        nested = [column.name for column in table.columns.values() if is_nested(column)]
        unnest = f"; {', '.join(nested)} holds lists or mappings, which a query can unnest (docs/datasets.md)" if nested else ""
        lines.append(f"  {table.path}: columns {', '.join(table.columns)}; meanings: {meanings}{unnest}")
    return (
        "no file has, or can be joined to, both a column of queries and a column of candidates (titles for qi, categories for qc):\n"
        + "\n".join(lines)
        + "\nSet `columns` in data of params.yaml (docs/data.md), or inspect all files that belong together in one command"
    )


def _tasks(planner: _Planner) -> list[str]:
    """Return the tasks of the files: qi and qc if different files have titles and categories, else one."""
    own: dict[str, set[str]] = {task: set() for task in TASKS}
    for table in planner.tables:
        for task in TASKS:
            if task in planner.roles[table.name].columns:
                own[task].add(table.name)
    if own["qc"] and own["qi"]:
        if not own["qc"] & own["qi"]:
            return list(TASKS)
        planner.proposal.reasons["tasks"] = "titles and categories are both there; --task qc would use the categories"
        return ["qi"]
    return [task for task in TASKS if own[task]]


@dataclass
class _Planner:
    """Finds the sources of a task."""

    database: Database
    tables: list[Table]
    roles: dict[str, Roles]
    names: dict[str, str]
    wishes: Wishes
    proposal: Proposal

    def sources(self, task: str) -> list[Source]:
        """Return the sources of a task: files of rows, or queries that join files, and files of labels."""
        complete = [table for table in self.tables if self._has_rows(table, task)]
        joins = [] if complete and not self._descriptions(complete, task) else self._joins(complete, task)
        joined_names = {joined.facts.name for joined in joins}
        rows = [table for table in complete if table.name not in joined_names]
        sources: list[Source] = []
        for table in rows:
            for split, where in self._splits(table, [other for other in rows if other is not table]):
                sources.append(self._file_source(table, task, split, where))
        for joined in joins:
            sources += self._query_sources(joined, task)
        used = {joined.facts.name for joined in joins} | {part.name for joined in joins for part, _ in joined.parts}
        sources += self._label_sources([table for table in self.tables if table not in rows and table.name not in used], task, rows)
        return self._without_unlabelled_test(self._with_train(sources), task)

    def _has_rows(self, table: Table, task: str) -> bool:
        columns = self.roles[table.name].columns
        return "origin_query" in columns and task in columns and "text" not in columns.values()

    def _descriptions(self, complete: Sequence[Table], task: str) -> bool:
        """Return whether a file of descriptions, without queries, can be joined to the titles."""
        others = [table for table in self.tables if table not in complete]
        return task == "qi" and any("description" in self.roles[table.name].others for table in others)

    def _joins(self, complete: Sequence[Table], task: str) -> list[Joined]:
        wanted = ("origin_query", task, "language")
        unreadable = {table.name: reason for table in self.tables if (reason := not_readable(table))}
        if any(table.name in unreadable for table in complete):
            return []
        candidates = complete or [table for table in self.tables if "label" in self.roles[table.name].columns]
        candidates = list(candidates) or [table for table in self.tables if "origin_query" in self.roles[table.name].columns]
        joins = [find_join(self.database, self.tables, self.roles, table, wanted) for table in candidates]
        for joined in joins:
            for table in [joined.facts, *(part for part, _ in joined.parts)] if joined.parts else []:
                if reason := unreadable.get(table.name):
                    self.proposal.problems.append(f"{table.path}: {reason}, and inspect the new file in its place")
        complete_joins = [joined for joined in joins if joined.parts and {"origin_query", task} <= joined.columns.keys()]
        if not complete_joins:
            self.proposal.problems += [problem for joined in joins for problem in joined.problems]
        return complete_joins

    def _splits(self, table: Table, others: Sequence[Table]) -> list[tuple[str, dict[str, list[str]]]]:
        """Return the splits that a file holds, each with the values of the split column that belong to it."""
        roles = self.roles[table.name].columns
        if "split" in roles:
            column = table.columns[roles["split"]]
            values: dict[str, list[str]] = {}
            for value in sorted(column.values):
                if split := split_of_value(value):
                    values.setdefault(split, []).append(value)
                else:
                    self.proposal.remarks.append(
                        f"{table.path.name}: {column.values[value]:,} rows with {column.name} = {value!r} are not used"
                    )
            return [(split, {column.name: values[split]}) for split in SPLITS if split in values]
        if named := next((name for name in table.columns if name.casefold() in ("split", "subset", "partition")), None):
            examples = ", ".join(map(repr, list(table.columns[named].values)[:4])) or "its values"
            self.proposal.remarks.append(f"{table.path.name}: the column {named!r} is not used, because {examples} are no known splits")
        stated = folder_values(self.names[table.name]).get("split", "")
        folder = table.path.parent.name if others else ""
        return [(split_of_name(table.path.name) or split_of_value(stated) or split_of_value(folder) or "", {})]

    def _file_source(self, table: Table, task: str, split: str, where: dict[str, list[str]]) -> Source:
        roles = self.roles[table.name]
        source = Source(split, self.names[table.name])
        self._add_format(source, table)
        columns: dict[str, str | None] = {}
        defaults = {
            "id": "id",
            "language": "language",
            "origin_query": "origin_query",
            "label": "label",
            "candidate": CANDIDATE_FIELD[task],
        }
        for role, default in defaults.items():
            column = roles.columns.get(task if role == "candidate" else role)
            if role == "id" and (column is None or not self._is_id(table, column)):
                columns["id"] = None
                source.reasons["columns"] = "no column of unique ids: the line numbers are the ids"
            elif column is not None and column != default:
                columns[role] = column
            elif column is None and role == "label" and default in table.columns:
                columns[role] = None
        guesses = [roles.guesses[role] for role in ("origin_query", task, "label") if role in roles.guesses]
        if guesses:
            source.reasons["columns"] = "; ".join([*([source.reasons["columns"]] if "columns" in source.reasons else []), *guesses])
        if "task" in table.columns and {value.casefold() for value in table.columns["task"].values} != {task}:
            columns["task"] = None
        if columns:
            source.options["columns"] = columns
        if where:
            source.options["where"] = {name: values[0] if len(values) == 1 else values for name, values in where.items()}
        self._add_languages(source, table, roles.columns, where)
        if "label" in roles.columns:
            source.labels = self.database.values(table, roles.columns["label"], where)
        if task == "qc":
            self._add_separator(source, table, roles.columns["qc"])
        return source

    def _is_id(self, table: Table, column: str) -> bool:
        return table.columns[column].integer and self.database.is_unique(table, column)

    def _add_format(self, source: Source, table: Table) -> None:
        for option in _OPTIONS:
            value = getattr(table.file.options, option)
            if value is not None:
                source.options[option] = list(value) if isinstance(value, tuple) else value
                if option in table.file.reasons:
                    source.reasons[option] = table.file.reasons[option]

    def _add_separator(self, source: Source, table: Table, column: str) -> None:
        separator = taxonomy.find_separator(self.database.sample(table, column, limit=2000))
        if separator:
            source.options["separator"] = separator

    def _add_languages(self, source: Source, table: Table, columns: Mapping[str, str], where: dict[str, list[str]]) -> None:
        """Add the map of languages, or the constant language of a file without a column of languages."""
        query, column = columns["origin_query"], columns.get("language")
        stated = folder_values(self.names[table.name]).get("language", "")
        if column is None and (code := map_tag(stated, self.database.sample(table, query))[0] if stated else None):
            source.options["constants"] = {"language": code}
            source.tags = {code: table.rows}
            return
        if column is None:
            texts = self.database.sample(table, query)
            shares, constant = language_shares(texts), next(iter(joint_scores(texts)), "en")
            source.options["constants"] = {"language": constant}
            source.reasons["constants"] = (
                f"no column of languages; by lingua, the queries are most likely in {constant} (single queries: {_percentages(shares)})"
            )
            source.tags = {constant: table.rows}
            others = [code for code, share in shares.items() if code != constant and share >= _SECOND_LANGUAGE]
            if others and len(texts) >= _ENOUGH_QUERIES:
                self.proposal.remarks.append(
                    f"{table.path.name}: many queries seem to be in {', '.join(others)}, but no column states the language of a row, so "
                    f"that all rows are read as {constant}; add a column of languages if they are in several"
                )
            return
        codes: dict[str, str | None] = {}
        reasons: dict[str, list[str]] = {}
        counts = self.database.values(table, column, where)
        for tag, rows in counts.items():
            code, reason = map_tag(tag, self.database.sample(table, query, {column: tag}, 200) if _is_unclear(tag) else [])
            if code is None or (tag and code != languages.iso_code(tag)):
                codes[tag] = code
                reasons.setdefault(reason or "unknown, mapped to the most frequent language", []).append(tag or "(empty)")
            source.tags[code or ""] = source.tags.get(code or "", 0) + rows
        main = max((code for code in source.tags if code), key=lambda code: source.tags[code], default="en")
        mapping = {tag: code or main for tag, code in codes.items()}
        if mapping:
            source.options["languages"] = mapping
            source.reasons["languages"] = "; ".join(f"{', '.join(sorted(tags)[:12])}: {reason}" for reason, tags in reasons.items())

    def _query_sources(self, joined: Joined, task: str) -> list[Source]:
        """Return a query for each split of a table of judgements, and the options that its columns need."""
        facts, sources = joined.facts, []
        roles = {role: column for role, (table, column) in joined.columns.items() if table is facts}
        unique = "id" in roles and self._is_id(facts, roles["id"])
        for split, where in self._splits(facts, []):
            name = f"queries/{task}_{split or 'train'}.sql"
            if name in self.proposal.queries:
                name = f"queries/{task}_{facts.path.stem}.sql"
            self.proposal.queries[name] = write_query(joined, task, self.names, where, unique)
            source = Source(split, name)
            query_table, query_column = joined.columns["origin_query"]
            if "language" in joined.columns and joined.columns["language"][0] is query_table:
                tags = joined.columns["language"][1]
                self._add_languages(source, query_table, {"origin_query": query_column, "language": tags}, {})
            elif "language" not in joined.columns:
                self._add_languages(source, query_table, {"origin_query": query_column}, {})
            if "label" in roles:
                source.labels = self.database.values(facts, roles["label"], where)
            sources.append(source)
        for part, key in joined.parts:
            guess = f" (guess: {key.guess})" if key.guess else ""
            remark = (
                f"{facts.path.name} is joined with {part.path.name} by {joined_names(key.pairs)}{guess}: {key.share:.1%} of its rows match"
            )
            missing = f"; the texts of the other {round((1 - key.share) * facts.rows):,} are empty" if key.share < 1 else ""
            self.proposal.remarks.append(remark + missing)
            if key.share < 1 and (others := self._parts_of_same_table(facts, part, key)):
                self.proposal.problems.append(
                    f"{part.path.name} has the texts of {key.share:.1%} of the rows, and {', '.join(others)} the texts of more rows: "
                    "put the rows of these files into one file"
                )
        return sources

    def _parts_of_same_table(self, facts: Table, part: Table, key: Key) -> list[str]:
        """Return the names of other files with the columns of a joined table, in which rows of the judgements occur."""
        mine, theirs = [first for first, _ in key.pairs], [second for _, second in key.pairs]
        return [
            table.path.name
            for table in self.tables
            if table is not part and table.columns.keys() == part.columns.keys() and self.database.overlap(facts, mine, table, theirs)
        ]

    def _label_sources(self, tables: Sequence[Table], task: str, rows: Sequence[Table]) -> list[Source]:
        """Return files of ids and labels, each assigned to the split without labels whose ids it has; one for each file of rows."""
        unlabelled = [table for table in rows if "label" not in self.roles[table.name].columns and "id" in self.roles[table.name].columns]
        sources = []
        for other in unlabelled:
            split = split_of_name(other.path.name) or "train"
            candidates = [(self._label_match(table, other, split), table) for table in tables]
            # A file whose name states no split holds the labels of test.
            others = split == "dev" and any(split_of_name(table.path.name) == "test" for table in unlabelled)
            candidates = [
                ((share, stated, words), table)
                for (share, stated, words), table in candidates
                if share >= _ENOUGH_IDS and (stated or not others)
            ]
            if not candidates:
                continue
            table = max(candidates, key=lambda candidate: (candidate[0], candidate[1].path.name))[1]
            if len(candidates) > 1:
                names = ", ".join(sorted(candidate.path.name for _, candidate in candidates))
                self.proposal.remarks.append(f"{other.path.name}: labels are in {names}; {table.path.name} is used")
            columns = self.roles[table.name].columns
            source = Source(f"{split}_labels", self.names[table.name], labels=self.database.values(table, columns["label"]))
            self._add_format(source, table)
            source.options["columns"] = {role: columns[role] for role in ("id", "label")}
            sources.append(source)
        return sources

    def _label_match(self, table: Table, rows: Table, split: str) -> tuple[float, bool, int]:
        """Return the share of the rows that a file of labels has, whether its name states the split, and the words that the names share."""
        columns = self.roles[table.name].columns
        if not {"id", "label"} <= columns.keys() or {"origin_query", *TASKS} & columns.keys():
            return 0.0, False, 0
        stated = split_of_name(table.path.name)
        if stated not in (None, split):
            return 0.0, False, 0
        share = self.database.overlap(rows, [self.roles[rows.name].columns["id"]], table, [columns["id"]])
        return round(share, 1), stated == split, _same_words(rows.path, table.path)

    def _with_train(self, sources: list[Source]) -> list[Source]:
        """Return the sources with a split each: files whose name tells none are train."""
        for source in sources:
            if not source.split:
                source.split = "train"
        return sources

    def _without_unlabelled_test(self, sources: list[Source], task: str) -> list[Source]:
        """Return the sources, with test rows that have no labels as dev, so that a part of train can be held out for the scores."""
        tests = [source for source in sources if source.split in ("test", "test_labels")]
        if any(source.split == "dev" for source in sources) or any(source.labels for source in tests):
            return sources
        for source in tests:
            source.split = "dev"
            self.proposal.reasons[f"data.{task}.dev"] = (
                f"{source.name} has no labels, so that its rows are dev, and a part of train is held out as test. "
                "To answer them, add dev to predict.splits and set submit.split"
            )
        return sources


def _same_words(first: Path, second: Path) -> int:
    return len(set(first.stem.casefold().split("_")) & set(second.stem.casefold().split("_")))


def _is_unclear(tag: str) -> bool:
    return tag.strip().casefold() in COUNTRIES or languages.iso_code(tag) is None


def _percentages(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{code} {share:.0%}" for code, share in list(shares.items())[:3]) or "no language"


def _check_splits(proposal: Proposal, task: str, sources: Sequence[Source]) -> None:
    """Add problems: no train rows, or no labels in train."""
    train = [source for source in sources if source.split == "train"]
    if not train:
        names = ", ".join(source.name for source in sources)
        proposal.problems.append(f"{task}: no file of train rows: {names}; inspect the train file in the same command")
    elif not any(source.labels for source in sources if source.split in ("train", "train_labels")):
        proposal.problems.append(f"{task}: the train rows have no labels, in a column or in a file of ids and labels")


def _task_section(sources: Sequence[Source]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the section of a task, and the reasons of its guesses by key.

    Options that all files share are those of the task, with all names of columns that do not contradict each other.
    """
    rows = [source for source in sources if not source.split.endswith("_labels")]
    section = {key: value for key, value in rows[0].options.items() if all(source.options.get(key) == value for source in rows)}
    section.pop("where", None)
    section.pop("columns", None)
    if columns := _common_columns(rows):
        section = {"columns": columns, **section}
    reasons = {key: reason for source in rows for key, reason in source.reasons.items() if key in section}
    for split in (f"{split}{suffix}" for suffix in ("", "_labels") for split in SPLITS):
        groups: list[tuple[dict[str, Any], list[str]]] = []
        for source in (source for source in sources if source.split == split):
            options = _without_common(source.options, section, is_labels=split.endswith("_labels"))
            same = next((names for other, names in groups if other == options), None)
            if same is None:
                groups.append((options, [source.name]))
            else:
                same.append(source.name)
            reasons |= {f"{split}.{key}": reason for key, reason in source.reasons.items() if key in options and reasons.get(key) != reason}
        if len(groups) == 1 and not groups[0][0]:
            section[split] = groups[0][1]
        elif groups:
            entries = [{"files": names, **options} for options, names in groups]
            section[split] = entries[0] if len(entries) == 1 else entries
    return section, reasons


def _common_columns(rows: Sequence[Source]) -> dict[str, str | None]:
    """Return the names of columns that no other file contradicts."""
    values: dict[str, list[str | None]] = {}
    for source in rows:
        columns = source.options.get("columns", {})
        for role, name in ({"label": "label"} | columns if source.labels else columns).items():
            values.setdefault(role, []).append(name)
    common = {role: names[0] for role, names in values.items() if len(set(names)) == 1 and (role == "label" or len(names) == len(rows))}
    return {role: name for role, name in common.items() if (role, name) != ("label", "label")}


def _without_common(options: Mapping[str, Any], section: Mapping[str, Any], *, is_labels: bool) -> dict[str, Any]:
    """Return the options of a source that differ from those of its task."""
    remaining = {key: value for key, value in options.items() if key != "columns" and section.get(key) != value}
    common = section.get("columns", {})
    columns = {role: name for role, name in options.get("columns", {}).items() if common.get(role, role if is_labels else ...) != name}
    return remaining | ({"columns": columns} if columns else {})


def _other_settings(proposal: Proposal, sources: Mapping[str, list[Source]], planner: _Planner) -> None:
    """Labels, the test share, and what the stage translate needs."""
    proposal.settings["tasks"] = proposal.tasks
    without_test = []
    for task, task_sources in sources.items():
        _add_labels(proposal, task, task_sources, planner.wishes.relevant)
        tests = [source for source in task_sources if source.split in ("test", "test_labels")]
        without_test += [] if tests else [task]
        if tests and not any(source.labels for source in tests):
            proposal.remarks.append(f"{task}: the test rows have no labels, so that scores come from the validation rows")
        languages_of = {split: {tag for source in task_sources if source.split == split for tag in source.tags} for split in SPLITS}
        lacking = sorted((languages_of["dev"] or languages_of["test"]) - languages_of["train"])
        if lacking:
            key = f"translate.{task}.target_languages"
            proposal.settings[key] = []
            proposal.reasons[key] = (
                f"train lacks {', '.join(lacking)}; without a translation memory or engine (docs/translation.md), no row is translated"
            )
        else:
            proposal.settings[f"translate.{task}.target_languages"] = None
    proposal.settings["split.test_share"] = TEST_SHARE if without_test else 0.0
    if without_test and len(without_test) < len(sources):
        proposal.problems.append(
            f"{without_test[0]} has no test file, but the other task has one, and split.test_share applies to both; inspect one task at a "
            "time, with --task"
        )
    if without_test:
        proposal.reasons["split.test_share"] = "no test file, so that a part of the queries is held out for the scores"
    memories = [table for table in planner.tables if {"source", "target", "text", "translation"} <= set(table.columns)]
    proposal.settings["translate.memory"] = f"{proposal.data['path']}/{planner.names[memories[0].name]}" if memories else MEMORY


def _add_labels(proposal: Proposal, task: str, sources: Sequence[Source], relevant: Sequence[str]) -> None:
    """Add the label rule of a task to its section."""
    values: dict[str, int] = {}
    for source in sources:
        # An empty value in dev or test is a row without label, which needs no rule.
        in_train = source.split in ("train", "train_labels")
        for value, rows in source.labels.items():
            if value or in_train:
                values[value] = values.get(value, 0) + rows
    if not values:
        return
    rule = propose_labels(values, relevant)
    if rule.unknown:
        listed = ", ".join(rule.unknown[:8])
        proposal.problems.append(
            f"{task}: the labels {listed} have no known meaning; name the relevant ones, for example --relevant {rule.unknown[0]!r}"
        )
        return
    proposal.problems += _problems_of_scales(task, sources, rule)
    positive, negative, missing = rule.positives(values)
    if not positive or not negative:
        proposal.problems.append(
            f"{task}: all {positive + negative:,} labelled rows have the same label, so that nothing can be learnt; "
            "name the relevant values with --relevant, or add rows of the other label"
        )
    if missing:
        proposal.remarks.append(f"{task}: {missing:,} rows have no label; those of train are left out")
    if rule.labels is not None:
        section = proposal.data[task]
        proposal.data[task] = _insert_labels(section, rule.labels)
        if rule.reason:
            proposal.reasons[f"data.{task}.labels"] = f"{rule.reason}: {positive:,} rows are relevant, {negative:,} are not"


def _problems_of_scales(task: str, sources: Sequence[Source], rule: LabelProposal) -> list[str]:
    """Return a problem for each file whose values would all get the same label although they differ: it may have a scale of its own."""
    problems = []
    for source in sources:
        positive, negative, _ = rule.positives(source.labels)
        values = [value for value in source.labels if value]
        if len(values) > 1 and max(positive, negative) >= _ENOUGH_LABELS and not min(positive, negative):
            listed, others = (
                ", ".join(sorted(values)[:6]),
                ", ".join(sorted({value for other in sources for value in other.labels} - {""})[:8]),
            )
            problems.append(
                f"{task}: {source.name} has the labels {listed}, and all files together have {others}. With one rule for all, every row of "
                f"{source.name} is {'relevant' if positive else 'not relevant'}: set `labels` for each of the files in data"
            )
    return problems


def _insert_labels(section: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, content in section.items():
        if name in SPLITS and "labels" not in result:
            result["labels"] = labels
        result[name] = content
    return result
