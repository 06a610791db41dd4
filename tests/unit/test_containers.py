"""Compressed raw files are read whatever their names are; other formats are refused with a command that converts them."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import resource
import sqlite3
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest

from babelcart.core.errors import UserError
from babelcart.reading import containers, readers
from babelcart.reading.sources import RawFile, ReadOptions

ROWS = [{"id": "1", "query": "robe d'été"}, {"id": "007", "query": 'a "12 inch" pan'}]
TEXT = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS * 2000).encode()
TABLE = pa.Table.from_pylist(ROWS)


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def zipped(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def tar(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("rows.jsonl")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "rows.jsonl.gz": gzip.compress,
    "rows.jsonl.bz2": bz2.compress,
    "rows.jsonl.xz": lzma.compress,
    "rows.jsonl.zst": zstd,
    "archive.zip": lambda content: zipped(("folder/rows.jsonl", content), ("__MACOSX/folder/._rows.jsonl", b"x")),
}


def content_of(path: Path) -> bytes:
    with containers.open_container(path) as handle:
        return b"".join(handle)


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_compressed_file_is_read_under_its_name_and_under_that_of_a_text(tmp_path: Path, name: str) -> None:
    for path in (tmp_path / name, tmp_path / "rows.csv"):
        path.write_bytes(COMPRESSED[name](TEXT))
        assert content_of(path) == TEXT
    assert containers.inner_name(tmp_path / name) == "rows.jsonl"
    assert containers.inner_name(tmp_path / "rows.csv") == "rows.csv"


@pytest.mark.parametrize("name", [name for name in COMPRESSED if not name.endswith(".zip")])
def test_parts_that_were_compressed_one_by_one_are_all_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(COMPRESSED[name](TEXT[:5000]) + COMPRESSED[name](TEXT[5000:]))
    assert content_of(path) == TEXT


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_truncated_or_damaged_file_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    path, complete = tmp_path / name, COMPRESSED[name](TEXT)
    middle = len(complete) // 2
    damaged = complete[:middle] + bytes([complete[middle] ^ 255]) + complete[middle + 1 :]
    truncated = [complete[:size] for size in (3, 6, 20, middle, len(complete) - 1)]
    # The codec of pyarrow writes zstd without a checksum; the program zstd writes one.
    for content in (*truncated, b"id,label\n1,0\n", *([] if name.endswith(".zst") else [damaged])):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{name} is (not a complete|named)"):
            content_of(path)


@pytest.mark.parametrize("name", COMPRESSED)
def test_rows_are_read_from_compressed_text_and_parquet(tmp_path: Path, name: str) -> None:
    rows = [{"id": row["id"], "language": "fr", "origin_query": row["query"], "item_title": "x", "label": 1} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "plain")
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    for suffix, content in ((".jsonl", lines), (".parquet", (tmp_path / "plain").read_bytes())):
        path = tmp_path / name.replace(".jsonl", suffix)
        compressed = zipped((f"rows{suffix}", content)) if path.suffix == ".zip" else COMPRESSED[name](content)
        path.write_bytes(compressed)
        table, problems, _ = readers.read_rows([RawFile(path, ReadOptions())], "qi", labelled=True)
        assert not problems
        assert table["origin_query"].tolist() == [row["query"] for row in ROWS]


@pytest.mark.parametrize("opener", [gzip.open, bz2.open, lzma.open])
def test_a_file_that_unpacks_to_a_thousand_times_its_size_is_refused_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opener: Callable[..., io.BufferedIOBase]
) -> None:
    monkeypatch.setattr(containers, "MAX_UNCHECKED", 1 << 22)
    with opener(tmp_path / "rows.csv.gz", "wb") as bomb:
        for _ in range(64):
            bomb.write(b"\0" * (1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (tmp_path / "rows.csv.gz").rename(tmp_path / "rows.csv")
    with pytest.raises(UserError, match="unpacks to more than 1000 times its size"):
        content_of(tmp_path / "rows.csv")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB


def workbook(path: Path) -> None:
    path.write_bytes(zipped(("[Content_Types].xml", b"<Types/>"), ("xl/workbook.xml", b"<workbook/>")))


def open_document(path: Path) -> None:
    path.write_bytes(zipped(("mimetype", b"application/vnd.oasis.opendocument.spreadsheet"), ("content.xml", b"<x/>")))


def database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute('CREATE TABLE "my rows" (id TEXT, query TEXT)')
    connection.executemany('INSERT INTO "my rows" VALUES (:id, :query)', ROWS)
    connection.commit()
    connection.close()


def arrow_stream(path: Path) -> None:
    with pa.ipc.new_stream(path, TABLE.schema) as stream:
        stream.write_table(TABLE)


# Name, a function that writes the file or its content, and two parts of the message.
REFUSED: list[tuple[str, Callable[[Path], object] | bytes, str, str]] = [
    ("rows.xlsx", workbook, "an Excel workbook", "pip install openpyxl && python -c"),
    ("rows.csv", workbook, "an Excel workbook", "read_excel"),
    ("rows.ods", open_document, "an OpenDocument table", "pip install odfpy && python -c"),
    ("rows.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook", "pip install xlrd"),
    ("rows.7z", b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive", "7z x"),
    ("rows.tar", tar(TEXT), "a tar archive", "tar --extract"),
    ("rows.tar.gz", gzip.compress(tar(TEXT)), "a tar archive", "tar --extract"),
    ("rows.csv.gz", gzip.compress(gzip.compress(TEXT)), "a gzip file inside a gzip file", "gunzip"),
    ("rows.avro", b"Obj\x01\x04", "an Avro file", "pip install fastavro && fastavro"),
    ("rows.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS", "git lfs pull"),
    ("rows.csv", b"\n<!DOCTYPE html><html>", "a web page", "download it again"),
    ("two.zip", zipped(("train.csv", b"id\n"), ("test.csv", b"id\n")), "contains 2 files", "unzip"),
    ("none.zip", zipped(), "contains 0 files", "unzip"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "write", "description", "command"), REFUSED)
def test_other_formats_are_refused_with_a_command(
    tmp_path: Path, name: str, write: Callable[[Path], object] | bytes, description: str, command: str
) -> None:
    path = tmp_path / name
    if isinstance(write, bytes):
        path.write_bytes(write)
    else:
        write(path)
    with pytest.raises(UserError) as error:
        content_of(path)
    message = str(error.value)
    assert name in message
    assert description in message
    assert command in message


CONVERTED: list[tuple[str, Callable[[Path], object]]] = [
    ("rows.feather", lambda path: feather.write_feather(TABLE, path)),
    ("rows.arrow", arrow_stream),
    ("rows.orc", lambda path: orc.write_table(TABLE, path)),
    ("rows.db", database),
    ("rows.json", lambda path: path.write_text(json.dumps(ROWS, indent=1, ensure_ascii=False), encoding="utf-8-sig")),
]


@pytest.mark.parametrize(("name", "write"), CONVERTED)
def test_the_command_in_the_message_converts_the_file(tmp_path: Path, name: str, write: Callable[[Path], object]) -> None:
    folder = tmp_path / "it's my $shop"
    folder.mkdir()
    write(folder / name)
    message = containers.refusal(folder / name)
    assert message
    subprocess.run(message.partition("params.yaml: ")[2], shell=True, check=True, cwd=tmp_path)
    (converted,) = [path for path in folder.iterdir() if path.name != name]
    if converted.suffix == ".parquet":
        assert pq.read_table(converted).to_pylist() == ROWS
    else:
        assert [json.loads(line) for line in converted.read_text(encoding="utf-8").splitlines()] == ROWS


@pytest.mark.parametrize("content", [b"", b"id,label\n", b"BZh9 is a query\n", b"PK\n", '{"id": "1"}\n'.encode("utf-16"), b"ORC,label\n"])
def test_text_is_not_taken_for_another_format(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    assert content_of(path) == content
