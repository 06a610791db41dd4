"""The recipes in CONTRIBUTING.md: a new stage, engine, model or metric is complete only if its page describes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from ruamel.yaml import YAML

from babelcart import card
from babelcart.scores import intervals, metrics
from babelcart.translation import engines
from babelcart.weights.wheels import Wheel

ROOT = Path(__file__).parents[2]
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
MODELS = YAML(typ="safe").load(ROOT / "params.yaml")["models"]


def literals(hint: Any) -> list[str]:
    """Return the texts that a type hint accepts."""
    return list(get_args(hint)) if get_origin(hint) is Literal else [text for part in get_args(hint) for text in literals(part)]


KINDS = literals(get_type_hints(engines.EngineSettings)["kind"])
SOURCES: dict[str, dict[str, Any]] = {
    "neural": {"packages": (Wheel("name", "1.0", "0" * 64),), "directions": {"en-de": engines.NeuralModel("model", "vocabulary")}},
    "seq2seq": {"repo": "owner/name", "revision": "0" * 40},
    "llm": {"repo": "owner/name", "revision": "0" * 40},
}


def first_column(page: str) -> set[str]:
    """Return the names in backticks in the first column of the tables of a page."""
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    return {name for line in lines if line.startswith("|") for name in re.findall(r"`([^`]+)`", line.split("|")[1])}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_a_row_in_the_architecture_page(stage: str) -> None:
    assert stage in first_column("architecture.md")


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_is_built_and_has_a_row_in_the_translation_page(kind: str, tmp_path: Path) -> None:
    engine = engines.build("name", engines.EngineSettings(kind=kind, **SOURCES.get(kind, {})), tmp_path, timeout=1.0)  # type: ignore[arg-type]
    assert engine.name == "name"
    assert engine.version
    assert engine.max_characters > 0
    assert isinstance(engine, engines.Prompted) == (kind == "llm")
    assert kind in first_column("translation.md")


@pytest.mark.parametrize("model", MODELS)
def test_a_model_has_a_row_in_the_models_page(model: str) -> None:
    assert model in first_column("models.md")


def test_every_metric_is_described_in_the_evaluation_page() -> None:
    page = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    scores = metrics.compute_scores(np.array([0, 1, 1, 0]), np.array([0.2, 0.9, 0.4, 0.6]), 0.5)
    assert [name for name in scores if f"`{name}`" not in page] == []


def test_every_metric_with_an_interval_has_an_identifier_on_the_hub() -> None:
    label, predicted, rows = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 1]), np.ones(4, dtype=bool)
    drawn = intervals.bootstrap(label, np.array([0.2, 0.9, 0.4, 0.6]), predicted, label, {"all": rows}, draws=1)
    assert set(card.HUB_METRICS) == set(intervals.METRICS) == set(drawn["all"])
