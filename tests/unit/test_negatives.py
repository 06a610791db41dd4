"""Negative sampling: no hidden positive ever, counts that add up, exact search, the same rows again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from babelcart.core.errors import UserError
from babelcart.embedding import encoders, search, similarity
from babelcart.negatives import audit, sampling
from babelcart.negatives.sampling import SamplingSettings
from babelcart.rows import taxonomy
from babelcart.rows.text import normalise
from tests.support.project import Project, run, run_to

PATHS = [f"{top},{middle},{leaf}" for top in "abc" for middle in "xy" for leaf in "123"] + ["a,x", "a"]
TITLES = [f"{colour} {noun}" for colour in ("Red", "Blue", "RED ") for noun in ("dog bed", "cat tree", "lamp", "Lamp.")]


@st.composite
def tables(draw: st.DrawFn, task: str) -> pd.DataFrame:
    """Small training sets: queries with any number of positives, candidates in other case, translated copies."""
    pool = PATHS if task == "qc" else TITLES
    made: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 8))):
        for candidate in draw(st.lists(st.sampled_from(pool), min_size=1, max_size=5)):
            for language in draw(st.lists(st.sampled_from(["en", "fr", "de"]), min_size=1, max_size=2, unique=True)):
                origin = "native" if language != "de" else "translated"
                text = f"query {number}" if language == "en" else f"{language} query {number}"
                made.append(
                    {
                        "id": str(len(made)), "group": f"query {number}", "language": language, "origin_query": text, "origin": origin,
                        "candidate": draw(st.sampled_from([candidate, candidate.upper(), f" {candidate}"])),
                        "label": draw(st.sampled_from([0, 1])),
                    }
                )  # fmt: skip
    return pd.DataFrame(made)


def random_vectors(rows: pd.DataFrame, seed: int) -> similarity.Vectors:
    """Random directions, so that similarities of both signs occur."""
    generator = np.random.default_rng(seed)
    queries, candidates = sorted(set(rows["origin_query"])), sorted(set(rows["candidate"]))
    made = [generator.normal(size=(len(texts), 3)).astype(np.float32) for texts in (queries, candidates)]
    one, two = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in made)
    numbers, _ = search.nearest(one, two, len(candidates))
    return similarity.Vectors(
        {text: n for n, text in enumerate(queries)}, {text: n for n, text in enumerate(candidates)}, one, two, numbers
    )


SAMPLINGS = st.builds(
    SamplingSettings, strategy=st.sampled_from(["none", "easy", "hard", "mixed"]), target_share=st.sampled_from([None, 0.0, 0.5, 0.9]),
    per_query=st.integers(0, 2), max_per_query=st.integers(2, 4), easy_ceiling=st.sampled_from([-0.5, 0.2, 1.0]),
    first_rank=st.integers(1, 3), last_rank=st.integers(3, 9), margin=st.sampled_from([0.0, 0.05, 0.5]), siblings=st.booleans(),
)  # fmt: skip


@pytest.mark.parametrize("task", ["qc", "qi"])
@given(data=st.data(), chosen=SAMPLINGS, seed=st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_no_hidden_positive_and_counts_that_add_up(task: str, data: st.DataObject, chosen: SamplingSettings, seed: int) -> None:
    rows = data.draw(tables(task))
    vectors = random_vectors(rows, seed)
    sampled, counts = sampling.sample_negatives(rows, task, chosen, seed, vectors)
    known = rows.groupby("group")["candidate"].agg(lambda found: {normalise(one) for one in found}).to_dict()
    positives = rows[rows["label"] == 1].groupby("group")["candidate"].agg(list).to_dict()
    for row in sampled.itertuples():
        assert row.label == 0
        assert row.candidate in set(rows["candidate"])
        assert normalise(row.candidate) not in known[row.group]  # of the query and of its translations
        for positive in positives.get(row.group, []):
            if task == "qc":
                assert not taxonomy.related(row.candidate, positive)
                assert chosen.siblings or taxonomy.levels(row.candidate)[:-1] != taxonomy.levels(positive)[:-1]
            else:
                assert sampling.word_overlap(row.candidate, positive) < chosen.copy_overlap
            query = vectors.query_vectors[vectors.queries[row.origin_query]]
            candidate, other = (vectors.candidate_vectors[vectors.candidates[text]] for text in (row.candidate, positive))
            if row.origin == "easy":
                assert max(candidate @ query, candidate @ other) <= chosen.easy_ceiling + 1e-6
            else:
                assert candidate @ query <= other @ query - abs(other @ query) * chosen.margin + 1e-6
    assert len(sampled) == sum(counts["made"].values()) == counts["asked"] - counts["short"]
    assert not len(sampled) or sampled.groupby("origin_query").size().max() <= chosen.max_per_query
    assert sampled["id"].is_unique
    message = sampling.shortfall(counts, task, chosen)
    assert (message is None) == (counts["short"] == 0)
    assert message is None or f"negatives.{task}." in message
    assert not sampled.duplicated(["group", "candidate"]).any()
    assert {"none": set(), "easy": {"easy"}, "hard": {"hard"}, "mixed": {"easy", "hard"}}[chosen.strategy] >= set(sampled["origin"])
    again, _ = sampling.sample_negatives(rows, task, chosen, seed, vectors)
    pd.testing.assert_frame_equal(sampled, again)


@given(sizes=st.lists(st.integers(0, 1000), min_size=1, max_size=12), total=st.integers(0, 10_000))
def test_quotas_add_up_and_are_fair(sizes: list[int], total: int) -> None:
    found = sampling.quotas(sizes, total)
    assume(sum(sizes))
    assert sum(found) == total
    assert all(abs(share - total * size / sum(sizes)) < 1 for share, size in zip(found, sizes, strict=True))


@pytest.mark.parametrize(
    ("queries", "candidates", "count"), [(1, 1, 5), (7, 300, 10), (300, 7, 10), (65, 1000, 33), (3, 5, 5), (0, 4, 2), (4, 0, 2)]
)
def test_search_is_exact_whatever_the_blocks(queries: int, candidates: int, count: int) -> None:
    generator = np.random.default_rng(0)
    # Few distinct values: many scores are equal, and the lower number must win.
    one, two = (generator.integers(-2, 3, size=(size, 4)).astype(np.float32) for size in (queries, candidates))
    products = one @ two.T
    expected = np.argsort(-products, axis=1, kind="stable")[:, :count]
    for blocks in ((1024, 8192), (3, 17), (50, 64)):
        for coarse in ("float32", "bfloat16"):
            numbers, scores = search.nearest(one, two, count, query_block=blocks[0], candidate_block=blocks[1], coarse=coarse)
            np.testing.assert_array_equal(numbers, expected)
            np.testing.assert_array_equal(scores, np.take_along_axis(products, expected, axis=1))


@pytest.mark.parametrize("scale", [1.0, 1e-3, 50.0])
def test_a_coarse_first_look_changes_nothing(scale: float) -> None:
    generator = np.random.default_rng(1)
    one, two = (scale * generator.normal(size=(size, 48)).astype(np.float32) for size in (40, 3000))
    two[1500:] = two[:1500] * (1 + generator.normal(size=(1500, 1)).astype(np.float32) * 1e-4)  # near-ties everywhere
    fine = search.nearest(one, two, 25, coarse="float32")
    rough = search.nearest(one, two, 25, coarse="bfloat16", candidate_block=257)
    np.testing.assert_array_equal(fine[0], rough[0])
    np.testing.assert_array_equal(fine[1], rough[1])
    exact = np.sort(one.astype(np.float64) @ two.astype(np.float64).T, axis=1)[:, ::-1][:, :25]
    np.testing.assert_allclose(rough[1], exact, rtol=1e-5, atol=1e-5 * scale**2)


def test_vectors_are_kept_and_do_not_depend_on_what_else_is_asked(tmp_path: Path) -> None:
    texts = ["garden hose", "gartenschlauch", "évier", "手机壳", "a", "x" * 300]
    encoder = encoders.Lexical(texts * 2, 3)
    names, first = encoders.embed_texts(texts, encoder, tmp_path / "v.sqlite", batch_size=2)
    assert names == sorted(texts)
    calls: list[int] = []

    class Counting:
        name = encoder.name

        def encode(self, texts: Sequence[str]) -> np.ndarray:
            calls.append(len(texts))
            return encoder.encode(texts)

    _, again = encoders.embed_texts([*texts, "new"], Counting(), tmp_path / "v.sqlite")
    assert calls == [1]  # the new one alone
    np.testing.assert_array_equal(first, again[[sorted([*texts, "new"]).index(name) for name in names]])


def test_the_audit_finds_what_gives_sampled_rows_away() -> None:
    generator = np.random.default_rng(0)
    words = [f"word{number}" for number in range(40)]
    rows = pd.DataFrame(
        {
            "group": [f"q{n}" for n in range(600)], "origin_query": [f"query {n % 97}" for n in range(600)],
            "candidate": [" ".join(generator.choice(words, 3)) for _ in range(600)], "language": generator.choice(["en", "fr"], 600),
        }
    )  # fmt: skip
    alike = audit.shortcut_auc(rows[:300], rows[300:])
    assert all(found["auc"] < 0.6 for found in alike.values())
    odd = rows[300:].assign(candidate=rows["candidate"][300:] + " cheap", language="en")
    found = audit.shortcut_auc(rows[:300], odd)
    assert found["candidate"]["auc"] > 0.95
    assert found["provenance"]["auc"] > 0.6
    assert any("che" in feature or "hea" in feature for feature in found["candidate"]["features"])


@pytest.mark.parametrize("strategy", ["easy", "hard", "mixed"])
def test_the_stage_adds_negatives_of_each_kind(project: Project, strategy: str) -> None:
    block = {
        "strategy": strategy,
        "target_share": None,
        "per_query": 1,
        "max_per_query": 2,
        "easy_ceiling": 0.9,
        "first_rank": 1,
        "last_rank": 9,
        "margin": 0.0,
    }
    project.change(negatives={"qi": block, "encoder": {"kind": "lexical", "dimensions": 8}})
    run_to("translate", "qi")
    run("negatives", "--task", "qi")
    first = Path("build/negatives/qi.parquet").read_bytes()
    table = pd.read_parquet("build/negatives/qi.parquet")
    made = table[table["origin"].isin(["easy", "hard"])]
    counts = json.loads(Path("metrics/negatives/qi.json").read_text())
    assert len(made) == sum(counts["made"].values()) > 0
    assert counts["after"]["negative_share"] > counts["before"]["negative_share"]
    shown = json.loads(Path("build/negatives/qi.examples.json").read_text())
    assert len(shown["positive"]) == min(10, (table["label"] == 1).sum())
    Path("build/negatives/qi.parquet").unlink()
    run("negatives", "--task", "qi")
    assert Path("build/negatives/qi.parquet").read_bytes() == first


@pytest.mark.parametrize(
    ("chosen", "setting"),
    [
        (SamplingSettings(strategy="easy", easy_ceiling=-1.0, target_share=None), "easy_ceiling"),
        (SamplingSettings(strategy="hard", margin=1.0, first_rank=1, target_share=None), "margin"),
        (SamplingSettings(strategy="easy", easy_ceiling=1.0, target_share=0.95, max_per_query=1), "max_per_query"),
    ],
)
def test_what_limits_the_number_is_named(chosen: SamplingSettings, setting: str) -> None:
    rows = pd.DataFrame(
        {
            "id": list("0123"), "group": list("abcd"), "language": "en", "origin_query": list("abcd"), "origin": "native",
            "candidate": ["lamp", "bed", "tree", "hose"], "label": 1,
        }
    )  # fmt: skip
    _, counts = sampling.sample_negatives(rows, "qi", chosen, 0, random_vectors(rows, 1))
    assert counts["short"]
    assert f"negatives.qi.{setting}" in str(sampling.shortfall(counts, "qi", chosen))


def test_an_approximate_search_reports_its_recall(project: Project) -> None:
    pytest.importorskip("faiss")
    block = {"strategy": "hard", "target_share": None, "first_rank": 1, "last_rank": 9, "margin": 0.0}
    project.change(negatives={"qi": block, "exact_limit": 4, "encoder": {"kind": "lexical", "dimensions": 8}})
    run_to("negatives", "qi")
    found = json.loads(Path("metrics/negatives/qi.json").read_text())
    assert 0.5 <= found["search_recall"] <= 1
    project.change(negatives={"exact_limit": 1000})
    run("negatives", "--task", "qi")
    assert "search_recall" not in json.loads(Path("metrics/negatives/qi.json").read_text())


def test_a_missing_optional_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for module in ("faiss", "sentence_transformers"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match="exact_limit"):
        search.approximate_nearest(np.ones((2, 2), np.float32), np.ones((2, 2), np.float32), 1)
    with pytest.raises(UserError, match="pip install"):
        encoders.build_encoder(encoders.EncoderSettings(kind="sentence-transformers"), Path(), list, str(tmp_path)).encode(["a"])


def test_an_encoder_in_a_folder_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    settings = encoders.EncoderSettings(kind="sentence-transformers")
    first = encoders.build_encoder(settings, Path(), list, "model").name
    Path("model/config.json").write_text("{}")
    assert encoders.build_encoder(settings, Path(), list, "model").name != first
    with pytest.raises(UserError, match=r"negatives\.local_model is 'absent', which is not a folder"):
        encoders.build_encoder(settings, Path(), list, "absent")
    with pytest.raises(ValueError, match=r"leave out model and set negatives\.local_model: \./model"):
        encoders.EncoderSettings(kind="sentence-transformers", model="./model")
    with pytest.raises(ValueError, match=r"the encoder needs a model, and negatives\.local_model is None"):
        sampling.NegativesSettings(encoder=settings)


def test_examples_and_report_need_no_vectors() -> None:
    rows = pd.DataFrame(
        {"language": ["en"] * 4, "origin_query": list("abcd"), "candidate": list("wxyz"), "label": [0, 1, 1, 0], "origin": "native"}
    )
    assert audit.training_set_report(rows, rows.iloc[:0], None)["after"]["negative_share"] == 0.5
    assert len(audit.example_rows(rows, rows.iloc[:0], None)["positive"]) == 2
