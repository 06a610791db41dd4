"""Every reader accepts an input or refuses it with a message. The full fuzzer is `python -m tests.support.fuzz`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from babelcart.core import config
from babelcart.core.errors import UserError
from babelcart.reading.sources import Data
from babelcart.translation import network
from tests.support import readers
from tests.support.imports import ROOT

QUICK = settings(max_examples=15, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
# Readers that are fast and need no torch. The full fuzzer covers all of them.
NAMES = [
    "rows.txt", "rows.csv", "rows.tsv", "rows.parquet", "rows.txt.gz", "rows as written, random options",
    "rows changed, random options", "inspect", "query", "labels", "params.yaml", "dvc.lock", "data.dvc", "memory.csv",
    "memory.tmx", "memory.sqlite", "listing", "submission", "wheel", "table", "texts", *(f"answer of {kind}" for kind in readers.ANSWERS),
    "prepare: data/train_QC.txt", "split: build/prepare/qc/train.parquet",
]  # fmt: skip


@pytest.fixture(scope="module")
def readers_by_name(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, readers.Reader]]:
    folder = tmp_path_factory.mktemp("fuzz")
    before, environment = Path.cwd(), dict(os.environ)
    readers.make_project(folder, models=False)
    os.chdir(before)
    yield {reader.name: reader for reader in readers.build(folder, models=False)}
    os.environ.clear()
    os.environ.update(environment)
    readers.forget_translators()


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_accepts_or_refuses_with_a_message(readers_by_name: dict[str, readers.Reader], name: str) -> None:
    reader = readers_by_name[name]
    outcome = reader.outcome(reader.seeds[0])
    assert outcome == "accepted"
    outcomes = set()

    @QUICK
    @given(st.integers(0, 2**32))
    def read_mutated(input_index: int) -> None:
        outcomes.add(reader.outcome(reader.input(0, input_index)))

    @QUICK
    @given(st.binary(max_size=200))
    def read_random(content: bytes) -> None:
        reader.outcome(content)

    read_mutated()
    if ":" not in name:
        read_random()
    assert "refused" in outcomes or name in ("texts", "rows as written, random options")


def test_the_quick_version_covers_every_reader_except_some_stages(readers_by_name: dict[str, readers.Reader]) -> None:
    assert {name for name in readers_by_name if ":" not in name} == {name for name in NAMES if ":" not in name}


def test_a_wrong_exception_or_an_empty_message_is_a_failure(tmp_path: Path) -> None:
    def careless(content: bytes) -> None:
        if b"label" in content:
            raise KeyError("label")
        raise UserError("")

    reader = readers.Reader("careless", [b"label"], lambda random, content: content, careless, 1)
    for content, error in ((b"label", KeyError), (b"silent", AssertionError)):
        with pytest.raises(error):
            reader.outcome(content)
    assert reader.input(0, 1) == reader.input(0, 1)


def nested(first: str, level: str) -> str:
    """Eight YAML sections, each with nine aliases of the previous one."""
    names = ["run", "prepare", "split", "translate", "negatives", "prompts", "train", "data"]
    pairs = zip(["tasks", *names], names, strict=False)
    return f"tasks: &tasks {first}\n" + "".join(f"{new}: &{new} {level.replace('ALL', f'*{old},' * 9)}\n" for old, new in pairs)


# Failures that the full fuzzer found, all fixed.
YAML = [
    ("deep nesting", "data: " + "[" * 3000, "not YAML: RecursionError"),
    ("a bad tag", "data: !!bool x", "not YAML: KeyError"),
    ("no date", "data: 2001-99-99", "not YAML: ValueError: month"),
    ("a number of 5,000 digits", "data: " + "9" * 5000, "not YAML: ValueError: Exceeds"),
    ("merges that multiply", nested("{k: 1}", "{<<: [ALL]}"), "more than 32 aliases"),
    ("lists that multiply", nested("[x]", "[ALL]"), "data is .*; accepted: a section"),
    ("half a surrogate pair", 'data: {path: "\\ud800"}', "data.path is .*; accepted: a text"),
    ("a NUL in a path", 'data: {path: "a\\0b"}', "data.path is .*; accepted: a text"),
    ("a number as a key", "data: {? [1] : x}", "unknown key data.*1"),
]


@pytest.mark.parametrize(("text", "message"), [case[1:] for case in YAML], ids=[case[0] for case in YAML])
def test_malformed_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as error:
        config.load_section(Data)
    assert len(str(error.value).encode("utf-8")) < 5000


def test_an_answer_that_cannot_be_stored_is_refused(readers_by_name: dict[str, readers.Reader]) -> None:
    for body in (b'{"translatedText": "\\ud800"}', b'{"translatedText": "a\\u0000b"}'):
        with pytest.raises(network.TextRefused, match="characters"):
            readers_by_name["answer of libre"].read(b"200\n\n" + body)


@pytest.mark.slow
def test_the_full_fuzzer_finds_no_failure_in_2000_inputs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.support.fuzz", "--inputs", "2000", "--keep", str(tmp_path / "keep")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| **all** | 2,000 |" in done.stdout
