"""Tests of negative sampling, its audit, the encoders and the search."""

from __future__ import annotations

import json
import sys
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
# The origins of sampled rows that each strategy may produce.
ORIGINS = {"none": set(), "easy": {"easy"}, "hard": {"hard"}, "mixed": {"easy", "hard"}}


@st.composite
def training_sets(draw: st.DrawFn, task: str) -> pd.DataFrame:
    """Small training sets: queries with any number of positives, candidates in other case and spacing, and translated copies."""
    candidates = PATHS if task == "qc" else TITLES
    rows: list[dict[str, Any]] = []
    for query_index in range(draw(st.integers(1, 8))):
        for candidate in draw(st.lists(st.sampled_from(candidates), min_size=1, max_size=5)):
            for language in draw(st.lists(st.sampled_from(["en", "fr", "de"]), min_size=1, max_size=2, unique=True)):
                rows.append(
                    {
                        "id": str(len(rows)),
                        "group": f"query {query_index}",
                        "language": language,
                        "origin_query": f"query {query_index}" if language == "en" else f"{language} query {query_index}",
                        "origin": "native" if language != "de" else "translated",
                        "candidate": draw(st.sampled_from([candidate, candidate.upper(), f" {candidate}"])),
                        "levels": taxonomy.levels(candidate),
                        "grade": "",
                        "label": draw(st.sampled_from([0, 1])),
                    }
                )
    return pd.DataFrame(rows)


def random_vectors(rows: pd.DataFrame, seed: int) -> similarity.Vectors:
    """Vectors of random directions, so that positive and negative similarities occur."""
    generator = np.random.default_rng(seed)
    queries, candidates = sorted(set(rows["origin_query"])), sorted(set(rows["candidate"]))
    normal = [generator.normal(size=(len(texts), 3)).astype(np.float32) for texts in (queries, candidates)]
    query_vectors, candidate_vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in normal)
    neighbours, _ = search.nearest(query_vectors, candidate_vectors, len(candidates))
    query_index, candidate_index = ({text: index for index, text in enumerate(texts)} for texts in (queries, candidates))
    return similarity.Vectors(query_index, candidate_index, query_vectors, candidate_vectors, neighbours)


SAMPLING_SETTINGS = st.builds(
    SamplingSettings,
    strategy=st.sampled_from(["none", "easy", "hard", "mixed"]),
    target_share=st.sampled_from([None, 0.0, 0.5, 0.9]),
    per_query=st.integers(0, 2),
    max_per_query=st.integers(2, 4),
    easy_ceiling=st.sampled_from([-0.5, 0.2, 1.0]),
    first_rank=st.integers(1, 3),
    last_rank=st.integers(3, 9),
    margin=st.sampled_from([0.0, 0.05, 0.5]),
    siblings=st.booleans(),
)


@pytest.mark.parametrize("task", ["qc", "qi"])
@given(data=st.data(), chosen=SAMPLING_SETTINGS, seed=st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_no_sampled_negative_is_a_known_positive_and_the_counts_add_up(
    task: str, data: st.DataObject, chosen: SamplingSettings, seed: int
) -> None:
    rows = data.draw(training_sets(task))
    vectors = random_vectors(rows, seed)
    sampled, counts = sampling.sample_negatives(rows, task, chosen, seed, vectors)
    known = rows.groupby("group")["candidate"].agg(lambda candidates: {normalise(candidate) for candidate in candidates}).to_dict()
    positives = rows[rows["label"] == 1].groupby("group")["candidate"].agg(list).to_dict()
    for row in sampled.itertuples():
        assert row.label == 0
        assert row.candidate in set(rows["candidate"])
        assert normalise(row.candidate) not in known[row.group]  # known to the query or to one of its translations
        for positive in positives.get(row.group, []):
            if task == "qc":
                first, second = taxonomy.levels(row.candidate), taxonomy.levels(positive)
                assert tuple(row.levels) == first
                assert not taxonomy.related(first, second)
                assert chosen.siblings or first[:-1] != second[:-1]
            else:
                assert sampling.word_overlap(row.candidate, positive) < chosen.copy_overlap
            (query_vector,) = vectors.of_queries([row.origin_query])
            candidate_vector, positive_vector = vectors.of_candidates([row.candidate, positive])
            if row.origin == "easy":
                assert max(candidate_vector @ query_vector, candidate_vector @ positive_vector) <= chosen.easy_ceiling + 1e-6
            else:
                positive_similarity = positive_vector @ query_vector
                assert candidate_vector @ query_vector <= positive_similarity - abs(positive_similarity) * chosen.margin + 1e-6
    assert len(sampled) == sum(counts["made"].values()) == counts["asked"] - counts["short"]
    assert not len(sampled) or sampled.groupby("origin_query").size().max() <= chosen.max_per_query
    assert sampled["id"].is_unique
    message = sampling.shortfall(counts, task, chosen)
    assert (message is None) == (counts["short"] == 0)
    assert message is None or f"negatives.{task}." in message
    assert not sampled.duplicated(["group", "candidate"]).any()
    assert set(sampled["origin"]) <= ORIGINS[chosen.strategy]
    again, _ = sampling.sample_negatives(rows, task, chosen, seed, vectors)
    pd.testing.assert_frame_equal(sampled, again)


@pytest.mark.parametrize("task", ["qc", "qi"])
@pytest.mark.parametrize("strategy", ["easy", "hard", "mixed"])
@pytest.mark.parametrize("labels", [(1,), (0,), (1, 1), (1, 1, 1, 1, 1, 1)], ids=str)
def test_tiny_and_one_sided_training_sets_are_sampled_or_reported(
    task: str, strategy: Any, labels: tuple[int, ...], tmp_path: Path
) -> None:
    paths = [PATHS[6 * index % len(PATHS)] for index in range(len(labels))]
    rows = pd.DataFrame(
        {
            "id": [str(index) for index in range(len(labels))], "group": [f"query {index}" for index in range(len(labels))],
            "language": "en", "origin_query": [f"query {index}" for index in range(len(labels))], "origin": "native",
            "candidate": paths, "levels": [taxonomy.levels(path) for path in paths], "grade": "", "label": labels,
        }
    )  # fmt: skip
    chosen = SamplingSettings(strategy=strategy, target_share=0.6, first_rank=1, easy_ceiling=1.0)
    vectors = similarity.embed_rows(rows, encoders.EncoderSettings(kind="lexical"), tmp_path, neighbours=chosen.neighbours)
    sampled, counts = sampling.sample_negatives(rows, task, chosen, 0, vectors)
    assert audit.shortcut_auc(rows[rows["label"] == 0], sampled) == {}
    assert len(sampled) == counts["asked"] - counts["short"]
    assert counts["short"] == 0 or "were sampled" in str(sampling.shortfall(counts, task, chosen))
    assert set(sampled["label"]) <= {0}


def test_the_shortcuts_of_a_few_queries_with_many_rows_are_not_measured() -> None:
    rows = pd.DataFrame({"group": ["a", "b"] * 60, "language": "en", "origin_query": "q", "candidate": [f"item {n}" for n in range(120)]})
    assert audit.shortcut_auc(rows, rows) == {}
    natural, sampled = rows.assign(group="a"), rows.assign(group=[f"g{n}" for n in range(120)])
    assert audit.shortcut_auc(natural, sampled) == {}


@given(sizes=st.lists(st.integers(0, 1000), min_size=1, max_size=12), total=st.integers(0, 10_000))
def test_quotas_add_up_and_are_proportional(sizes: list[int], total: int) -> None:
    quotas = sampling.quotas(sizes, total)
    assume(sum(sizes))
    assert sum(quotas) == total
    assert all(abs(quota - total * size / sum(sizes)) < 1 for quota, size in zip(quotas, sizes, strict=True))


@pytest.mark.parametrize(
    ("queries", "candidates", "count"), [(1, 1, 5), (7, 300, 10), (300, 7, 10), (65, 1000, 33), (3, 5, 5), (0, 4, 2), (4, 0, 2)]
)
def test_the_search_is_exact_for_any_block_size_and_type(queries: int, candidates: int, count: int) -> None:
    generator = np.random.default_rng(0)
    # Few distinct values give many equal scores, of which the lower index must come first.
    query_vectors, candidate_vectors = (generator.integers(-2, 3, size=(size, 4)).astype(np.float32) for size in (queries, candidates))
    products = query_vectors @ candidate_vectors.T
    expected = np.argsort(-products, axis=1, kind="stable")[:, :count]
    for query_block, candidate_block in ((1024, 8192), (3, 17), (50, 64)):
        for coarse in ("float32", "bfloat16"):
            indices, scores = search.nearest(
                query_vectors, candidate_vectors, count, query_block=query_block, candidate_block=candidate_block, coarse=coarse
            )
            np.testing.assert_array_equal(indices, expected)
            np.testing.assert_array_equal(scores, np.take_along_axis(products, expected, axis=1))


@pytest.mark.parametrize("scale", [1.0, 1e-3, 50.0])
def test_the_type_of_the_first_pass_does_not_change_the_neighbours(scale: float) -> None:
    generator = np.random.default_rng(1)
    queries, candidates = (scale * generator.normal(size=(size, 48)).astype(np.float32) for size in (40, 3000))
    # Each candidate has a near-duplicate, whose score differs in the last digits only.
    candidates[1500:] = candidates[:1500] * (1 + generator.normal(size=(1500, 1)).astype(np.float32) * 1e-4)
    indices, scores = search.nearest(queries, candidates, 25, coarse="float32")
    coarse_indices, coarse_scores = search.nearest(queries, candidates, 25, coarse="bfloat16", candidate_block=257)
    np.testing.assert_array_equal(indices, coarse_indices)
    np.testing.assert_array_equal(scores, coarse_scores)
    exact = np.sort(queries.astype(np.float64) @ candidates.astype(np.float64).T, axis=1)[:, ::-1][:, :25]
    np.testing.assert_allclose(coarse_scores, exact, rtol=1e-5, atol=1e-5 * scale**2)


def test_cached_vectors_are_reused_and_do_not_depend_on_other_texts(tmp_path: Path) -> None:
    texts = ["garden hose", "gartenschlauch", "évier", "手机壳", "a", "x" * 300]
    encoder = encoders.Lexical(texts * 2, 3)
    distinct, first = encoders.embed_texts(texts, encoder, tmp_path / "v.sqlite", batch_size=2)
    assert distinct == sorted(texts)
    batch_sizes: list[int] = []

    class CountingEncoder:
        name = encoder.name

        def encode(self, texts: Sequence[str]) -> np.ndarray:
            batch_sizes.append(len(texts))
            return encoder.encode(texts)

    _, again = encoders.embed_texts([*texts, "new"], CountingEncoder(), tmp_path / "v.sqlite")
    assert batch_sizes == [1]  # only the new text
    np.testing.assert_array_equal(first, again[[sorted([*texts, "new"]).index(text) for text in distinct]])


def test_the_audit_detects_artefacts_of_sampled_rows() -> None:
    generator = np.random.default_rng(0)
    words = [f"word{index}" for index in range(40)]
    rows = pd.DataFrame(
        {
            "group": [f"q{index}" for index in range(600)],
            "origin_query": [f"query {index % 97}" for index in range(600)],
            "candidate": [" ".join(generator.choice(words, 3)) for _ in range(600)],
            "language": generator.choice(["en", "fr"], 600),
        }
    )
    shortcuts = audit.shortcut_auc(rows[:300], rows[300:])
    assert all(shortcut["auc"] < 0.6 for shortcut in shortcuts.values())
    assert audit.shortcut_warnings(shortcuts) == []
    distorted = rows[300:].assign(candidate=rows["candidate"][300:] + " cheap", language="en")
    shortcuts = audit.shortcut_auc(rows[:300], distorted)
    assert shortcuts["candidate"]["auc"] > 0.95
    assert shortcuts["provenance"]["auc"] > 0.6
    assert any("che" in feature or "hea" in feature for feature in shortcuts["candidate"]["features"])
    assert "only the candidate distinguishes" in audit.shortcut_warnings(shortcuts)[0]


@pytest.mark.parametrize("strategy", ["easy", "hard", "mixed"])
def test_the_stage_adds_the_same_negatives_of_each_strategy_in_every_run(project: Project, strategy: str) -> None:
    task_settings = {
        "strategy": strategy,
        "target_share": None,
        "per_query": 1,
        "max_per_query": 2,
        "easy_ceiling": 0.9,
        "first_rank": 1,
        "last_rank": 9,
        "margin": 0.0,
    }
    project.change(negatives={"qi": task_settings, "encoder": {"kind": "lexical", "dimensions": 8}})
    run_to("translate", "qi")
    run("negatives", "--task", "qi")
    first = Path("build/negatives/qi.parquet").read_bytes()
    table = pd.read_parquet("build/negatives/qi.parquet")
    sampled = table[table["origin"].isin(["easy", "hard"])]
    counts = json.loads(Path("metrics/negatives/qi.json").read_text())
    assert len(sampled) == sum(counts["made"].values()) > 0
    assert counts["after"]["negative_share"] > counts["before"]["negative_share"]
    examples = json.loads(Path("build/negatives/qi.examples.json").read_text())
    assert len(examples["positive"]) == min(10, (table["label"] == 1).sum())
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
def test_the_warning_names_the_setting_that_limits_the_number_of_negatives(chosen: SamplingSettings, setting: str) -> None:
    rows = pd.DataFrame(
        {
            "id": list("0123"),
            "group": list("abcd"),
            "language": "en",
            "origin_query": list("abcd"),
            "origin": "native",
            "candidate": ["lamp", "bed", "tree", "hose"],
            "label": 1,
        }
    )
    _, counts = sampling.sample_negatives(rows, "qi", chosen, 0, random_vectors(rows, 1))
    assert counts["short"]
    assert f"negatives.qi.{setting}" in str(sampling.shortfall(counts, "qi", chosen))


def test_an_approximate_search_reports_its_recall(project: Project) -> None:
    pytest.importorskip("faiss", reason="needs faiss: pip install -e '.[ann]'")
    task_settings = {"strategy": "hard", "target_share": None, "first_rank": 1, "last_rank": 9, "margin": 0.0}
    project.change(negatives={"qi": task_settings, "exact_limit": 4, "encoder": {"kind": "lexical", "dimensions": 8}})
    run_to("negatives", "qi")
    counts = json.loads(Path("metrics/negatives/qi.json").read_text())
    assert 0.5 <= counts["search_recall"] <= 1
    project.change(negatives={"exact_limit": 1000})
    run("negatives", "--task", "qi")
    assert "search_recall" not in json.loads(Path("metrics/negatives/qi.json").read_text())


def test_the_message_of_a_missing_optional_package_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("faiss", "sentence_transformers"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"negatives\.exact_limit.*pip install 'babelcart\[ann\]'"):
        search.approximate_nearest(np.ones((2, 2), np.float32), np.ones((2, 2), np.float32), 1)
    with pytest.raises(UserError, match=r"negatives\.encoder.*pip install 'babelcart\[encoders\]'"):
        encoders.build_encoder(encoders.EncoderSettings(kind="sentence-transformers"), Path(), list, str(tmp_path)).encode(["a"])


def test_an_encoder_in_a_folder_is_identified_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    encoder_settings = encoders.EncoderSettings(kind="sentence-transformers")
    first = encoders.build_encoder(encoder_settings, Path(), list, "model").name
    Path("model/config.json").write_text("{}")
    assert encoders.build_encoder(encoder_settings, Path(), list, "model").name != first
    with pytest.raises(UserError, match=r"negatives\.local_model is 'absent', which is not a folder"):
        encoders.build_encoder(encoder_settings, Path(), list, "absent")
    with pytest.raises(ValueError, match=r"leave out model and set negatives\.local_model: \./model"):
        encoders.EncoderSettings(kind="sentence-transformers", model="./model")
    with pytest.raises(ValueError, match=r"the encoder needs a model, and negatives\.local_model is None"):
        sampling.NegativesSettings(encoder=encoder_settings)


def test_the_report_and_the_examples_can_be_written_without_vectors() -> None:
    rows = pd.DataFrame(
        {"language": ["en"] * 4, "origin_query": list("abcd"), "candidate": list("wxyz"), "label": [0, 1, 1, 0], "origin": "native"}
    )
    assert audit.training_set_report(rows, rows.iloc[:0], None)["after"]["negative_share"] == 0.5
    assert len(audit.example_rows(rows, rows.iloc[:0], None)["positive"]) == 2


def test_an_example_whose_similarity_is_zero_shows_zero() -> None:
    rows = pd.DataFrame({"language": ["en"], "origin_query": ["q"], "candidate": ["c"], "label": [1], "origin": "native"})
    query_vector, candidate_vector = np.array([[1, 0]], np.float32), np.array([[0, 1]], np.float32)
    vectors = similarity.Vectors({"q": 0}, {"c": 0}, query_vector, candidate_vector, np.empty((1, 0), np.int64))
    (example,) = audit.example_rows(rows, rows.iloc[:0], vectors)["positive"]
    assert json.dumps(example["similarity"]) == "0.0"
