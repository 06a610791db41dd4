"""Translation with unreliable servers, local engines and the translation memory.

Every text gets its correct translation or a reason; no text is sent twice, and no answer is lost.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babelcart.core.errors import UserError
from babelcart.rows import text
from babelcart.translation import engines, memory_files, network
from babelcart.translation.memory_files import Entry
from babelcart.translation.settings import TranslateSettings
from babelcart.translation.translation_memory import EngineDirection, Memory
from babelcart.translation.translator import Answer, Refusal, Source, Translator
from babelcart.weights import fetching
from tests.support.imports import ROOT
from tests.support.libre_server import FAST, FAULTS, TEXTS, german, online, running
from tests.support.project import Project, run, run_to

EN_DE = ("en", "de")


def libre_translator(memory: Memory, url: str, **changes: Any) -> Translator:
    """Return a translator with one LibreTranslate server; `changes` are settings of translate, and ``network`` adds to `FAST`."""
    limits = network.RateLimits(**{**FAST, **changes.pop("network", {})})
    block = engines.EngineSettings(kind="libre", base_url=url)
    values = {"allow_network": True, "network": limits, **changes}
    settings = TranslateSettings(memory="", chain=("libre",), engines={"libre": block}, **values)
    engine = engines.build("libre", block, Path(), limits.timeout)
    return Translator(memory, [Source("libre", engine.version, engine)], settings)


def wrong_translations(answers: dict[str, Answer | Refusal]) -> list[tuple[str, str]]:
    return [
        (text, answer.translation) for text, answer in answers.items() if isinstance(answer, Answer) and answer.translation != german(text)
    ]


def refusal_reasons(answers: dict[str, Answer | Refusal]) -> list[str]:
    return [answer.reason for answer in answers.values() if isinstance(answer, Refusal)]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_with_one_kind_of_fault_gives_correct_translations(tmp_path: Path, fault: str) -> None:
    texts = TEXTS[:60]
    # Each text gets the answer of another at most once; two equal wrong answers would be accepted.
    faulty_texts = len(texts) if fault == "other" else 0
    with running(faults=[fault], share=0.2, faulty_texts=faulty_texts) as server, Memory(tmp_path / "m.sqlite") as memory:
        answers = libre_translator(memory, server.url, agree=2 if fault == "other" else 1).translate(EN_DE, texts)
        assert wrong_translations(answers) == []
        reasons = refusal_reasons(answers)
        assert all(reasons)
        # Answers that cannot be trusted are refused; all other faults are overcome by retries.
        expected_reason = {"empty": "empty", "other": "contradictory"}.get(fault)
        assert set(reasons) <= {expected_reason}
        assert len(reasons) < len(texts) / 2


def test_a_server_with_all_kinds_of_faults_gives_correct_translations(tmp_path: Path) -> None:
    with running(faults=FAULTS, share=0.3) as server, Memory(tmp_path / "m.sqlite") as memory:
        answers = libre_translator(memory, server.url, agree=2).translate(EN_DE, TEXTS)
        assert wrong_translations(answers) == []
        assert len(TEXTS) - len(refusal_reasons(answers)) > 0.8 * len(TEXTS)
        # The memory holds only confirmed answers.
        assert all(entry.translation == german(entry.text) for entry in memory.entries())


def test_two_texts_with_the_same_answer_are_sent_again(tmp_path: Path) -> None:
    # Wrong answers are answers of the other 180 texts, which get their correct answers: each wrong answer occurs twice.
    with running(faults=["other"], share=0.5, faulty_texts=20) as server, Memory(tmp_path / "m.sqlite") as memory:
        answers = libre_translator(memory, server.url).translate(EN_DE, TEXTS)
        assert wrong_translations(answers) == []
        assert len(TEXTS) < server.requests < 1.5 * len(TEXTS)


def test_texts_that_one_engine_refuses_go_to_the_next(tmp_path: Path) -> None:
    with running(faults=["empty"], share=1.0) as empty, running() as working, Memory(tmp_path / "m.sqlite") as memory:
        servers = {"first": empty, "second": working}
        blocks = {name: engines.EngineSettings(kind="libre", base_url=server.url) for name, server in servers.items()}
        limits = network.RateLimits(**FAST)
        settings = TranslateSettings(memory="", chain=("first", "second"), engines=blocks, allow_network=True, network=limits)
        chain = [engines.build(name, block, tmp_path, 1.0) for name, block in blocks.items()]
        sources = [Source(engine.name, engine.version, engine) for engine in chain]
        answers = Translator(memory, sources, settings).translate(EN_DE, TEXTS[:20])
        assert refusal_reasons(answers) == []
        assert wrong_translations(answers) == []
        assert {answer.engine for answer in answers.values() if isinstance(answer, Answer)} == {"second"}


def test_a_second_run_sends_no_request(tmp_path: Path) -> None:
    with running() as server, Memory(tmp_path / "m.sqlite") as memory:
        first_answers = libre_translator(memory, server.url).translate(EN_DE, [*TEXTS, *TEXTS])
        assert server.requests == len(TEXTS)
        second_answers = libre_translator(memory, server.url).translate(EN_DE, TEXTS)
        assert second_answers == first_answers
        assert server.requests == len(TEXTS)


def test_no_request_is_sent_unless_the_network_is_allowed(tmp_path: Path) -> None:
    with running() as server, Memory(tmp_path / "m.sqlite") as memory:
        answers = libre_translator(memory, server.url, allow_network=False).translate(EN_DE, TEXTS[:3])
        assert set(answers.values()) == {Refusal("missing")}
        assert server.requests == 0


def test_personal_data_is_not_sent_to_a_server(tmp_path: Path) -> None:
    texts = ["red dog bed", "call +49 170 1234567", "jo@example.org", "4111 1111 1111 1111", "221b baker street"]
    with running() as server, Memory(tmp_path / "m.sqlite") as memory:
        answers = libre_translator(memory, server.url).translate(EN_DE, texts)
        private = {text for text, answer in answers.items() if isinstance(answer, Refusal) and answer.reason.startswith("private")}
        assert private == set(texts[1:])
        assert server.requests == 1


def test_the_circuit_breaker_opens_and_the_next_run_resumes(tmp_path: Path) -> None:
    with Memory(tmp_path / "m.sqlite") as memory:
        with running(faults=["500"], share=1.0) as server:
            translator = libre_translator(memory, server.url, network={"max_failures": 5, "concurrency": 2})
            answers = translator.translate(EN_DE, TEXTS)
            assert server.requests < 20
            reasons = refusal_reasons(answers)
            assert len(reasons) == len(TEXTS)
            assert all("status 500" in reason for reason in reasons)
            answers = translator.translate(EN_DE, ["blue cat tree"])
            assert isinstance(answers["blue cat tree"], Refusal)
            assert server.requests < 20  # the breaker stays open for the rest of the run
        with running() as server:
            answers = libre_translator(memory, server.url).translate(EN_DE, TEXTS)
            assert wrong_translations(answers) == []


def test_a_server_that_requests_a_pause_of_an_hour_is_given_up() -> None:
    failure = network.TemporaryFailure("status 429", 3600)

    def client(text: str) -> str:
        raise failure

    start = time.monotonic()
    responses = list(network.RequestPool(lambda: client, TEXTS[:10], network.RateLimits(per_second=0)).responses())
    assert time.monotonic() - start < 30
    assert {response for _, response in responses} == {network.Failure("stopped: status 429", stopped=True)}


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7), ("0.5", 0.5), ("-3", 0), ("soon", None), (None, None), ("Thu, 01 Jan 1970 00:00:00 GMT", 0)]
)
def test_retry_after_is_a_number_of_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert engines._seconds(value) == seconds


@pytest.mark.parametrize(
    ("kind", "language", "code"),
    [
        ("google", "he", "iw"),
        ("google", "zh", "zh-CN"),
        ("google", "nb", "no"),
        ("google", "vi", "vi"),
        ("google", "no", "no"),
        ("google", "fil", "tl"),
        ("mymemory", "de", "de-DE"),
        ("mymemory", "pt", "pt-PT"),
        ("mymemory", "zh", "zh-CN"),
        ("mymemory", "no", "nb-NO"),
        ("mymemory", "he", "he-IL"),
        ("microsoft", "zh", "zh-hans"),
        ("microsoft", "no", "nb"),
        ("microsoft", "fil", "fil"),
        ("yandex", "nb", "no"),
        ("yandex", "fil", "tl"),
        ("pons", "xx", None),
    ],
)
def test_language_codes_are_those_of_the_engine(kind: str, language: str, code: str | None) -> None:
    assert engines.DeepTranslator(kind, engines.EngineSettings(kind=kind), 1.0)._code(language) == code  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["deepl", "microsoft", "yandex", "baidu", "papago", "chatgpt"])
def test_an_engine_without_its_key_is_unavailable(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engines.DeepTranslator(kind, engines.EngineSettings(kind=kind), 1.0)  # type: ignore[arg-type]
    with pytest.raises(network.EngineUnavailable, match=kind):
        engine.client("en", "de")


def test_a_language_model_translates_a_batch_like_single_texts(tmp_path: Path) -> None:
    fetching.from_random(fetching.Weights(licence="", random="qwen2"), tmp_path)
    block = engines.EngineSettings(kind="llm", batch_size=4)
    translate = engines.build("llm", block, tmp_path, 1.0, str(tmp_path)).client("en", "de")
    texts = ["red dog bed", "a", "winter jacket with a hood 42"]
    assert translate(texts) == [translate([text])[0] for text in texts]
    assert all("\n" not in answer for answer in translate(texts))


def test_an_encoder_decoder_translates_a_batch_like_single_texts(tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    fetching.from_random(fetching.Weights(licence="", random="qwen2"), tmp_path)  # writes the tokenizer
    (tmp_path / "config.json").unlink()
    (tmp_path / "generation_config.json").unlink()
    shape = T5Config(vocab_size=2048, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0, pad_token_id=0)
    T5ForConditionalGeneration(shape).save_pretrained(tmp_path)
    block = engines.EngineSettings(kind="seq2seq", prefix="<2{target}> ")
    engine = engines.build("t5", block, tmp_path, 1.0, str(tmp_path))
    texts = ["red dog bed", "a", "winter jacket with a hood 42"]
    translate = engine.client("en", "de")
    assert translate(texts) == [translate([text])[0] for text in texts]


def test_answers_of_a_local_engine_are_stored_in_the_memory(tmp_path: Path) -> None:
    fetching.from_random(fetching.Weights(licence="", random="qwen2"), tmp_path / "model")
    block, folder = engines.EngineSettings(kind="llm", version="1"), str(tmp_path / "model")
    settings = TranslateSettings(memory="", chain=("llm",), engines={"llm": block}, local_model=folder)
    engine = engines.build("llm", block, tmp_path, 1.0, folder)
    with Memory(tmp_path / "m.sqlite") as memory:
        first_run = Translator(memory, [Source("llm", "1", engine)], settings)
        first_answers = first_run.translate(EN_DE, TEXTS[:40])
        assert first_run.answer_counts["llm"] == 40
        second_run = Translator(memory, [Source("llm", "1", engine)], settings)
        second_answers = second_run.translate(EN_DE, TEXTS[:40])
        assert second_answers == first_answers
        assert second_run.answer_counts["llm"] == 0


def test_the_version_of_a_local_model_depends_on_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    Path("model/en-de.bin").write_bytes(b"1")
    blocks = [
        engines.EngineSettings(kind="llm"),
        engines.EngineSettings(kind="seq2seq"),
        engines.EngineSettings(kind="neural", directions={"en-de": engines.NeuralModel("en-de.bin", "en-de.bin")}),
    ]
    before = [engines.build("x", block, tmp_path, 1.0, "model").version for block in blocks]
    assert all(version.startswith("model@") for version in before)
    assert before == [engines.build("x", block, tmp_path, 1.0, "model").version for block in blocks]
    Path("model/en-de.bin").write_bytes(b"2")
    after = [engines.build("x", block, tmp_path, 1.0, "model").version for block in blocks]
    assert not set(before) & set(after)
    hub = engines.EngineSettings(kind="llm", repo="owner/name", revision="0" * 40)
    assert engines.build("x", hub, tmp_path, 1.0, "stages/translate.py").version == f"owner/name@{'0' * 12}"


@pytest.mark.parametrize("name", ["absent.bin", "../outside.bin", "/outside.bin"])
def test_a_local_engine_refuses_files_outside_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "outside.bin").touch()
    block = engines.EngineSettings(kind="neural", directions={"en-de": engines.NeuralModel(name, name)})
    with pytest.raises(UserError, match=r"translate\.engines\.x\.directions names .* accepted: .* translate\.local_model"):
        engines.build("x", block, tmp_path, 1.0, str(tmp_path / "model"))


@pytest.mark.parametrize("kind", ["llm", "seq2seq"])
def test_a_local_engine_without_a_model_names_the_settings_to_change(project: Project, kind: str) -> None:
    block = {"engines": {"ours": {"kind": kind}}, "chain": ["ours"]}
    Path("stages").mkdir()
    Path("stages/translate.py").touch()
    project.change(translate=block)
    for command in (run("check", fails=True), run("translate", "--task", "qc", fails=True)):
        assert "ours of chain needs a model, and translate.local_model is 'stages/translate.py'; set it to the folder" in command.output
        assert "translate.engines.ours: repo and revision" in command.output
    run_to("split")
    project.change(translate={"local_model": "models/gemma3-12b/base"})
    run("check")  # passes, because the stage `base` may not have run yet
    output = run("translate", "--task", "qc", fails=True).output
    assert "translate.local_model is 'models/gemma3-12b/base', which is not a folder" in output
    project.change(translate={"engines": {"ours": {"kind": kind, "repo": "models/gemma3-12b/base"}}})
    output = run("translate", "--task", "qc", fails=True).output
    assert "leave out repo and set translate.local_model: models/gemma3-12b/base" in output
    (project.folder / "owner/name").mkdir(parents=True)
    project.change(translate={"engines": {"ours": {"kind": kind, "repo": "owner/name", "revision": "0" * 40}}})
    printed = run("translate", "--task", "qc", fails=True).output
    assert "set translate.local_model: owner/name" in printed


ENTRIES = st.lists(
    st.builds(
        Entry, st.sampled_from(["google", "libre"]), st.sampled_from(["1", "2"]), st.just("en"), st.sampled_from(["de", "ja"]),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8).map(text.normalise).filter(bool),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8).map(text.collapse_spaces),
    ), max_size=30,
)  # fmt: skip


@given(first=ENTRIES, second=ENTRIES)
@settings(max_examples=60, deadline=None)
def test_memories_merge_in_any_order_to_the_same_bytes(
    first: list[Entry], second: list[Entry], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    translations: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for entry in first + second:
        translations[entry[:5]].add(entry.translation)
    exports = []
    for merge_index, batches in enumerate([(first, second), (second, first), (first + second, first)]):
        with Memory(folder / f"{merge_index}.sqlite") as memory:
            for entries in batches:
                memory.add(entries)
            path = folder / f"{merge_index}.csv"
            memory_files.write_csv(path, memory.entries())
            exports.append(path.read_bytes())
            for entry in first + second:
                stored = memory.look_up(EngineDirection(*entry[:4]), [entry.text])[entry.text]
                assert stored in translations[entry[:5]]
    assert exports[0] == exports[1] == exports[2]


@given(entries=ENTRIES)
@settings(max_examples=60, deadline=None)
def test_a_csv_file_keeps_all_entries(entries: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("csv") / "m.csv"
    memory_files.write_csv(path, entries)
    assert list(memory_files.read_csv(path)) == entries


def test_a_tmx_file_keeps_all_entries(tmp_path: Path) -> None:
    entries = [Entry("google", "1", "en", "de", 'a <b> & "c"', "ä < ö"), Entry("given", "", "ja", "ar", "時計", "ساعة")]
    memory_files.write_tmx(tmp_path / "m.tmx", entries)
    assert list(memory_files.read_tmx(tmp_path / "m.tmx")) == entries
    (tmp_path / "m.tmx").write_text("<tmx><body><tu>", encoding="utf-8")
    with pytest.raises(UserError, match="is not TMX"):
        list(memory_files.read_tmx(tmp_path / "m.tmx"))


def test_a_changed_file_of_given_translations_replaces_its_old_entries(tmp_path: Path) -> None:
    path = tmp_path / "given.csv"
    with Memory(tmp_path / "m.sqlite") as memory:
        for translation in ("ähre", "zaun"):
            path.write_text(f"source,target,text,translation\nen,de,fence,{translation}\n", encoding="utf-8")
            version = memory.import_file(path)
            assert memory.look_up(EngineDirection(memory_files.GIVEN, version, *EN_DE), ["fence"]) == {"fence": translation}


def test_the_memory_command_lists_imports_exports_and_deletes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    memory_files.write_csv(Path("a.csv"), [Entry("google", "1", "en", "de", "a", "b"), Entry("bad", "1", "en", "de", "a", "c")])
    run("memory", "import", "a.csv")
    output = run("memory", "list").output
    assert "google\t1\ten-de\t1" in output
    run("memory", "export", "a.tmx", "--engine", "google")
    output = run("memory", "delete", "bad").output
    assert output == "1 entries deleted\n"
    run("memory", "export", "b.csv")
    assert Path("b.csv").read_text() == "engine,version,source,target,text,translation\ngoogle,1,en,de,a,b\n"
    output = run("memory", "delete", "bad", fails=True).output
    assert "no entries of 'bad'" in output
    Path("params.yaml").write_text("x")
    output = run("memory", "import", "params.yaml", fails=True).output
    assert "line 1: expected the columns" in output


def test_a_run_killed_at_any_moment_resumes_to_the_same_outputs(project: Project) -> None:
    kills = int(os.environ.get("BABELCART_KILLS", "3"))
    outputs = [
        Path("memory/qc.csv"),
        Path("metrics/translate/qc.json"),
        *(Path(f"build/translate/qc/{name}.parquet") for name in ("train", "validation")),
    ]
    command = [sys.executable, "-m", "stages.translate", "--task", "qc"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with running(delay=0.02) as server:
        online(project, server.url)
        run_to("split")
        subprocess.run(command, env=environment, check=True, capture_output=True)
        expected = {path: path.read_bytes() for path in outputs}
        text_count = len(server.correct_answers)
        assert text_count > 150
        for path in [*outputs, *Path(".scratch").glob("memory.sqlite*")]:
            path.unlink()
        server.correct_answers.clear()
        generator = random.Random(1)
        for kill_index in range(kills):
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            # Kill after a random number of answers in this share of the work, or while the last files are written.
            answers_before_kill = generator.randint(kill_index * text_count // kills, (kill_index + 1) * text_count // kills)
            while process.poll() is None and server.correct_answers.total() < answers_before_kill:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            process.wait()
        subprocess.run(command, env=environment, check=True, capture_output=True)
        # Each kill loses at most the requests in flight, one per thread.
        assert server.correct_answers.total() <= text_count + 4 * kills
    assert {path: path.read_bytes() for path in outputs} == expected


def test_insufficient_coverage_stops_the_stage_with_a_table(project: Project) -> None:
    online(project, "http://127.0.0.1:9")  # no server listens on this port
    project.change(translate={"allow_network": False})
    run_to("split")
    output = run("translate", "--task", "qc", fails=True).output
    assert "below translate.min_coverage 0.9 in de" in output
    assert "missing" in output
    assert not Path("build/translate/qc/train.parquet").exists()


def test_candidates_are_translated_if_the_settings_say_so(project: Project) -> None:
    project.change(translate={"qc": {"source_languages": ["en"], "candidates": "translate", "rows_per_language": 99}})
    run_to("split")
    rows = pd.read_parquet("build/split/qc/train.parquet")
    paths = sorted(set(rows["candidate"]))
    with Path("data/memory.csv").open("a", encoding="utf-8") as handle:
        # The translation of the first path equals its source, which the gate refuses.
        translations = [paths[0], *(f"{path} kaufen" for path in paths[1:])]
        handle.writelines(f'en,de,"{path}","{translation}"\n' for path, translation in zip(paths, translations, strict=True))
    run("translate", "--task", "qc")
    train = pd.read_parquet("build/translate/qc/train.parquet")
    copies = train[train["origin"] == "translated"].set_index("source_id")
    assert len(copies)
    source_candidates = rows.set_index("id").loc[copies.index, "candidate"]
    assert paths[0] not in set(source_candidates)
    assert (copies["candidate"] == source_candidates + " kaufen").all()


def test_translated_rows_keep_the_grade_and_the_levels_of_their_source(project: Project) -> None:
    project.change(translate={"qc": {"source_languages": ["en"], "target_languages": ["de-AT"], "rows_per_language": 99}})
    run_to("translate")
    train = pd.read_parquet("build/translate/qc/train.parquet")
    copies = train[train["origin"] == "translated"]
    assert len(copies)
    assert set(copies["language"]) == {"de"}
    sources = train[train["origin"] == "native"].set_index("id").loc[copies["source_id"]]
    for column in ("label", "candidate", "grade", "levels"):
        assert [list(cell) if column == "levels" else cell for cell in copies[column]] == [
            list(cell) if column == "levels" else cell for cell in sources[column]
        ]
    assert all(len(levels) > 1 for levels in copies["levels"])


def test_every_query_is_translated_into_the_pivot_language(project: Project) -> None:
    lines = ["source,target,text,translation", "de,en,gartenschlauch dev,garden hose dev", "de,en,abendkleid dev,<b>dress</b>"]
    Path("data/memory.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    project.change(translate={"pivot": "en"})
    run_to("translate")
    dev = pd.read_parquet("build/translate/qc/dev.parquet").set_index("origin_query")["pivot"].to_dict()
    assert dev["gartenschlauch dev"] == "garden hose dev"
    assert dev["garden hose dev"] == "garden hose dev"  # already in the pivot language
    assert dev["abendkleid dev"] == ""  # refused by the gate; prompts use the query instead
    counts = json.loads(Path("metrics/translate/qc.json").read_text())["pivot"]["dev"]["de"]
    assert counts["refused"]["markup"] == 1
