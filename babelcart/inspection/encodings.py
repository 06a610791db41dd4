"""The encoding of a text file."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from babelcart.core.errors import UserError
from babelcart.reading import containers

_CHUNK = 1 << 20
_SAMPLE = 1 << 18  # bytes of lines with other characters than ASCII
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8"),
)  # fmt: skip
# Encodings that charset-normalizer may choose from.
_CANDIDATES = ("cp932", "gb18030", "big5", "cp949", "euc_jp", "cp1250", "cp1251", "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256", "cp874")
_NAMES = {"cp932": "shift_jis"}


def find_encoding(path: Path) -> tuple[str, str]:
    """The encoding of a file, and why it was chosen ("" if the content proves it).

    The byte order mark decides, then validity as UTF-8 of the complete file. Other encodings are determined from the lines that are not
    ASCII: isolated bytes above 127 are accented letters and signs of a Western encoding; for others, charset-normalizer decides. The
    complete file must be valid in the encoding.

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
    sample = _sample(path)
    for name, reason in _guesses(sample):
        if _decodes(path, name):
            return name, reason
    raise UserError(f"{path} is text of an unknown encoding; convert it to UTF-8: iconv -f ENCODING -t utf-8 {path.name}")


def _decodes(path: Path, encoding: str) -> bool:
    """Whether the complete file is valid in an encoding."""
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


def _sample(path: Path) -> bytes:
    """The first lines with bytes above 127."""
    lines: list[bytes] = []
    size = 0
    with containers.open_container(path) as handle:
        for line in handle:
            if not line.isascii():
                lines.append(line)
                size += len(line)
                if size > _SAMPLE:
                    break
    return b"".join(lines)


def _has_western_words(text: str) -> bool:
    """Whether the characters inside words are letters. In Polish text that is read as Western, they are "³", "¹" and the like."""
    inside = re.findall(r"(?<=[a-zA-Z])[\x80-\uffff](?=[a-z])", text)
    return sum(character.isalpha() or character in "\xad’" for character in inside) >= 0.9 * len(inside)


def _guesses(sample: bytes) -> Iterator[tuple[str, str]]:
    """Encodings in the order of their likelihood, with the reason."""
    from charset_normalizer import from_bytes

    western = "latin-1" if not re.search(rb"[\x80-\x9f]", sample) else "cp1252"
    runs = re.findall(rb"[\x80-\xff]+", sample)
    isolated = sum(len(run) == 1 for run in runs) / max(len(runs), 1)
    letters = len(re.findall(rb"[a-zA-Z0-9 ][\x80-\xff](?=[a-zA-Z \r\n,;.\t\"'0-9)])", sample)) / max(len(runs), 1)
    if isolated > 0.7 and letters > 0.3 and _has_western_words(sample.decode(western, "replace")):
        yield western, "not UTF-8; most bytes above 127 are single accented letters or signs"
    best = from_bytes(sample, cp_isolation=[*_CANDIDATES, "cp1252"]).best()
    if best is not None:
        yield _NAMES.get(best.encoding, best.encoding), "not UTF-8; chosen by charset-normalizer"
    yield western, "not UTF-8; any file is valid in a Western encoding"
    yield "latin-1", "not UTF-8; any file is valid in latin-1"
