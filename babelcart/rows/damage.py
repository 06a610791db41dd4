"""Warnings about texts that were damaged before they were read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# The characters that Windows-1252 has for the bytes 0x80 to 0xBF, the later bytes of a character in UTF-8.
_LATER_BYTES = "\x80-\xbf‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ€"
_KINDS = {
    "UTF-8 that was read in another encoding": re.compile(f"[ÂÃ][{_LATER_BYTES}]|â[€‚„][{_LATER_BYTES}]|[ÐÑ][{_LATER_BYTES}][ÐÑ]"),
    "characters that could not be decoded": re.compile("\ufffd"),
    "errors of a spreadsheet": re.compile(r"\A\s*#(?:NAME\?|REF!|VALUE!|DIV/0!|N/A|NUM!|NULL!)\s*\Z"),
}


def check_texts(table: pd.DataFrame) -> list[str]:
    """Warn about queries and candidates that were damaged before.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``origin_query`` and ``candidate``.

    Returns
    -------
    list of str
        One warning for each kind of damage, with the number of distinct texts and an example.

    Examples
    --------
    >>> import pandas as pd
    >>> check_texts(pd.DataFrame({"origin_query": ["MÃ¼sli"], "candidate": ["SÃO PAULO"]}))
    ["1 of 2 distinct texts have UTF-8 that was read in another encoding, as in 'MÃ¼sli'; repair them in the file"]
    """
    texts = dict.fromkeys([*table["origin_query"].unique(), *table["candidate"].unique()])
    suspicious = [text for text in texts if not text.isascii() or text.lstrip().startswith("#")]
    warnings = []
    for kind, pattern in _KINDS.items():
        damaged = [text for text in suspicious if pattern.search(text)]
        if damaged:
            warnings.append(
                f"{len(damaged):,} of {len(texts):,} distinct texts have {kind}, as in {damaged[0][:100]!r}; repair them in the file"
            )
    return warnings
