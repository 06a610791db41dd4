"""Translations: right or named as missing, whatever the server does; nothing asked twice, nothing lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babelcart.core.errors import UserError
from babelcart.rows import text
from babelcart.translation import augment, engines, network, translation_memory
from babelcart.translation.translation_memory import Entry
from babelcart.weights import fetching
from tests.support.imports import ROOT
from tests.support.libre_server import FAST, FAULTS, TEXTS, german, online, running
from tests.support.project import Project, run, run_to

WAY = ("en", "de")


def translator(store: translation_memory.Memory, url: str, **changes: Any) -> augment.Translator:
    manners = network.RateLimits(**{**FAST, **changes.pop("network", {})})
    block = engines.EngineSettings(kind="libre", base_url=url)
    chosen = augment.Translate(
        memory="", chain=("libre",), engines={"libre": block}, **{"allow_network": True, "network": manners, **changes}
    )
    engine = engines.build("libre", block, Path(), manners.timeout)
    return augment.Translator(store, [augment.Source("libre", engine.version, engine)], chosen)


def wrong(answers: dict[str, augment.Answer]) -> list[tuple[str, str]]:
    return [(text, answer.translation) for text, answer in answers.items() if answer.translation not in (None, german(text))]


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_alone_is_survived(tmp_path: Path, fault: str) -> None:
    texts = TEXTS[:60]
    # A wrong answer is wrong once: two that are the same by chance would be believed.
    victims = len(texts) if fault == "other" else 0
    with running(faults=[fault], share=0.2, victims=victims) as server, translation_memory.Memory(tmp_path / "m.sqlite") as store:
        answers = translator(store, server.url, agree=2 if fault == "other" else 1).translate(WAY, texts)
        assert wrong(answers) == []
        assert all(answer.engine for answer in answers.values())  # an engine, or a reason
        missing = [answer.engine for answer in answers.values() if answer.translation is None]
        # An answer that cannot be trusted is named, all others come through in the end.
        named = {"empty": "empty", "other": "contradictory"}.get(fault)
        assert set(missing) <= {named}
        assert len(missing) < len(texts) / 2


def test_all_faults_together_give_right_rows_or_named_ones(tmp_path: Path) -> None:
    with running(faults=FAULTS, share=0.3) as server, translation_memory.Memory(tmp_path / "m.sqlite") as store:
        answers = translator(store, server.url, agree=2).translate(WAY, TEXTS)
        assert wrong(answers) == []
        assert sum(answer.translation is not None for answer in answers.values()) > 0.8 * len(TEXTS)
        # What is in the memory was confirmed.
        assert all(entry.translation == german(entry.text) for entry in store.entries())


def test_two_texts_with_one_answer_are_asked_again(tmp_path: Path) -> None:
    # The texts whose answers are given to others are themselves answered rightly, so each wrong answer is seen twice.
    with running(faults=["other"], share=0.5, victims=20) as server, translation_memory.Memory(tmp_path / "m.sqlite") as store:
        answers = translator(store, server.url).translate(WAY, TEXTS)
        assert wrong(answers) == []
        assert len(TEXTS) < server.requests < 1.5 * len(TEXTS)


def test_what_one_engine_cannot_do_the_next_one_does(tmp_path: Path) -> None:
    with running(faults=["empty"], share=1.0) as silent, running() as good, translation_memory.Memory(tmp_path / "m.sqlite") as store:
        blocks = {name: engines.EngineSettings(kind="libre", base_url=one.url) for name, one in (("first", silent), ("second", good))}
        manners = network.RateLimits(**FAST)
        chosen = augment.Translate(memory="", chain=("first", "second"), engines=blocks, allow_network=True, network=manners)
        built = [engines.build(name, block, tmp_path, 1.0) for name, block in blocks.items()]
        chain = [augment.Source(engine.name, engine.version, engine) for engine in built]
        answers = augment.Translator(store, chain, chosen).translate(WAY, TEXTS[:20])
        assert {answer.engine for answer in answers.values()} == {"second"}
        assert wrong(answers) == []


def test_a_second_run_asks_for_nothing(tmp_path: Path) -> None:
    with running() as server, translation_memory.Memory(tmp_path / "m.sqlite") as store:
        first = translator(store, server.url).translate(WAY, [*TEXTS, *TEXTS])
        asked = server.requests
        assert asked == len(TEXTS)
        second = translator(store, server.url).translate(WAY, TEXTS)
        assert second == first
        assert server.requests == asked


def test_the_network_is_not_touched_unless_allowed(tmp_path: Path) -> None:
    with running() as server, translation_memory.Memory(tmp_path / "m.sqlite") as store:
        answers = translator(store, server.url, allow_network=False).translate(WAY, TEXTS[:3])
        assert {answer.engine for answer in answers.values()} == {"missing"}
        assert server.requests == 0


def test_personal_data_stays_at_home(tmp_path: Path) -> None:
    texts = ["red dog bed", "call +49 170 1234567", "jo@example.org", "4111 1111 1111 1111", "221b baker street"]
    with running() as server, translation_memory.Memory(tmp_path / "m.sqlite") as store:
        answers = translator(store, server.url).translate(WAY, texts)
        assert {text for text, answer in answers.items() if answer.engine.startswith("private")} == set(texts[1:])
        assert server.requests == 1


def test_the_breaker_opens_and_the_next_run_goes_on(tmp_path: Path) -> None:
    with translation_memory.Memory(tmp_path / "m.sqlite") as store:
        with running(faults=["500"], share=1.0) as server:
            stopped = translator(store, server.url, network={"max_failures": 5, "concurrency": 2})
            answers = stopped.translate(WAY, TEXTS)
            assert server.requests < 20
            assert all(answer.translation is None and "status 500" in answer.engine for answer in answers.values())
            answers = stopped.translate(("en", "de"), ["blue cat tree"])
            assert answers["blue cat tree"].translation is None
            assert server.requests < 20  # an open breaker stays open for the run
        with running() as server:
            answers = translator(store, server.url).translate(WAY, TEXTS)
            assert wrong(answers) == []


def test_a_server_that_asks_for_hours_is_left_alone(tmp_path: Path) -> None:
    held = network.TemporaryFailure("status 429", 3600)

    def client(text: str) -> str:
        raise held

    start = time.monotonic()
    answers = list(network.ask(lambda: client, TEXTS[:10], network.RateLimits(per_second=0)))
    assert time.monotonic() - start < 30  # not an hour
    assert all(answer is None and reason.startswith("stopped: status 429") for _, answer, reason in answers)


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7), ("0.5", 0.5), ("-3", 0), ("soon", None), (None, None), ("Thu, 01 Jan 1970 00:00:00 GMT", 0)]
)
def test_retry_after_is_read_in_both_forms(value: str | None, seconds: float | None) -> None:
    assert engines._seconds(value) == seconds


@pytest.mark.parametrize(
    ("kind", "language", "code"),
    [
        ("google", "he", "iw"),
        ("google", "zh", "zh-CN"),
        ("google", "nb", "no"),
        ("google", "vi", "vi"),
        ("mymemory", "de", "de-DE"),
        ("pons", "xx", None),
    ],
)
def test_each_engine_has_its_own_codes(kind: str, language: str, code: str | None) -> None:
    assert engines.DeepTranslator(kind, engines.EngineSettings(kind=kind), 1.0)._code(language) == code  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["deepl", "microsoft", "yandex", "baidu", "papago", "chatgpt"])
def test_an_engine_without_its_key_says_so(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engines.DeepTranslator(kind, engines.EngineSettings(kind=kind), 1.0)  # type: ignore[arg-type]
    with pytest.raises(network.EngineUnavailable, match=kind):
        engine.client("en", "de")


def test_a_language_model_translates_a_batch_as_it_does_one_by_one(tmp_path: Path) -> None:
    fetching.from_random(fetching.Weights(licence="", random="qwen2"), tmp_path)
    block = engines.EngineSettings(kind="llm", batch_size=4)
    translate = engines.build("llm", block, tmp_path, 1.0, str(tmp_path)).client("en", "de")
    texts = ["red dog bed", "a", "winter jacket with a hood 42"]
    assert translate(texts) == [translate([text])[0] for text in texts]
    assert all("\n" not in answer for answer in translate(texts))


def test_an_encoder_decoder_translates_a_batch_as_it_does_one_by_one(tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    fetching.from_random(fetching.Weights(licence="", random="qwen2"), tmp_path)  # for its tokenizer
    (tmp_path / "config.json").unlink()
    (tmp_path / "generation_config.json").unlink()
    shape = T5Config(vocab_size=2048, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0, pad_token_id=0)
    T5ForConditionalGeneration(shape).save_pretrained(tmp_path)
    block = engines.EngineSettings(kind="seq2seq", prefix="<2{target}> ")
    engine = engines.build("t5", block, tmp_path, 1.0, str(tmp_path))
    texts = ["red dog bed", "a", "winter jacket with a hood 42"]
    translate = engine.client("en", "de")
    assert translate(texts) == [translate([text])[0] for text in texts]


def test_an_engine_of_this_machine_fills_the_memory(tmp_path: Path) -> None:
    fetching.from_random(fetching.Weights(licence="", random="qwen2"), tmp_path / "model")
    block, folder = engines.EngineSettings(kind="llm", version="1"), str(tmp_path / "model")
    chosen = augment.Translate(memory="", chain=("llm",), engines={"llm": block}, local_model=folder)
    engine = engines.build("llm", block, tmp_path, 1.0, folder)
    with translation_memory.Memory(tmp_path / "m.sqlite") as store:
        first = augment.Translator(store, [augment.Source("llm", "1", engine)], chosen)
        answers = first.translate(WAY, TEXTS[:40])
        assert first.asked["llm"] == 40
        again = augment.Translator(store, [augment.Source("llm", "1", engine)], chosen)
        answers_again = again.translate(WAY, TEXTS[:40])
        assert answers_again == answers
        assert again.asked["llm"] == 0


def test_the_version_of_a_local_model_is_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_files_of_a_local_engine_are_in_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "outside.bin").touch()
    block = engines.EngineSettings(kind="neural", directions={"en-de": engines.NeuralModel(name, name)})
    with pytest.raises(UserError, match=r"translate\.engines\.x\.directions names .* accepted: .* translate\.local_model"):
        engines.build("x", block, tmp_path, 1.0, str(tmp_path / "model"))


@pytest.mark.parametrize("kind", ["llm", "seq2seq"])
def test_a_chain_with_a_local_engine_says_what_to_set(project: Project, kind: str) -> None:
    block = {"engines": {"ours": {"kind": kind}}, "chain": ["ours"]}
    Path("stages").mkdir()
    Path("stages/translate.py").touch()
    project.change(translate=block)
    for command in (run("check", fails=True), run("translate", "--task", "qc", fails=True)):
        assert "ours of chain needs a model, and translate.local_model is 'stages/translate.py'; set it to the folder" in command.output
        assert "translate.engines.ours: repo and revision" in command.output
    run_to("split")
    project.change(translate={"local_model": "models/gemma3-12b/base"})
    run("check")  # the stage `base` may not have written it yet
    output = run("translate", "--task", "qc", fails=True).output
    assert "translate.local_model is 'models/gemma3-12b/base', which is not a folder" in output
    project.change(translate={"engines": {"ours": {"kind": kind, "repo": "models/gemma3-12b/base"}}})
    output = run("translate", "--task", "qc", fails=True).output
    assert "leave out repo and set translate.local_model: models/gemma3-12b/base" in output
    (project.folder / "owner/name").mkdir(parents=True)
    project.change(translate={"engines": {"ours": {"kind": kind, "repo": "owner/name", "revision": "0" * 40}}})
    assert "set translate.local_model: owner/name" in run("translate", "--task", "qc", fails=True).output


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
    for number, lists in enumerate([(first, second), (second, first), (first + second, first)]):
        with translation_memory.Memory(folder / f"{number}.sqlite") as store:
            for entries in lists:
                store.add(entries)
            translation_memory.write_csv(folder / f"{number}.csv", store.entries())
            for entry in first + second:
                found = store.look_up(*entry[:4], [entry.text])[entry.text]
                assert found in {one.translation for one in first + second if one[:5] == entry[:5]}
    assert (folder / "0.csv").read_bytes() == (folder / "1.csv").read_bytes() == (folder / "2.csv").read_bytes()


@given(entries=ENTRIES)
@settings(max_examples=60, deadline=None)
def test_csv_gives_back_what_it_took(entries: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("csv") / "m.csv"
    translation_memory.write_csv(path, entries)
    assert list(translation_memory.read_csv(path)) == entries


def test_tmx_gives_back_what_it_took(tmp_path: Path) -> None:
    entries = [Entry("google", "1", "en", "de", 'a <b> & "c"', "ä < ö"), Entry("given", "", "ja", "ar", "時計", "ساعة")]
    translation_memory.write_tmx(tmp_path / "m.tmx", entries)
    assert list(translation_memory.read_tmx(tmp_path / "m.tmx")) == entries
    (tmp_path / "m.tmx").write_text("<tmx><body><tu>", encoding="utf-8")
    with pytest.raises(UserError, match="is not TMX"):
        list(translation_memory.read_tmx(tmp_path / "m.tmx"))


def test_a_given_memory_that_changed_replaces_what_it_said(tmp_path: Path) -> None:
    path = tmp_path / "given.csv"
    with translation_memory.Memory(tmp_path / "m.sqlite") as store:
        for answer in ("ähre", "zaun"):
            path.write_text(f"source,target,text,translation\nen,de,fence,{answer}\n", encoding="utf-8")
            version = store.import_file(path)
            assert store.look_up(translation_memory.GIVEN, version, "en", "de", ["fence"]) == {"fence": answer}


def test_the_memory_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    translation_memory.write_csv(Path("a.csv"), [Entry("google", "1", "en", "de", "a", "b"), Entry("bad", "1", "en", "de", "a", "c")])
    run("memory", "import", "a.csv")
    printed = run("memory", "list").output
    assert "google\t1\ten-de\t1" in printed
    run("memory", "export", "a.tmx", "--engine", "google")
    printed = run("memory", "delete", "bad").output
    assert printed == "1 entries deleted\n"
    run("memory", "export", "b.csv")
    assert Path("b.csv").read_text() == "engine,version,source,target,text,translation\ngoogle,1,en,de,a,b\n"
    printed = run("memory", "delete", "bad", fails=True).output
    assert "no entries of 'bad'" in printed
    Path("params.yaml").write_text("x")
    printed = run("memory", "import", "params.yaml", fails=True).output
    assert "line 1: expected the columns" in printed


def test_killed_at_any_moment_it_goes_on_where_it_was(project: Project) -> None:
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
        whole = {path: path.read_bytes() for path in outputs}
        texts = len(server.told)
        assert texts > 150
        for path in [*outputs, *Path(".scratch").glob("memory.sqlite*")]:
            path.unlink()
        server.told.clear()
        chance = random.Random(1)
        for killed in range(kills):
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            # Anywhere in what is left of the work: when so many more texts have been told, or while the last files are written.
            goal = chance.randint(killed * texts // kills, (killed + 1) * texts // kills)
            while process.poll() is None and sum(server.told.values()) < goal:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            process.wait()
        subprocess.run(command, env=environment, check=True, capture_output=True)
        # At each kill no more than the texts in flight were lost, one a thread.
        assert sum(server.told.values()) <= texts + 4 * kills
    assert {path: path.read_bytes() for path in outputs} == whole


def test_too_little_coverage_stops_the_stage_with_a_table(project: Project) -> None:
    online(project, "http://127.0.0.1:9")  # nobody listens
    project.change(translate={"allow_network": False})
    run_to("split")
    output = run("translate", "--task", "qc", fails=True).output
    assert "under translate.min_coverage 0.9 in de" in output
    assert "missing" in output
    assert not Path("build/translate/qc/train.parquet").exists()


def test_candidates_are_translated_on_request(project: Project) -> None:
    project.change(translate={"qc": {"source_languages": ["en"], "candidates": "translate", "rows_per_language": 99}})
    run_to("split")
    rows = pd.read_parquet("build/split/qc/train.parquet")
    paths = sorted(set(rows["candidate"]))
    with Path("data/memory.csv").open("a", encoding="utf-8") as handle:
        # One path comes back as it was: the gate refuses it.
        handle.writelines(f'en,de,"{path}","{path if number == 0 else path + " kaufen"}"\n' for number, path in enumerate(paths))
    run("translate", "--task", "qc")
    train = pd.read_parquet("build/translate/qc/train.parquet")
    copies = train[train["origin"] == "translated"].set_index("source_id")
    assert len(copies)
    kept = rows.set_index("id").loc[copies.index, "candidate"]
    assert paths[0] not in set(kept)  # without a good translation the row is left out
    assert (copies["candidate"] == kept + " kaufen").all()


def test_every_query_gets_its_pivot(project: Project) -> None:
    lines = ["source,target,text,translation", "de,en,gartenschlauch dev,garden hose dev", "de,en,abendkleid dev,<b>dress</b>"]
    Path("data/memory.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    project.change(translate={"pivot": "en"})
    run_to("translate")
    dev = pd.read_parquet("build/translate/qc/dev.parquet").set_index("origin_query")["pivot"].to_dict()
    assert dev["gartenschlauch dev"] == "garden hose dev"
    assert dev["garden hose dev"] == "garden hose dev"  # is in the pivot language
    assert dev["abendkleid dev"] == ""  # refused by the gate: the prompt falls back on the query
    counts = json.loads(Path("metrics/translate/qc.json").read_text())["pivot"]["dev"]["de"]
    assert counts["refused"]["markup"] == 1
