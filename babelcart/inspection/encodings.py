"""The encoding of a text file."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from babelcart.core.errors import UserError
from babelcart.reading import containers
from babelcart.reading.encodings import detect_encoding

_CHUNK = 1 << 20
_SAMPLE = 1 << 18  # bytes of lines with other characters than ASCII
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8"),
)  # fmt: skip
_MOSTLY_UTF8 = 0.9  # share of the lines with bytes above 127 that are valid UTF-8, from which the others are damaged


def find_encoding(path: Path) -> tuple[str, str]:
    """Return the encoding of a file, and why it was chosen ("" if the content proves it).

    The byte order mark decides, then validity as UTF-8 of the complete file. Other encodings are determined from the lines that are not
    ASCII (`babelcart.reading.encodings.detect_encoding`), and the complete file must be valid in the encoding. A file of which nearly all
    lines are valid UTF-8 is UTF-8, and the readers report the other lines.

    Raises
    ------
    UserError
        If no encoding is found.
    """
    with containers.open_container(path) as handle:
        head = handle.read(4096)
    for mark, name in _MARKS:
        if head.startswith(mark):
            if not _decodes(path, name):
                raise UserError(f"{path} starts like {name} text, but is not; convert it to UTF-8, or copy it again")
            return name, ""
    if b"\0" in head:
        even, odd = head[::2].count(0), head[1::2].count(0)
        if max(even, odd) > 4 * min(even, odd) and max(even, odd) > len(head) // 8:
            return ("utf-16-le" if odd > even else "utf-16-be"), "every other byte is zero"
        return "utf-8", ""
    if _decodes(path, "utf-8"):
        return "utf-8", ""
    lines = _sample(path)
    valid = sum(_is_utf8(line) for line in lines)
    if valid > _MOSTLY_UTF8 * len(lines):
        return "utf-8", f"{len(lines) - valid:,} of {len(lines):,} lines with other characters than ASCII are damaged"
    likely = detect_encoding(b"".join(lines))
    for encoding, reason in ((likely, "not UTF-8; chosen by chardet"), ("latin-1", "not UTF-8; any file is valid in latin-1")):
        if encoding is not None and _decodes(path, encoding):
            return encoding, reason
    raise UserError(f"{path} is text of an unknown encoding; convert it to UTF-8: iconv -f ENCODING -t utf-8 {path.name}")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeError:
        return False
    return True


def _decodes(path: Path, encoding: str) -> bool:
    """Return whether the complete file is valid in an encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for chunk in _chunks(path):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeError:
        return False
    return True


def _chunks(path: Path) -> Iterator[bytes]:
    with containers.open_container(path) as handle:
        while chunk := handle.read(_CHUNK):
            yield chunk


def _sample(path: Path) -> list[bytes]:
    """Return the first lines with bytes above 127."""
    lines: list[bytes] = []
    size = 0
    with containers.open_container(path) as handle:
        for line in handle:
            if not line.isascii():
                lines.append(line)
                size += len(line)
                if size > _SAMPLE:
                    break
    return lines
