"""Numbers that decide keep all their digits: thresholds, temperature, the score of the kept adapter. See `test_rules_rounding`."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn import metrics as sklearn

from babelcart import card
from babelcart.model import scoring
from babelcart.model.prefix_cache import PrefixCache, PrefixTree
from babelcart.negatives import audit
from babelcart.scores import metrics
from babelcart.scores.formatting import format_probability
from babelcart.scores.metrics import Decision, Evaluate
from babelcart.training import loop
from tests.support.project import Project, run, run_to
from tests.support.tables import table

# Monotone functions that move probabilities to where a confident model has them; the order of the rows stays.
CONFIDENT = {
    "all above 0.9999": lambda p: 1 - 1e-4 * (1.001 - p) / 2,
    "all above 1 - 1e-12": lambda p: 1 - 1e-12 * (1.001 - p),
    "all below 1e-6": lambda p: 1e-6 * p,
    "all below 1e-200": lambda p: 1e-200 * p,
    "both ends": lambda p: np.where(p < 0.5, 1e-9 * p, 1 - 1e-9 * (1.001 - p)),
    "neighbours of float64": lambda p: 1 - 2.0**-53 * (1 + np.round(50 * (1.001 - p))),
}


def best_f1(rows: pd.DataFrame) -> float:
    """Return the highest F1 of any threshold."""
    label, probability = rows["label"].to_numpy(int), rows["probability"].to_numpy()
    return max(sklearn.f1_score(label, probability >= threshold) for threshold in np.unique(probability))


def stored(decision: Decision) -> Decision:
    """Return the decision as another stage reads it from metrics/."""
    content = {"threshold": decision.threshold, "thresholds": decision.languages, "temperature": decision.temperature}
    return Decision.from_scores(json.loads(json.dumps({"validation": content})))


@pytest.mark.parametrize("shape", CONFIDENT)
def test_a_threshold_separates_the_rows_of_any_confident_model(shape: str) -> None:
    rows = table()
    rows["probability"] = CONFIDENT[shape](rows["probability"].to_numpy())
    decision = stored(metrics.decide(rows, Evaluate()))
    predicted = decision.predict(rows)
    assert sklearn.f1_score(rows["label"], predicted) == best_f1(rows)
    assert 0 < predicted.sum() < len(rows)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=2, max_size=30).filter(lambda rows: any(label for label, _ in rows))
)
def test_a_threshold_separates_any_probabilities(pairs: list[tuple[int, float]]) -> None:
    rows = pd.DataFrame(pairs, columns=["label", "probability"]).assign(language="en")
    for per_language in (False, True):
        decision = stored(metrics.decide(rows, Evaluate(per_language=per_language, shrink_rows=0)))
        assert sklearn.f1_score(rows["label"], decision.predict(rows)) == pytest.approx(best_f1(rows), rel=1e-12)


@pytest.mark.parametrize("shape", CONFIDENT)
def test_the_thresholds_of_languages_separate_the_rows_of_a_confident_model(shape: str) -> None:
    rows = table(200)
    shifted = rows["probability"].where(rows["language"] != "de", rows["probability"] ** 3)
    rows["probability"] = CONFIDENT[shape](shifted.to_numpy())
    decision = stored(metrics.decide(rows, Evaluate(per_language=True, shrink_rows=0)))
    assert set(decision.languages) == {"de", "en", "fr", "ja"}
    for _, language_rows in rows.groupby("language"):
        assert sklearn.f1_score(language_rows["label"], decision.predict(language_rows)) == best_f1(language_rows)


def test_a_fixed_threshold_is_used_with_all_its_digits() -> None:
    rows = table().assign(probability=0.99999949)
    rows.loc[rows["label"] == 1, "probability"] = 0.99999951
    assert stored(metrics.decide(rows, Evaluate(threshold=0.9999995))).predict(rows).tolist() == (rows["label"] == 1).tolist()


@pytest.mark.parametrize("shape", ["all above 0.9999", "all below 1e-6"])
def test_a_confident_model_keeps_its_scores_in_every_stage(project: Project, shape: str) -> None:
    project.change(tasks=["qc"], attack={"rows": 3})
    run_to("predict")
    folder = Path("predictions/tiny/qc")
    generator = np.random.default_rng(0)
    for path in folder.glob("*.parquet"):
        rows = pd.read_parquet(path)
        assert rows["probability"].dtype == np.float64
        noisy = 0.45 * rows["label"].to_numpy(float) + 0.5 * generator.random(len(rows))
        rows.assign(probability=CONFIDENT[shape](noisy)).to_parquet(path)
    run("evaluate", "--task", "qc", "--model", "tiny")
    scores = json.loads(Path("metrics/tiny/qc.json").read_text())
    validation, test = (pd.read_parquet(folder / f"{split}.parquet") for split in ("validation", "test"))
    assert scores["validation"]["overall"]["f1"] == best_f1(validation)
    threshold = scores["validation"]["threshold"]
    expected = (test["probability"] >= threshold).astype(int)
    assert scores["test"]["overall"]["f1"] == sklearn.f1_score(test["label"].to_numpy(int), expected)
    assert scores["test"]["overall"]["auc"] == sklearn.roc_auc_score(test["label"].to_numpy(int), test["probability"])
    run("submit", "--model", "tiny")
    with zipfile.ZipFile("submissions/tiny/submit.zip") as archive:
        predictions = [json.loads(line)["prediction"] for line in archive.read("submit_QC.txt").splitlines()]
    assert predictions == expected.tolist()
    assert 0 < sum(predictions) < len(predictions)
    run("card", "--task", "qc", "--model", "tiny")
    assert f"chosen on the validation set ({format_probability(threshold)})" in Path("models/tiny/qc.md").read_text(encoding="utf-8")
    run("export", "--task", "qc", "--model", "tiny", "--out", "out")
    assert json.loads(Path("out/babelcart.json").read_text())["threshold"] == threshold
    run("baseline", "--task", "qc")
    run("report", "--model", "tiny")
    html = Path("reports/tiny.html").read_text(encoding="utf-8")
    assert json.dumps(test["probability"].tolist(), separators=(",", ":")) in html
    attacked = test.assign(before=test["probability"], after=1 - test["probability"], control=test["probability"], attack="order", answer=1)
    Path("build/attack/tiny").mkdir(parents=True)
    attacked.to_parquet("build/attack/tiny/qc.parquet")
    run("resist", "--task", "qc", "--model", "tiny")
    rates = json.loads(Path("metrics/tiny/qc_attacks.json").read_text())["order"]["to_yes"]
    assert rates["rows"] == len(test) - expected.sum()
    assert rates["control"] == 0


@pytest.mark.parametrize("scale", [1e-6, 1.0, 30.0])
def test_probabilities_are_distinct_up_to_the_limit_of_float64(monkeypatch: pytest.MonkeyPatch, scale: float) -> None:
    difference = torch.linspace(-scale, scale, 101)
    logits = torch.stack([torch.zeros(101), difference], dim=1)
    monkeypatch.setattr(scoring, "run_packs", lambda *args: iter([(list(range(101)), logits)]))
    model, rows, cache = SimpleNamespace(eval=lambda: None), [None] * 101, PrefixCache(PrefixTree())
    probability = scoring.score(model, rows, None, scoring.Predict(), cache=cache)  # type: ignore[arg-type]
    assert (np.diff(probability) > 0).all()
    assert probability == pytest.approx(expit(difference.double().numpy()), rel=1e-12)
    assert ((probability > 0) & (probability < 1)).all()


def test_the_temperature_of_a_confident_model_is_not_limited_by_clipping() -> None:
    generator = np.random.default_rng(0)
    logit = generator.normal(size=4000) * 1.5
    label = (generator.random(4000) < expit(logit)).astype(int)
    overconfident = expit(8 * logit)  # logits up to 40, beyond those of 1e-7 and 1 - 1e-7
    temperature = metrics.temperature(label, overconfident)
    assert temperature == pytest.approx(8, rel=0.1)
    decision = stored(Decision(0.5, {}, temperature))
    assert decision.temperature == temperature
    assert decision.calibrated(np.array([0.0, 1e-12, 0.5, 1 - 1e-12, 1.0])) == pytest.approx(
        expit(np.array([np.log(np.finfo(float).tiny), np.log(1e-12), 0, -np.log(1e-12), np.log(2.0**53)]) / temperature), rel=1e-6
    )


def test_the_kept_adapter_is_chosen_by_unrounded_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two evaluations differ by one pair of 4 million: AUC by 2.5e-7."""
    labels = [0] * 2000 + [1] * 2000
    first = np.linspace(0.1, 0.9, 4000)
    first[[1999, 2000]] = first[[2000, 1999]]  # one pair in the wrong order
    better = np.linspace(0.1, 0.9, 4000)
    for metric in ("auc", "f1"):
        scores = [loop.auc_and_f1(labels, probability)[metric] for probability in (first, better)]
        assert scores[0] < scores[1] == 1
    evaluations = iter([first, better, first])
    monkeypatch.setattr(scoring, "score", lambda *args: next(evaluations))
    trainer: Any = SimpleNamespace(
        model=None, labels=None, history=loop.History(), settings=loop.TrainSettings(), optimizer=SimpleNamespace(working=[])
    )
    for _ in range(3):
        trainer.history.losses.append(0.5)
        loop.Trainer._evaluate(trainer, SimpleNamespace(rows=None, labels=labels))  # type: ignore[arg-type]
    assert trainer.history.best_step == 2
    restored = loop.History(**json.loads(json.dumps(vars(trainer.history))))
    assert restored == trainer.history


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.1 + 1e-16, 0.5, 1 - 1e-16, 1.0])), min_size=2, max_size=60))
def test_the_scores_of_training_equal_those_of_scikit_learn(pairs: list[tuple[int, float]]) -> None:
    labels, probabilities = [0, 1, *(label for label, _ in pairs)], np.array([0.5, 0.5, *(p for _, p in pairs)])
    scores = loop.auc_and_f1(labels, probabilities)
    assert scores["auc"] == pytest.approx(sklearn.roc_auc_score(labels, probabilities), rel=1e-12)
    assert scores["f1"] == best_f1(pd.DataFrame({"label": labels, "probability": probabilities}))


def test_scores_are_not_rounded() -> None:
    rows = table()
    label, probability = rows["label"].to_numpy(), rows["probability"].to_numpy()
    decision = metrics.decide(rows, Evaluate())
    overall = metrics.evaluate(rows, decision, ["en"], Evaluate(bootstrap_draws=20))[0]["overall"]
    predicted = probability >= decision.threshold
    assert overall["f1"] == sklearn.f1_score(label, predicted)
    assert overall["auc"] == sklearn.roc_auc_score(label, probability)
    assert overall["predicted_share"] == predicted.mean()
    for name in ("f1", "auc", "brier", "f1_low", "f1_high", "auc_low", "auc_high"):
        assert overall[name] != round(overall[name], 5)


def test_the_weakest_language_is_chosen_by_unrounded_scores() -> None:
    scores = {"de": {"f1": 0.500001, "floor_f1": 0.4}, "en": {"f1": 0.5000005, "floor_f1": 0.4}, "fr": {"f1": 0.6, "floor_f1": 0.4}}
    assert "weakest in `en`" in card._weakest_language(scores)


def test_a_shortcut_is_reported_by_its_unrounded_auc() -> None:
    over = {"auc": audit.AUC_LIMIT + 1e-9, "features": []}
    assert len(audit.shortcut_warnings({"query": over, "candidate": {**over, "auc": audit.AUC_LIMIT}})) == 1
    generator = np.random.default_rng(0)
    parts = [
        pd.DataFrame({"candidate": [f"{n} {m}" for n, m in generator.integers(0, 40, (61, 2))], "origin_query": "a", "language": "en"})
        for _ in range(2)
    ]
    shortcuts = audit.shortcut_auc(*(part.assign(group=[f"{n % 20}" for n in range(61)]) for part in parts))
    assert any(shortcut["auc"] != round(shortcut["auc"], 5) for shortcut in shortcuts.values())


@pytest.mark.parametrize("probability", [1e-300, 1e-7, 3e-5, 0.00049, 0.0009, 0.9991, 0.99951, 0.99996, 1 - 1e-9, 1 - 2.0**-53])
def test_a_probability_is_never_displayed_as_0_or_1_unless_it_is(probability: float) -> None:
    assert 0 < float(format_probability(probability)) < 1
    assert float(format_probability(probability)) == pytest.approx(probability, rel=0.06)
    assert 1 - float(format_probability(probability)) == pytest.approx(1 - probability, rel=0.06)
