"""The levels of category paths.

In the competition's files, a comma without a space after it separates levels. Shops use other separators, such as `` > `` and ``|``;
`find_separator` chooses one for a file from its paths.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from babelcart.rows.text import normalise, replace_references

# The separator of the competition's files.
DEFAULT = ","


class _Candidate(NamedTuple):
    """A separator that `find_separator` considers.

    `pattern` matches it in a path. `weight` is higher for separators that rarely occur within the name of a category. `min_share` is the
    share of the paths that must contain it.
    """

    separator: str
    pattern: re.Pattern[str]
    weight: float
    min_share: float


def _rare(symbol: str) -> list[_Candidate]:
    """Candidates for a symbol that rarely occurs in names: with spaces around all of its occurrences, or without."""
    spaced, bare = re.compile(rf"\s{re.escape(symbol)}\s"), re.compile(re.escape(symbol))
    return [_Candidate(f" {symbol} ", spaced, 4, 0.05), _Candidate(symbol, bare, 4, 0.05)]


def _frequent(separator: str, pattern: str, weight: float) -> _Candidate:
    """Return a candidate that also occurs in names, such as the comma."""
    return _Candidate(separator, re.compile(pattern), weight, 0.5)


# In order of preference if two candidates have the same score.
_RARE = [*chain.from_iterable(map(_rare, ("->", "=>", ">>", ">", "»", "›", "→", "＞", "::", "||", "|", "｜", "¦", "\\", "--")))]
_CANDIDATES = [
    *_RARE,
    _Candidate(" / ", re.compile(r"\s/\s"), 4, 0.05),
    _frequent(DEFAULT, r",(?!\s)", 1),
    _frequent("/", r"(?<!\s)/(?!\s)", 1),
    _frequent(";", r";", 1),
    _frequent(" - ", r"\s[-–—]\s", 1),
    _frequent(" : ", r"\s:\s", 1),
    _frequent("、", "、", 0.5),
    _frequent("，", "，", 0.5),
    _frequent(", ", r",\s", 0.5),
    _frequent(":", ":", 0.5),
    _frequent(".", r"(?<=[^\W\d])\.(?=[^\W\d])", 0.5),
]
_PATTERNS = {candidate.separator: candidate.pattern for candidate in _CANDIDATES}
# Share of the paths from which `odd_levels` reports another separator.
ODD_SHARE = 0.02
# Share of the paths from which `odd_levels` reports paths with one level.
FLAT_SHARE = 0.9
MAX_LEVEL_LENGTH = 100


def _pattern(separator: str) -> re.Pattern[str]:
    if separator in _PATTERNS:
        return _PATTERNS[separator]
    symbol = re.escape(separator.strip())
    return re.compile(rf"\s{symbol}\s" if separator != separator.strip() else symbol)


def find_separator(paths: Iterable[str]) -> str:
    """Choose the separator that fits some category paths best.

    The choice depends only on the set of paths. Each candidate gets the share of the paths that contain it, weighted: a symbol such as
    ``>`` rarely occurs in the name of a category, so that it is preferred to a comma that occurs in more paths. A candidate with spaces
    around it, such as `` / ``, is preferred to the same symbol without spaces if all of its occurrences have spaces.

    Parameters
    ----------
    paths : iterable of str

    Returns
    -------
    str
        The default, a comma, if no candidate occurs in enough paths.

    Examples
    --------
    >>> find_separator(["Furniture / Beds", "Rugs / Area Rugs", "TV/Video / Cables, Wires"])
    ' / '
    >>> find_separator(["home & garden,kitchen, dining & bar,cups", "sports,yoga"])
    ','
    """
    distinct = [replace_references(path) for path in set(paths)]
    best, best_score = DEFAULT, 0.0
    for separator, pattern, weight, min_share in _CANDIDATES:
        share = sum(pattern.search(path) is not None for path in distinct) / max(1, len(distinct))
        if share >= min_share and weight * share > best_score:
            best, best_score = separator, weight * share
    return best


def levels(path: str, separator: str = DEFAULT) -> tuple[str, ...]:
    """Return the levels of a category path in normal form, from the top level down, without empty levels.

    Parameters
    ----------
    path : str
        Character references of HTML, such as ``&gt;``, are replaced before the path is split.
    separator : str
        ``,`` splits at commas without a space after them: in the competition's files, a comma with a space is part of a name. About one
        path in a hundred of theirs breaks this rule ("kitchen,dining & bar") and gets an additional level, which is harmless where paths
        are compared by their prefixes. `` / `` and others with spaces split only where white space surrounds the symbol.

    Examples
    --------
    >>> levels("automobiles, parts & accessories,exterior parts,aerials")
    ('automobiles, parts & accessories', 'exterior parts', 'aerials')
    >>> levels("TV/Video / Cables &amp; Wires", " / ")
    ('tv/video', 'cables & wires')
    """
    return tuple(level for part in _pattern(separator).split(replace_references(path)) if (level := normalise(part)))


def odd_levels(paths: Iterable[str], separator: str) -> list[str]:
    """Return warnings about paths whose levels look wrong, which may show that the separator is not the right one.

    Parameters
    ----------
    paths : iterable of str
        Each distinct path counts once.
    separator : str
        As for `levels`.

    Returns
    -------
    list of str
        Each with the number of paths and an example.
    """
    distinct = sorted({path for path in paths if path.strip()})
    warnings = []
    for other, (count, example) in _other_separators(distinct, separator).items():
        warnings.append(
            f"{count:,} of {len(distinct):,} category paths contain {other!r}, but {separator!r} separates their levels, as in {example!r}"
        )
    by_depth = Counter(len(levels(path, separator)) for path in distinct)
    if by_depth[1] > FLAT_SHARE * len(distinct) and len(distinct) > 1:
        warnings.append(f"{by_depth[1]:,} of {len(distinct):,} category paths have one level, because they do not contain {separator!r}")
    empty = [path for path in distinct if any(not normalise(part) for part in _pattern(separator).split(replace_references(path)))]
    if empty:
        warnings.append(
            f"{len(empty):,} of {len(distinct):,} category paths have empty levels, which are left out, as in {empty[0]!r} "
            f"(separator {separator!r})"
        )
    long = [path for path in distinct if any(len(level) > MAX_LEVEL_LENGTH for level in levels(path, separator))]
    if long:
        warnings.append(
            f"{len(long):,} of {len(distinct):,} category paths have a level of more than {MAX_LEVEL_LENGTH} characters, "
            f"as in {long[0][:200]!r} (separator {separator!r})"
        )
    return [f"{warning}; if the separator is another one, set `separator` in data" for warning in warnings]


def _other_separators(paths: Sequence[str], separator: str) -> dict[str, tuple[int, str]]:
    """Separators other than the chosen one that occur within the levels of more than `ODD_SHARE` of the paths: number and an example.

    Symbols that are frequent in names, such as the comma, are considered only in paths with one level.
    """
    found: dict[str, list[str]] = {}
    for path in paths:
        parts = levels(path, separator)
        candidates = _CANDIDATES if len(parts) == 1 else _RARE
        for other in candidates:
            symbol = other.separator.strip()
            if symbol != separator.strip() and any(other.pattern.search(part) for part in parts):
                found.setdefault(symbol, []).append(path)
                break
    return {symbol: (len(examples), examples[0]) for symbol, examples in found.items() if len(examples) > ODD_SHARE * len(paths)}


def related(first: Sequence[str], second: Sequence[str]) -> bool:
    """Return whether two categories are the same or one is an ancestor of the other; False if one has no levels.

    Parameters
    ----------
    first, second : sequence of str
        The levels of a category, from the top level down.
    """
    return len(first) > 0 and len(second) > 0 and all(a == b for a, b in zip(first, second, strict=False))
