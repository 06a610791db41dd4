"""Scores equal those of scikit-learn, confidence intervals have their nominal coverage, and degenerate rows are handled."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from babelcart.core.errors import UserError
from babelcart.scores import intervals, metrics
from babelcart.scores.metrics import Decision, Evaluate
from babelcart.scores.slices import reading_order, slice_masks
from tests.support.tables import table

ROWS = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.3, 0.30001, 0.5, 0.99, 1.0])), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(ROWS, st.sampled_from([0.0, 0.3, 0.4, 1.0]))
def test_scores_equal_those_of_scikit_learn(pairs: list[tuple[int, float]], threshold: float) -> None:
    label, probability = (np.array(column) for column in zip(*pairs, strict=True))
    scores, predicted = metrics.compute_scores(label, probability, threshold), probability >= threshold
    for name in ("f1", "precision", "recall"):
        assert scores[name] == pytest.approx(getattr(sklearn, f"{name}_score")(label, predicted, zero_division=0), abs=1e-5)
    assert scores["brier"] == pytest.approx(sklearn.brier_score_loss(label, probability, pos_label=1), abs=1e-5)
    assert scores["floor_f1"] == pytest.approx(sklearn.f1_score(label, np.ones(len(label)), zero_division=0), abs=1e-5)
    assert 0 <= scores["ece"] <= 1
    if len(set(label)) == 2:
        assert scores["auc"] == pytest.approx(sklearn.roc_auc_score(label, probability), abs=1e-5)
        assert scores["average_precision"] == pytest.approx(sklearn.average_precision_score(label, probability), abs=1e-5)
    else:
        assert "auc" not in scores


@pytest.mark.parametrize("invalid", [np.nan, np.inf, -0.1, 1.1])
def test_invalid_probabilities_are_refused(invalid: float) -> None:
    with pytest.raises(UserError, match="1 of 3 probabilities are not finite numbers from 0 to 1"):
        metrics.compute_scores(np.array([0, 1, 1]), np.array([0.1, invalid, 0.9]), 0.5)
    with pytest.raises(UserError, match="no rows"):
        metrics.compute_scores(np.array([]), np.array([]), 0.5)


@settings(max_examples=50, deadline=None)
@given(ROWS, st.integers(0, 2**31))
def test_weighted_scores_equal_scores_of_resampled_rows(pairs: list[tuple[int, float]], seed: int) -> None:
    label, probability = (np.array(column) for column in zip(*pairs, strict=True))
    query = np.random.default_rng(seed).integers(0, 4, len(label))
    masks = {"all": np.ones(len(label), dtype=bool), "even": np.arange(len(label)) % 2 == 0}
    predicted = (probability >= 0.3).astype(int)
    drawn = intervals.bootstrap(label, probability, predicted, query, masks, draws=5, seed=seed)
    generator, query_index = np.random.default_rng(seed), pd.factorize(query)[0]
    queries = query_index.max() + 1
    for draw in range(5):
        resampled = np.concatenate([np.flatnonzero(query_index == index) for index in generator.integers(queries, size=queries)])
        for name, mask in masks.items():
            rows = resampled[mask[resampled]]
            if label[rows].sum() + predicted[rows].sum():
                assert drawn[name]["f1"][draw] == pytest.approx(sklearn.f1_score(label[rows], predicted[rows], zero_division=0))
            else:
                assert np.isnan(drawn[name]["f1"][draw])
            if len(set(label[rows])) == 2:
                assert drawn[name]["auc"][draw] == pytest.approx(sklearn.roc_auc_score(label[rows], probability[rows]))
            else:
                assert np.isnan(drawn[name]["auc"][draw])


def test_intervals_have_their_nominal_coverage() -> None:
    """Labels and scores of a query's rows are correlated, so an interval that draws single rows is too narrow."""

    def simulate(generator: np.random.Generator, queries: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        query = np.repeat(np.arange(queries), 4)
        label = (generator.random(len(query)) < generator.choice([0.2, 0.8], queries)[query]).astype(int)
        score = label + generator.normal(size=queries)[query] + generator.normal(size=len(query))
        return label, score, query

    label, score, _ = simulate(np.random.default_rng(1), 300_000)
    truth = {"f1": sklearn.f1_score(label, score >= 0.5), "auc": sklearn.roc_auc_score(label, score)}
    covered, covered_by_rows = {"f1": 0, "auc": 0}, 0
    for seed in range(1000):
        label, score, query = simulate(np.random.default_rng(seed + 2), 300)
        all_rows = {"all": np.ones(len(label), dtype=bool)}
        predicted = (score >= 0.5).astype(int)
        drawn = intervals.bootstrap(label, score, predicted, query, all_rows, draws=300, seed=seed)["all"]
        for name, score_of_all in truth.items():
            low, high = intervals.interval(drawn[name])  # type: ignore[misc]
            covered[name] += low <= score_of_all <= high
        drawn_rows = intervals.bootstrap(label, score, predicted, np.arange(len(label)), all_rows, draws=300, seed=seed)["all"]
        low, high = intervals.interval(drawn_rows["f1"])  # type: ignore[misc]
        covered_by_rows += low <= truth["f1"] <= high
    assert all(930 <= count <= 970 for count in covered.values()), covered
    assert covered_by_rows < 900, "drawing single rows must cover too little here; otherwise this test proves nothing"


def test_an_interval_is_left_out_if_too_many_draws_are_undefined() -> None:
    assert intervals.interval(np.append(np.full(5, np.nan), np.ones(95))) is None
    assert intervals.interval(np.array([])) is None
    summary, _ = metrics.evaluate(table(1).assign(label=1), Decision(0.5, {}), ["en"], Evaluate(bootstrap_draws=20))
    assert "auc" not in summary["overall"]
    assert "auc_low" not in summary["overall"]


def test_the_slices_of_each_group_cover_all_rows_once() -> None:
    rows = table()
    groups = slice_masks(rows.assign(origin="native"), ["en", "fr"])
    assert set(groups) == {"languages", "language", "query_words", "candidates", "origin", "top_category", "grade"}
    for masks in groups.values():
        assert (np.sum(list(masks.values()), axis=0) == 1).all()
    summary, slices = metrics.evaluate(rows, Decision(0.5, {}), ["en", "fr"], Evaluate(bootstrap_draws=50))
    for values in (summary["language"], *slices.values()):
        assert sum(scores["rows"] for scores in values.values()) == len(rows)
    assert summary["seen"]["rows"] + summary["unseen"]["rows"] == summary["overall"]["rows"] == len(rows)
    assert summary["overall"]["f1_low"] < summary["overall"]["f1"] < summary["overall"]["f1_high"]


def test_the_labelled_rows_of_a_partly_labelled_split_are_scored() -> None:
    rows, settings = table(200), Evaluate(bootstrap_draws=50)
    partly = rows.assign(label=rows["label"].astype("Int8").mask(np.arange(len(rows)) % 10 == 0))
    partly.loc[partly["language"] == "ja", "label"] = pd.NA
    labelled = partly["label"].notna()
    summary, slices = metrics.evaluate(partly, Decision(0.5, {}), ["en", "ja"], settings)
    expected = metrics.compute_scores(rows["label"][labelled].to_numpy(), rows["probability"][labelled].to_numpy(), 0.5)
    assert summary["overall"].items() >= {**expected, "all_rows": len(rows)}.items()
    assert set(summary["language"]) == {"de", "en", "fr"}, "a slice without labels has no scores"
    assert summary["language"]["de"]["all_rows"] == (rows["language"] == "de").sum()
    # A missing label does not move the other rows of its query to another slice.
    groups = slice_masks(rows, ["en", "ja"])
    for group, values in slices.items():
        assert {name: scores["rows"] for name, scores in values.items()} == {
            name: (mask & labelled).sum() for name, mask in groups[group].items() if (mask & labelled).any()
        }
    fully, _ = metrics.evaluate(rows, Decision(0.5, {}), ["en"], settings)
    assert "all_rows" not in fully["overall"]


def test_grades_are_a_group_if_there_are_few_of_them() -> None:
    rows = table()
    _, slices = metrics.evaluate(rows, Decision(0.5, {}), ["en"], Evaluate(bootstrap_draws=0))
    assert set(slices["grade"]) == {"Exact", "Partial", "Irrelevant"}
    for grade, scores in slices["grade"].items():
        of_grade = rows[rows["grade"] == grade]
        assert scores["predicted_share"] == (of_grade["probability"] >= 0.5).mean()
    assert slices["grade"]["Exact"]["positive_share"] == 1
    assert slices["grade"]["Exact"]["recall"] == slices["grade"]["Exact"]["predicted_share"]
    some = rows.assign(grade=rows["grade"].where(rows["language"] == "de", ""))
    assert "no grade" in slice_masks(some, ["en"])["grade"]
    for grades in ([""] * len(rows), ["3"] * len(rows), [str(n % 21) for n in range(len(rows))]):
        assert "grade" not in slice_masks(rows.assign(grade=grades), ["en"])
    assert {"grade", "top_category"} & slice_masks(rows.drop(columns=["grade", "levels"]), ["en"]).keys() == set()
    assert "top_category" not in slice_masks(rows.assign(levels=[[]] * len(rows)), ["en"]), "items have no category"
    assert sorted(["10", "2.67", "2", "Exact", "-1"], key=reading_order) == ["-1", "Exact", "2", "2.67", "10"]


def test_equal_probabilities_give_an_auc_of_half() -> None:
    rows = table().assign(probability=0.5)
    summary, _ = metrics.evaluate(rows, metrics.decide(rows, Evaluate()), ["en"], Evaluate(bootstrap_draws=50))
    assert summary["overall"]["auc"] == summary["overall"]["auc_low"] == summary["overall"]["auc_high"] == 0.5
    assert summary["overall"]["f1"] == summary["overall"]["floor_f1"]


def test_language_thresholds_are_shrunk_towards_the_threshold_of_the_task() -> None:
    rows = table(400)
    rows.loc[rows["language"] == "de", "probability"] **= 3  # German probabilities are too low
    task = metrics.decide(rows, Evaluate()).threshold
    unshrunk = metrics.decide(rows, Evaluate(per_language=True, shrink_rows=0))
    shrunk = metrics.decide(rows, Evaluate(per_language=True, shrink_rows=10**9))
    assert unshrunk.languages["de"] < task
    for language, language_rows in rows.groupby("language"):
        label, probability = language_rows["label"].to_numpy(), language_rows["probability"].to_numpy()
        best = metrics.compute_scores(label, probability, metrics.best_threshold(label, probability))["f1"]
        assert metrics.compute_scores(label, probability, unshrunk.languages[str(language)])["f1"] == pytest.approx(best, abs=1e-5)
        assert shrunk.languages[str(language)] == pytest.approx(task, abs=1e-3)
    fixed = metrics.decide(rows, Evaluate(threshold=0.4, per_language=True))
    assert (fixed.threshold, fixed.languages) == (0.4, {})


def test_temperature_scaling_corrects_overconfidence() -> None:
    generator = np.random.default_rng(0)
    logit = generator.normal(size=4000) * 1.5
    label = (generator.random(4000) < 1 / (1 + np.exp(-logit))).astype(int)
    overconfident = 1 / (1 + np.exp(-3 * logit))
    assert metrics.temperature(label, overconfident) == pytest.approx(3, rel=0.1)
    calibrated = Decision(0.5, {}, metrics.temperature(label, overconfident)).calibrated(overconfident)
    assert metrics.expected_calibration_error(label, calibrated) < 0.5 * metrics.expected_calibration_error(label, overconfident)
    assert sklearn.roc_auc_score(label, calibrated) == pytest.approx(sklearn.roc_auc_score(label, overconfident))


def test_evaluation_and_comparison_import_no_torch() -> None:
    code = "import stages.evaluate, babelcart.commands.compare, babelcart.commands.results, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
