"""Labels of raw rows: from values in a file to 1 (relevant), 0 (not relevant) or no label."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from babelcart.core.errors import short_repr

# The key of a rule that gives the lowest relevant grade.
CUT = "at_least"
# The values that are labels without a rule, in the form of `grade_text`.
_PLAIN = {"0": 0, "1": 1, "true": 1, "false": 0}
# Not more than the precision of `decimal`, so that no grade is rounded.
_MAX_DIGITS = 28


def grade_text(value: Any) -> str:
    """Return the text of a grade, which equal grades share: numbers without trailing zeros, booleans as ``true`` and ``false``.

    Parameters
    ----------
    value
        As a reader gives it: text, bool, int, float, `decimal.Decimal`, or None.

    Examples
    --------
    >>> grade_text("3.00"), grade_text(3), grade_text(True), grade_text(" Exact "), grade_text(None)
    ('3', '3', 'true', 'Exact', '')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = str(value).strip() if isinstance(value, (str, int, float, Decimal)) else short_repr(value)
    if isinstance(value, bool) or text in ("True", "TRUE", "False", "FALSE"):
        return text.lower()
    number = grade_number(text)
    return text if number is None else format(number.normalize(), "f") if number else "0"


def grade_number(text: str) -> Decimal | None:
    """Return the number that a grade states in decimal notation with at most 28 characters, or None."""
    if not text or not text.isascii() or len(text) > _MAX_DIGITS or not (text[-1].isdigit() or text[-1] == "."):
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number.adjusted()) <= _MAX_DIGITS else None


class LabelRule:
    """How values in a file become labels.

    Parameters
    ----------
    labels : mapping, optional
        Value -> 1, 0 or None (no label). The key ``at_least`` gives the lowest relevant grade instead; other keys of the mapping take
        precedence over it. Without a mapping, 0 and 1 are accepted, as text, number or boolean.

    Raises
    ------
    ValueError
        If the mapping is empty or maps to another value.

    Examples
    --------
    >>> rule = LabelRule({"E": 1, "S": 0, "unjudged": None})
    >>> rule("E"), rule("S"), rule("unjudged")
    (1, 0, None)
    >>> LabelRule({"at_least": 2.33})(2.67)
    1
    """

    def __init__(self, labels: Mapping[str, int | float | None] | None = None) -> None:
        self.cut: Decimal | None = None
        self.values: dict[str, int | None] = dict(_PLAIN) if labels is None else {}
        self.is_default = labels is None
        for key, label in (labels or {}).items():
            if key == CUT:
                self.cut = None if label is None else grade_number(str(label))
                if self.cut is None:
                    raise ValueError(f"labels.at_least is {short_repr(label)}; accepted: the lowest relevant grade, a number")
            elif label not in (0, 1, None):
                raise ValueError(f"labels maps {short_repr(key)} to {short_repr(label)}; accepted: 1, 0 or null")
            else:
                grade, value = grade_text(key), None if label is None else int(label)
                if self.values.setdefault(grade, value) != value:
                    raise ValueError(f"labels has two values for {short_repr(grade)}, which its keys write differently; remove one of them")
        if not self.values and self.cut is None:
            raise ValueError("labels is empty; accepted: values with their label, such as {E: 1, S: 0}, or {at_least: 3}")

    def __call__(self, value: Any) -> int | None:
        """Return the label of a value that is not missing.

        Raises
        ------
        ValueError
            If the rule does not cover the value; states what is accepted.
        """
        grade = grade_text(value)
        if grade in self.values:
            return self.values[grade]
        if self.cut is not None:
            if (number := grade_number(grade)) is not None:
                return int(number >= self.cut)
            raise ValueError(f"the grade is not a number (labels.at_least is {self.cut})")
        if self.is_default:
            raise ValueError(
                "the label is neither 0 nor 1; set data.labels to map other values, such as {Exact: 1, Partial: 0} or {at_least: 3}"
            )
        raise ValueError(f"the value is not in data.labels, which has {', '.join(map(repr, self.values))}")

    def can_give(self) -> set[int | None]:
        """Return the labels that the rule can give."""
        return set(self.values.values()) | ({0, 1} if self.cut is not None else set())
