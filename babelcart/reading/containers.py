"""Open raw files that are compressed, and refuse formats that are not read.

The content decides, not the name: a gzip file named ``rows.csv`` is opened like ``rows.csv.gz``. Files are decompressed as a stream.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import json
import lzma
import shlex
import sqlite3
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from babelcart.core.errors import UserError, short_repr

# Compression -> suffixes and the program that decompresses a file with `PROGRAM FILE`.
COMPRESSIONS = {
    "gzip": ((".gz",), "gunzip --keep"),
    "bzip2": ((".bz2",), "bunzip2 --keep"),
    "xz": ((".xz",), "unxz --keep"),
    "zstd": ((".zst",), "unzstd --keep"),
    "zip": ((".zip",), "unzip"),
}
# A file is refused as damaged or malicious if it unpacks to more bytes than this and to more than MAX_RATIO times its size.
# Deflate reaches 1,032 at most, on a file of zeros; rows of text compress 3 to 50 times.
MAX_UNCHECKED = 1 << 28
MAX_RATIO = 1000
_HEAD = 512  # bytes, enough for the signature of a tar archive
_DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, ValueError)


def compression(head: bytes) -> str | None:
    """Return the compression of a file that starts with these bytes, or None."""
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:3] == b"BZh" and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):
        return "bzip2"
    if head[:6] == b"\xfd7zXZ\0":
        return "xz"
    if head[:4] == b"\x28\xb5\x2f\xfd" or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):
        return "zstd"
    return "zip" if head[:4] in (b"PK\3\4", b"PK\5\6") else None


def inner_name(path: Path) -> str:
    """Name of the file inside a compressed file, whose suffix gives the format of the rows; the file's own name if it is not compressed.

    Examples
    --------
    >>> inner_name(Path("data/rows.csv.gz"))
    'rows.csv'
    """
    for suffixes, _ in COMPRESSIONS.values():
        if path.suffix.lower() in suffixes:
            if path.suffix.lower() == ".zip" and path.is_file() and zipfile.is_zipfile(path):
                with _explained(path, "zip"), zipfile.ZipFile(path) as archive:
                    return Path(_only_member(archive, path).filename).name
            return path.stem
    return path.name


def open_container(path: Path) -> BinaryIO:
    """Open a raw file for reading; a compressed one is decompressed as it is read.

    Parameters
    ----------
    path : Path
        A file as it is, or compressed by gzip, bzip2, xz or zstd, or a zip archive of one file.

    Returns
    -------
    BinaryIO
        A buffered file. It can seek, unless it is compressed by zstd.

    Raises
    ------
    UserError
        If the format is one that `refusal` names, here or while the file is read: if it is truncated or damaged, or unpacks to more than
        `MAX_RATIO` times its size.
    OSError
        If the file cannot be opened.
    """
    if message := refusal(path):
        raise UserError(message)
    with path.open("rb") as raw:
        kind = compression(raw.read(_HEAD))
    if kind is None:
        return path.open("rb")
    handle = io.BufferedReader(_Decompressed(path, kind), 1 << 18)
    head = handle.peek(_HEAD)[:_HEAD]
    if message := _archive_inside(path, kind, head):
        handle.close()
        raise UserError(message)
    return cast(BinaryIO, handle)


def is_utf8(handle: BinaryIO) -> bool:
    """Return whether a file is valid UTF-8 with characters other than ASCII; leaves the position at its start."""
    decoder, has_others = codecs.getincrementaldecoder("utf-8")(), False
    try:
        while chunk := handle.read(1 << 20):
            has_others |= not chunk.isascii()
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        has_others = False
    handle.seek(0)
    return has_others


def refusal(path: Path) -> str | None:
    """Explain why a file cannot be read: what it is, and the command that converts it. None if its format is not a refused one.

    Raises
    ------
    OSError
        If the file cannot be opened.
    """
    with path.open("rb") as handle:
        head = handle.read(_HEAD)
    kind = compression(head)
    for name, (suffixes, _) in COMPRESSIONS.items():
        if path.suffix.lower() in suffixes and kind is None and head:
            return f"{path} is named {path.suffix} but does not contain {name} data; download it again, or rename it after its content"
    if kind == "zip":
        return _refuse_zip(path)
    for matches, description, command in _REFUSED:
        if matches(head, path.suffix.lower()):
            return f"{path} is {description}; convert it, then name the new file in params.yaml: {command(path)}"
    if head.startswith(b"version https://git-lfs"):
        return f"{path} is a pointer of Git LFS, not the file itself; fetch the file: git lfs pull"
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return f"{path} is a web page, not a file of rows: the download probably ended at a login or an error page; download it again"
    return None


@contextlib.contextmanager
def _explained(path: Path, kind: str) -> Iterator[None]:
    """Turn errors of a decompressor into a message that names the file."""
    try:
        yield
    except (*_DAMAGED, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path} is not a complete {kind} file ({error}); copy or download it again") from error


class _Decompressed(io.RawIOBase):
    """The content of a compressed file. Errors of the decompressors become a UserError that names the file."""

    def __init__(self, path: Path, kind: str) -> None:
        self._path, self._kind = path, kind
        self._size = path.stat().st_size
        self._stream, self._files = _open_stream(path, kind)
        self._read_bytes = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._kind != "zstd"

    def readinto(self, buffer: Any) -> int:
        with _explained(self._path, self._kind):
            content = self._stream.read(len(buffer))
        self._read_bytes += len(content)
        if self._read_bytes > max(MAX_UNCHECKED, MAX_RATIO * self._size):
            raise UserError(
                f"{self._path} unpacks to more than {MAX_RATIO} times its size, which no file of rows does; if it is not a mistake, "
                f"decompress it: {_decompress(self._path, self._kind)}"
            )
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with _explained(self._path, self._kind):
            position = self._stream.seek(offset, whence)
        self._read_bytes = position
        return position

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        if not self.closed:
            for file in self._files:
                file.close()
        super().close()


def _open_stream(path: Path, kind: str) -> tuple[Any, list[Any]]:
    """Return the decompressed stream of a file, and all files to close, in this order."""
    if kind == "zip":
        with _explained(path, kind):
            archive = zipfile.ZipFile(path)
            stream = archive.open(_only_member(archive, path))
        return stream, [stream, archive]
    if kind == "zstd":
        import pyarrow as pa

        source = pa.OSFile(str(path), "rb")
        stream = pa.CompressedInputStream(source, "zstd")
        return stream, [stream, source]
    openers: dict[str, Callable[..., Any]] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
    opened = openers[kind](path, "rb")
    return opened, [opened]


def _archive_inside(path: Path, kind: str, head: bytes) -> str | None:
    """Explain that the decompressed content, which starts with `head`, is an archive or compressed again; None if it is not."""
    if head[257:262] == b"ustar":
        return f"{path} is a tar archive; unpack it, then name its files in params.yaml: {_unpack_tar(path)}"
    if inner := compression(head):
        return f"{path} is a {inner} file inside a {kind} file; decompress it: {_decompress(path, kind)}"
    return None


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return files of an archive without those that macOS adds."""
    hidden = ("__MACOSX", ".DS_Store")
    return [entry for entry in archive.infolist() if not entry.is_dir() and not set(hidden) & set(Path(entry.filename).parts)]


def _only_member(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    """Return the file of an archive that contains one; raises UserError for other archives."""
    members = _members(archive)
    if len(members) != 1:
        names = short_repr([entry.filename for entry in members])
        raise UserError(
            f"{path} contains {len(members)} files, {names}; accepted: archives of one file. "
            f"Unpack it, then name its files in params.yaml: {_unzip(path)}"
        )
    return members[0]


def _refuse_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if "xl/workbook.xml" in names or "[Content_Types].xml" in names:
                return f"{path} is an Excel workbook; convert it, then name the new file in params.yaml: {_spreadsheet('openpyxl')(path)}"
            if {"mimetype", "content.xml"} <= names:
                return f"{path} is an OpenDocument table; convert it, then name the new file in params.yaml: {_spreadsheet('odfpy')(path)}"
            if _only_member(archive, path).flag_bits & 1:
                return f"{path} is an encrypted zip file; unpack it, then name the file in params.yaml: {_unzip(path)}"
    except UserError as error:
        return str(error)
    except _DAMAGED as error:
        return f"{path} is not a complete zip file ({error}); copy or download it again"
    return None


def _decompress(path: Path, kind: str) -> str:
    return _unzip(path) if kind == "zip" else f"{COMPRESSIONS[kind][1]} {shlex.quote(str(path))}"


def _unzip(path: Path) -> str:
    return f"unzip {shlex.quote(str(path))} -d {shlex.quote(str(path.with_suffix('')))}"


def _unpack_tar(path: Path) -> str:
    return f"tar --extract --file {shlex.quote(str(path))} --directory {shlex.quote(str(path.parent))}"


def _python(code: str, package: str = "") -> str:
    """Return a command line that runs Python code, after the installation of a package."""
    return f"{f'pip install {package} && ' if package else ''}python -c {shlex.quote(code)}"


def _names(path: Path, suffix: str) -> tuple[str, str]:
    """Return the file and its converted form as literals of Python in double quotes."""
    target = path.with_suffix(suffix) if path.suffix != suffix else path.with_suffix(f".converted{suffix}")
    return json.dumps(str(path), ensure_ascii=False), json.dumps(str(target), ensure_ascii=False)


def _spreadsheet(package: str) -> Callable[[Path], str]:
    """Return the command that writes the first sheet of a workbook as CSV, every cell as text."""

    def command(path: Path) -> str:
        source, target = _names(path, ".csv")
        reading = f"pandas.read_excel({source}, dtype=str, keep_default_na=False)"
        return _python(f"import pandas; {reading}.to_csv({target}, index=False)", package)

    return command


def _to_parquet(reading: str, imports: str) -> Callable[[Path], str]:
    """Return the command that writes a file as Parquet; `reading` is an expression with {source}, whose result is a table of pyarrow."""

    def command(path: Path) -> str:
        source, target = _names(path, ".parquet")
        return _python(f"import {imports}, pyarrow.parquet; pyarrow.parquet.write_table({reading.format(source=source)}, {target})")

    return command


def _json_array(path: Path) -> str:
    source, target = _names(path, ".jsonl")
    code = (
        f'import json; rows = json.load(open({source}, encoding="utf-8-sig")); '
        f'open({target}, "w", encoding="utf-8").writelines(json.dumps(row, ensure_ascii=False) + "\\n" for row in rows)'
    )
    return _python(code)


def _sqlite(path: Path) -> str:
    source, target = _names(path, ".parquet")
    table = "TABLE"
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as base:
        (table,) = base.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid").fetchone() or (table,)
    query = json.dumps(f'SELECT * FROM "{table}"', ensure_ascii=False)
    return _python(f"import pandas, sqlite3; pandas.read_sql({query}, sqlite3.connect({source})).to_parquet({target}, index=False)")


def _avro(path: Path) -> str:
    return f"pip install fastavro && fastavro {shlex.quote(str(path))} > {shlex.quote(str(path.with_suffix('.jsonl')))}"


def _seven_zip(path: Path) -> str:
    return f"7z x {shlex.quote(str(path))} -o{shlex.quote(str(path.parent))}"


# How to recognise a format from the first bytes and the suffix of a file; its name for messages; the command that converts it.
_REFUSED: tuple[tuple[Callable[[bytes, str], bool], str, Callable[[Path], str]], ...] = (
    (lambda head, suffix: head[:6] == b"7z\xbc\xaf\x27\x1c", "a 7z archive", _seven_zip),
    (lambda head, suffix: head[:6] == b"Rar!\x1a\x07", "a RAR archive", _seven_zip),
    (lambda head, suffix: head[257:262] == b"ustar", "a tar archive", _unpack_tar),
    (lambda head, suffix: head[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook", _spreadsheet("xlrd")),
    (lambda head, suffix: head[:8] == b"ARROW1\0\0", "an Arrow or Feather file",
     _to_parquet("pyarrow.feather.read_table({source})", "pyarrow.feather")),
    (lambda head, suffix: head[:4] == b"\xff\xff\xff\xff", "a stream of Arrow",
     _to_parquet("pyarrow.ipc.open_stream({source}).read_all()", "pyarrow")),
    (lambda head, suffix: head[:3] == b"ORC" and suffix == ".orc", "an ORC file",
     _to_parquet("pyarrow.orc.read_table({source})", "pyarrow.orc")),
    (lambda head, suffix: head[:4] == b"Obj\x01", "an Avro file", _avro),
    (lambda head, suffix: head[:16] == b"SQLite format 3\0", "an SQLite database", _sqlite),
    (lambda head, suffix: suffix in (".json", ".jsonl", ".txt") and head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[",
     "a JSON array; rows are read from JSON lines, one object a line", _json_array),
)  # fmt: skip
