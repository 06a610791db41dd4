"""A rule from the values of a label column to 1, 0 and null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from babelcart.rows.labels import LabelRule, grade_number, grade_text

_POSITIVE = {
    "e", "exact", "relevant", "highly relevant", "very relevant", "yes", "y", "true", "t", "positive", "pos", "good", "perfect",
    "excellent", "match", "correct", "1", "perfect match", "exact match", "vital", "full", "complete", "high",
    "fully relevant",
    # Yes and relevant in other languages.
    "ja", "oui", "sí", "si", "sì", "sim", "tak", "ano", "áno", "igen", "kyllä", "evet", "da", "да", "так", "ναι", "はい", "是", "예", "네",
    "có", "ya", "ใช่", "نعم", "כן", "हाँ", "relevante", "pertinent", "rilevante", "relevantny", "релевантно",
    "релевантный", "相关", "関連", "관련",
}  # fmt: skip
_NEGATIVE = {
    "s", "c", "i", "substitute", "complement", "irrelevant", "partial", "partially relevant", "somewhat relevant", "marginal",
    "not relevant", "non-relevant", "nonrelevant", "not_relevant", "no", "n", "false", "f", "negative", "neg", "bad", "poor", "fair",
    "mismatch", "no match", "partial match", "incorrect", "off-topic", "off topic", "not applicable", "0", "slightly relevant",
    "low", "medium", "weak", "partly relevant",
    # No and irrelevant in other languages.
    "nein", "non", "não", "nao", "nie", "ne", "nem", "ei", "nej", "nei", "nee", "hayır", "hayir", "нет", "ні", "όχι", "いいえ", "否",
    "不是", "아니요", "không", "ไม่", "لا", "לא", "नहीं", "nicht relevant", "irrelevante", "no relevante", "non pertinent", "non rilevante",
    "tidak", "nerelevantní", "нерелевантно", "нерелевантный", "不相关", "無関係", "무관",
}  # fmt: skip
# The lowest grades; where no value is one of them, "none" is the lowest grade and not a missing label.
_LOWEST = {
    "i", "irrelevant", "not relevant", "non-relevant", "nonrelevant", "not_relevant", "no", "false", "bad", "0", "no match", "mismatch",
    "off-topic", "off topic", "incorrect", "negative",
}  # fmt: skip
_MISSING = {
    "", "na", "n/a", "nan", "null", "none", "?", "-", "unknown", "unjudged", "unrated", "unlabeled", "unlabelled", "skip", "skipped", "tbd",
    "ignored", "error", "can't tell", "cannot tell", "not sure", "unsure",
}  # fmt: skip


@dataclass(frozen=True)
class LabelProposal:
    """A value of the option ``labels``.

    Attributes
    ----------
    labels : dict, optional
        None if the default rule reads the values.
    reason : str
        Why, if it is a guess.
    unknown : tuple of str
        Values whose label cannot be guessed.
    """

    labels: dict[str, Any] | None = None
    reason: str = ""
    unknown: tuple[str, ...] = ()

    def positives(self, values: Mapping[str, int]) -> tuple[int, int, int]:
        """Return the number of rows with label 1, 0 and none."""
        rule = LabelRule(self.labels)
        counts = {1: 0, 0: 0, None: 0}
        for value, rows in values.items():
            try:
                counts[rule(value) if value or "" in rule.values else None] += rows
            except ValueError:
                counts[None] += rows
        return counts[1], counts[0], counts[None]


def propose_labels(values: Mapping[str, int], relevant: Sequence[str] = ()) -> LabelProposal:
    """Propose the option ``labels`` for the values of a column.

    Parameters
    ----------
    values : mapping
        Value in the file -> number of rows.
    relevant : sequence of str
        Values that the user calls relevant; for numeric grades, the lowest is the cut.
    """
    grades = {grade_text(value) for value in values}
    missing = sorted(grade for grade in grades if grade.casefold() in _MISSING)
    lowest = _lowest_grade(grades, missing)
    missing = [grade for grade in missing if grade not in lowest]
    present = sorted(grades - set(missing))
    numbers = {grade: number for grade in present if (number := grade_number(grade)) is not None}
    no_label = dict.fromkeys(missing)
    if numbers and len(numbers) == len(present):
        return _numeric(numbers, no_label, relevant)
    if relevant:
        chosen = {grade_text(value) for value in relevant}
        labels: dict[str, Any] = {grade: int(grade in chosen) for grade in _by_count(values, present)}
        return LabelProposal(labels | no_label)
    if set(present) <= {"0", "1", "true", "false"}:
        return LabelProposal({grade: int(grade in ("1", "true")) for grade in present} | no_label if no_label else None)
    labels = {}
    for grade in _by_count(values, present):
        plain = grade.casefold().strip()
        if grade in lowest:
            labels[grade] = 0
        elif plain in _POSITIVE or plain in _NEGATIVE:
            labels[grade] = int(plain in _POSITIVE)
    unknown = tuple(grade for grade in present if grade not in labels)
    reasons = [f"{', '.join(sorted(lowest))} is a grade, and not a missing label"] if lowest else []
    reasons += ["only the best grade is relevant"] if len(present) > 2 else []
    return LabelProposal(labels | no_label, "; ".join(reasons), unknown)


def _lowest_grade(grades: set[str], missing: Sequence[str]) -> set[str]:
    """Return ``none`` if it is the lowest of several grades, as in none, partial and full."""
    words = {grade.casefold() for grade in grades if grade not in missing}
    is_scale = len(words) > 1 and words <= _POSITIVE | _NEGATIVE and not words & _LOWEST
    return {grade for grade in missing if grade.casefold() == "none"} if is_scale else set()


def _numeric(numbers: Mapping[str, Decimal], no_label: dict[str, None], relevant: Sequence[str]) -> LabelProposal:
    if relevant:
        cuts = [number for value in relevant if (number := grade_number(value.strip())) is not None]
        if cuts:
            return LabelProposal({"at_least": _short(min(cuts)), **no_label})
    grades = set(numbers.values())
    if grades <= {0, 1}:
        return LabelProposal({"0": 0, "1": 1, **no_label} if no_label else None)
    if grades == {-1, 1}:
        return LabelProposal({"1": 1, "-1": 0, **no_label})
    # A scale such as -2 to 2. Otherwise, negative grades beside others mean that nothing was judged, as -1 in judgement lists.
    is_symmetrical = -min(grades) == max(grades) > 1 and len([number for number in grades if number < 0]) > 1
    lowest = 0 if max(grades) >= 0 and not is_symmetrical else min(grades)
    unjudged = {grade: None for grade, number in numbers.items() if number < lowest}
    scale = sorted(number for number in grades if number >= lowest)
    if scale in ([0, 1], [1], [0]):
        return LabelProposal({"0": 0, "1": 1, **unjudged, **no_label}, "negative grades are no judgements")
    low, high = scale[0], scale[-1]
    cut = next((number for number in scale if number >= low + (high - low) * 2 / 3 - Decimal("0.01") and number > low), high)
    reason = f"the upper third of the grades, which are {_short(low)} to {_short(high)}"
    return LabelProposal({"at_least": _short(cut), **unjudged, **no_label}, reason)


def _short(number: Decimal) -> int | float | str:
    """Return the number as params.yaml states it: as text if a float would round it."""
    if number == int(number):
        return int(number)
    return float(number) if Decimal(str(float(number))) == number else str(number)


def _by_count(values: Mapping[str, int], grades: Sequence[str]) -> list[str]:
    counts: dict[str, int] = {}
    for value, rows in values.items():
        counts[grade_text(value)] = counts.get(grade_text(value), 0) + rows
    return sorted(grades, key=lambda grade: (-counts[grade], grade))
