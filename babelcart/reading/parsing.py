"""Parse the values of raw records into the columns of rows, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeGuard

from babelcart.core.errors import UserError, short_repr
from babelcart.reading.batches import Batch, Malformed, Request, Values, as_list, check_unicode
from babelcart.reading.sources import RawFile
from babelcart.rows import languages
from babelcart.rows.labels import LabelRule, grade_text
from babelcart.rows.text import normalise

if TYPE_CHECKING:
    import pyarrow as pa

# The columns of texts that every row needs.
TEXTS = ("id", "language", "origin_query", "candidate")


class RowParser:
    """Parses batches of one file.

    Parameters
    ----------
    file : RawFile
    task : str
    texts : sequence of str
        The columns of `TEXTS` to read; all of them must exist.
    labelled : bool
        Whether every row must have a label.
    optional : sequence of str
        Other columns to read if they exist.
    records : bool
        Whether the batches have `Batch.records`; see `kept_records`.
    """

    def __init__(
        self,
        file: RawFile,
        task: str,
        texts: Sequence[str],
        *,
        labelled: bool,
        optional: Sequence[str] = ("task", "label", "grade"),
        records: bool = False,
    ) -> None:
        options = file.options
        self.options, self.task, self.labelled, self.texts = options, task, labelled, texts
        self.names = _distinct_names(file, task)
        self.constants = {name: str(value) for name, value in (options.constants or {}).items()}
        self.rule = LabelRule(options.labels)
        self.records = self.unlabelled = 0
        # Keys of the options `languages` and `labels` that a row has.
        self.used_keys: set[tuple[str, str]] = set()
        # The first values that `where` rejects, for a message.
        self.rejected: dict[str, str] = {}
        self.where = {name: _accepted_values(values) for name, values in (options.where or {}).items()}
        self.language_map = {normalise(tag): languages.iso_code(code) for tag, code in (options.languages or {}).items()}
        self._codes: dict[str, str | None] = {}
        self._labels: dict[tuple[type, Any], int | Malformed | None] = {}
        self.wants_label = "label" in optional
        self.checks_task = "task" in optional
        required = tuple(name for column in texts if (name := self.names[column]) is not None)
        labels = (self.names["label"], (options.columns or {}).get("grade")) if labelled and self.wants_label else ()
        header = tuple(name for name in (*labels, *self.where) if name is not None)
        others = tuple(name for column in optional if (name := self.names[column]) is not None)
        self.request = Request(tuple(dict.fromkeys((*required, *others, *self.where))), required, header, records)
        self.output = [
            name for name in ("id", "language", "language_tag", "origin_query", "candidate") if name.removesuffix("_tag") in texts
        ]
        self.output += ["label", "grade"] if self.wants_label else []

    def parse(self, batch: Batch) -> tuple[dict[str, Values], Sequence[int], list[tuple[int, Malformed]]]:
        """Column -> values of the well-formed rows, their line numbers, and line number and reason of the others.

        Columns that are arrays in `batch` stay arrays if each of their values is well-formed.
        """
        if self.where:
            batch = self._filtered(batch)
        rows = len(batch.lines)
        self.records += rows + len(batch.malformed)
        errors: dict[int, Malformed] = {}
        columns: dict[str, Values] = {}
        for column in self.texts:
            columns[column] = self._texts(column, batch, errors)
        self._check_headers(columns, errors)
        self._check_ids(columns["id"], errors)
        if self.checks_task and self.names["task"] in batch.columns:
            self._check_task(as_list(batch.columns[str(self.names["task"])]), errors)
        if "language" in columns:
            columns["language_tag"] = columns["language"]
            columns["language"] = self._languages(columns["language_tag"], errors)
        missing: set[int] = set()
        if self.wants_label:
            columns["label"], columns["grade"], missing = self._parse_labels(batch, rows, errors)
        malformed = [*batch.malformed, *((batch.lines[index], error) for index, error in errors.items())]
        left_out = missing - errors.keys() if self.labelled else set()
        if errors or left_out:
            self.unlabelled += len(left_out)
            kept = [index for index in range(rows) if index not in errors and index not in left_out]
            columns = {name: _selected(values, kept) for name, values in columns.items()}
            return {name: columns[name] for name in self.output}, [batch.lines[index] for index in kept], malformed
        return {name: columns[name] for name in self.output}, batch.lines, malformed

    def _filtered(self, batch: Batch) -> Batch:
        """Return the records whose values `where` accepts."""
        kept = list(range(len(batch.lines)))
        for name, accepted in self.where.items():
            texts = _grade_texts(batch.columns[name])
            for text in set(texts) - accepted:
                self.rejected.setdefault(name, text)
            kept = [index for index in kept if texts[index] in accepted]
        columns = {name: _selected(values, kept) for name, values in batch.columns.items()}
        return Batch([batch.lines[index] for index in kept], columns, batch.malformed)

    def _texts(self, column: str, batch: Batch, errors: dict[int, Malformed]) -> Values:
        name = self.names[column]
        if name is None:
            if column == "id" and column not in self.constants:
                return list(map(str, batch.lines))
            return [self.constants[column]] * len(batch.lines)
        values = batch.columns[name]
        if _are_clean(values):
            return values
        return _checked(as_list(values), _text_check(name, self.options.encoding, integers=column == "id"), errors)

    def _check_ids(self, ids: Values, errors: dict[int, Malformed]) -> None:
        if _have_letters(ids) if _is_array(ids) else all(map(str.strip, ids)):
            return
        for index, identifier in enumerate(as_list(ids)):
            if not identifier.strip():
                errors.setdefault(index, Malformed(self.names["id"] or "id", identifier, "the id is empty"))

    def _check_headers(self, columns: Mapping[str, Values], errors: dict[int, Malformed]) -> None:
        """Refuse rows that repeat the names of the columns, as concatenated files have them."""
        named = {column: name for column in self.texts if column != "language" and (name := self.names[column]) is not None}
        texts = {column: name for column, name in named.items() if column != "id"} or named
        repeated: set[int] | None = None
        for column, name in texts.items():
            indices = _indices_of(columns[column], name)
            repeated = indices if repeated is None else repeated & indices
            if not repeated:
                return
        for index in repeated or ():
            reason = "the row repeats the header, as in files that were concatenated; delete it"
            errors.setdefault(index, Malformed("the line", ", ".join(texts.values()), reason))

    def _check_task(self, values: Sequence[Any], errors: dict[int, Malformed]) -> None:
        for index, value in enumerate(values):
            if value is not None and grade_text(value).lower() != self.task:
                name = str(self.names["task"])
                reason = f"expected {self.task.upper()}; if the column {name} has another meaning, set `columns: {{task: null}}` in data"
                errors.setdefault(index, Malformed(name, grade_text(value), reason))

    def _languages(self, tags: Values, errors: dict[int, Malformed]) -> Values:
        if _is_array(tags):
            parsed = _mapped(tags, self._language)
            if not parsed.null_count:
                return parsed
            tags = as_list(tags)
        codes = {tag: self._language(tag) for tag in set(tags)}
        parsed = [codes[tag] for tag in tags]
        if None in parsed:
            name = self.names["language"] or "language"
            reason = (
                "unknown language; accepted: ISO 639-1 codes and aliases (babelcart/rows/languages.py). `languages` in data maps others"
            )
            for index, code in enumerate(parsed):
                if code is None:
                    errors.setdefault(index, Malformed(name, tags[index], reason))
        return parsed

    def _language(self, tag: str) -> str | None:
        if tag not in self._codes:
            key = normalise(tag)
            self._codes[tag] = self.language_map.get(key) or languages.iso_code(tag)
            self.used_keys.add(("languages", key))
        return self._codes[tag]

    def unused_keys(self) -> set[tuple[str, str]]:
        """Option and key, in the form in which it is compared, of the keys of `languages` and `labels` that no row has had."""
        keys = {("languages", key) for key in self.language_map} if "language" in self.texts else set()
        if self.wants_label and not self.rule.is_default:
            keys |= {("labels", key) for key in self.rule.values}
        return keys - self.used_keys

    def _parse_labels(self, batch: Batch, rows: int, errors: dict[int, Malformed]) -> tuple[Values, list[str], set[int]]:
        """Labels, grades, and the indices of the rows to which the rule gives no label."""
        name = self.names["label"]
        values: Values = [self.constants.get("label")] * rows
        if name is not None:
            values = batch.columns.get(name, [None] * rows)
        grade_name = self.names["grade"]
        grades = values if grade_name is None else batch.columns.get(grade_name, values)
        labels, missing = self._labels_of(values, name or "label", errors)
        if self.rule.is_default and grades is values:
            return labels, [""] * rows, missing
        texts = _grade_texts(grades)
        if not _are_clean(texts):
            texts = _checked(texts, _text_check(grade_name or name or "label", self.options.encoding, integers=False), errors)
        return labels, texts, missing

    def _labels_of(self, values: Values, name: str, errors: dict[int, Malformed]) -> tuple[Values, set[int]]:
        """Return the label of each value, and the indices of the values without a label."""
        if _is_array(values) and not values.null_count:
            labels_of_values = {value: self._label(value, name) for value in values.unique().to_pylist()}
            if not any(isinstance(label, Malformed) or label is None for label in labels_of_values.values()):
                return _mapped(values, labels_of_values.__getitem__, "int8"), set()
        parsed = [self._label(value, name) for value in as_list(values)]
        for index, label in enumerate(parsed):
            if isinstance(label, Malformed):
                errors.setdefault(index, label)
        labels = [None if isinstance(label, Malformed) else label for label in parsed]
        return labels, {index for index, label in enumerate(labels) if label is None} if None in labels else set()

    def _label(self, value: Any, name: str) -> int | Malformed | None:
        if not isinstance(value, (str, int, float, Decimal)) or value != value:  # a list, a missing value, NaN
            return self._new_label(value, name)
        key = (type(value), value)
        if key not in self._labels:
            self._labels[key] = self._new_label(value, name)
        return self._labels[key]

    def _new_label(self, value: Any, name: str) -> int | Malformed | None:
        text = grade_text(value)
        self.used_keys.add(("labels", text))
        if not text and text not in self.rule.values:
            return Malformed(name, "", "the label is missing") if self.labelled else None
        try:
            return self.rule(value)
        except ValueError as error:
            return Malformed(name, str(value) if isinstance(value, str) else short_repr(value), str(error))


def _distinct_names(file: RawFile, task: str) -> dict[str, str | None]:
    """Return `RawFile.names`.

    Raises
    ------
    UserError
        If two of language, query, candidate and label are the same column of the file.
    """
    names = file.names(task)
    owners: dict[str, str] = {}
    for column in ("language", "origin_query", "candidate", "label"):
        name = names[column]
        if name is not None and (owner := owners.setdefault(name, column)) != column:
            raise UserError(
                f"{file.path}: both {owner} and {column} are the column {name!r}; set `columns` in data to the name of each, "
                f"for example columns: {{{column}: NAME}}"
            )
    return names


def _accepted_values(values: Any) -> set[str]:
    return {grade_text(value) for value in (values if isinstance(values, tuple) else (values,))}


def _is_array(values: Values) -> TypeGuard[pa.Array]:
    return not isinstance(values, list)


def _mapped(values: pa.Array, function: Callable[[Any], Any], kind: str = "large_string") -> pa.Array:
    """Return the result of a function for each value of an array, as an array of the type `kind`; computed once for equal values."""
    import pyarrow as pa

    encoded = values.dictionary_encode()
    return pa.array(list(map(function, encoded.dictionary.to_pylist())), kind).take(encoded.indices)


def _selected(values: Values, indices: Sequence[int]) -> Values:
    import pyarrow as pa

    return values.take(pa.array(indices, pa.int64())) if _is_array(values) else [values[index] for index in indices]


def _grade_texts(values: Values) -> list[str]:
    if _is_array(values) and not values.null_count:
        return as_list(_mapped(values, grade_text))
    return list(map(grade_text, as_list(values)))


def _indices_of(values: Values, text: str) -> set[int]:
    """Return the indices of the values that are equal to a text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if _is_array(values):
        equal = pc.equal(values, pa.scalar(text, values.type)) if pa.types.is_large_string(values.type) else None
        return set() if equal is None else set(pc.indices_nonzero(equal).to_pylist())
    return {index for index, value in enumerate(values) if value == text} if text in values else set()


def _have_letters(texts: pa.Array) -> bool:
    """Return whether each text has an ASCII letter or digit."""
    import pyarrow.compute as pc

    return pc.all(pc.match_substring_regex(texts, "[0-9A-Za-z]"), min_count=0).as_py() is True


def _are_clean(values: Values) -> bool:
    """Return whether all values are texts without NUL bytes and undecoded bytes."""
    if _is_array(values):
        import pyarrow as pa

        is_text = pa.types.is_large_string(values.type) and not values.null_count
        content = values.buffers()[2] if is_text else None
        return is_text and (content is None or b"\0" not in content.to_pybytes())
    if set(map(type, values)) - {str}:
        return False
    joined = "".join(values)
    if "\0" in joined:
        return False
    if joined.isascii():
        return True
    try:
        joined.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _checked(values: Sequence[Any], text: Callable[[Any], str], errors: dict[int, Malformed]) -> list[str]:
    """Return each value as text; "" and an entry in `errors` if it is not accepted."""
    checked = []
    for index, value in enumerate(values):
        try:
            checked.append(text(value))
        except Malformed as error:
            errors.setdefault(index, error)
            checked.append("?")
    return checked


def _text_check(name: str, encoding: str | None, *, integers: bool) -> Callable[[Any], str]:
    """Return a function that checks one value of a column of texts; whole numbers are accepted if `integers` is true."""

    def text(value: Any) -> str:
        if value is None:
            raise Malformed(name, "", "the field is missing")
        if integers and _is_whole_number(value):
            return str(int(value))
        if not isinstance(value, str):
            raise Malformed(name, short_repr(value), "expected a text")
        if "\0" in value:
            raise Malformed(name, value, "contains a NUL byte")
        check_unicode(name, value, encoding)
        return value

    return text


def _is_whole_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return False
    return isinstance(value, int) or (value == value and abs(float(value)) < 2**53 and value == int(value))
