"""params.yaml: what is wrong is named by its key, with what was found and what is accepted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from babelcart.commands import check
from babelcart.core import config
from babelcart.core.errors import UserError
from babelcart.model.loading import ModelSettings
from babelcart.training.loop import TrainSettings
from tests.support.imports import ROOT

SHIPPED = (ROOT / "params.yaml").read_text(encoding="utf-8")

WRONG = [
    ("batch_size: 32", "batch_sise: 32", "unknown key train.batch_sise; accepted: epochs"),
    ("batch_size: 32", "batch_size: 0", "train.batch_size is 0; accepted: 1 to 65536"),
    ("batch_size: 32", "batch_size: many", "train.batch_size is 'many'; accepted: a whole number"),
    ("batch_size: 32", "batch_size: true", "train.batch_size is True; accepted: a whole number"),
    ("learning_rate: 5.0e-4", "learning_rate: .nan", "train.learning_rate is nan; accepted: a number"),
    ("strategy: easy", "strategy: eazy", "negatives.qc.strategy is 'eazy'; accepted: one of 'none', 'easy'"),
    ("threshold: best_f1", "threshold: best", "evaluate.threshold is 'best'; accepted: a number or one of 'best_f1'"),
    ("threshold: best_f1", "threshold: 1.5", "evaluate.threshold is 1.5; accepted: 0 to 1"),
    ("  - qi\n", "  - qx\n", "tasks[1] is 'qx'; accepted: one of 'qc', 'qi'"),
    ("run:\n  - gemma3-270m", "run:\n  - gemma4", "no models.gemma4; models: has gemma3-270m"),
    ("max_broken_rows: 0", "max_broken_rows: -1", "prepare.max_broken_rows is -1"),
    ("data:\n", "date:\n", "unknown key date"),
    ("      revision: 96b6f1eccf38110c56df3a15bffe176da04bfd80\n", "", "models.gemma3-12b.weights: revision is missing"),
    ("      random: gemma3_text\n", "", "models.tiny.weights: needs exactly one of packages, repo, random"),
    ("    dtype: float32", "    dtype: float16", "models.tiny.dtype is 'float16'; accepted: one of 'float32', 'bfloat16'"),
    ("tasks:", "tasks: [", "is not YAML"),
    (SHIPPED, "- 1\n", "the file is"),
    (SHIPPED, "", "the file is None"),
    ("  tiny:", "  ../tiny:", "a model is named '../tiny'; accepted: letters"),
    ("  tiny:", "  translate:", "a model is named 'translate'"),
]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Result]:
    """Write params.yaml into an empty folder and check it."""

    def run(text: str) -> Result:
        (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
        return CliRunner().invoke(check.main)

    monkeypatch.chdir(tmp_path)
    return run


def test_the_shipped_file_is_right(write: Callable[[str], Result]) -> None:
    assert write(SHIPPED).exit_code == 0
    shipped = config.load("models", dict[str, ModelSettings])
    assert {"gemma3-270m", "smollm2-135m", "qwen25-05b", "gemma3-12b", "qwen25-14b", "tiny"} <= shipped.keys()
    assert shipped["gemma3-12b"].quantization == "nf4"


@pytest.mark.parametrize(("found", "replaced", "message"), WRONG)
def test_a_wrong_setting_is_named(write: Callable[[str], Result], found: str, replaced: str, message: str) -> None:
    assert found in SHIPPED
    result = write(SHIPPED.replace(found, replaced, 1))
    assert result.exit_code == 1
    assert message in result.output


def test_numbers_are_read_as_dvc_reads_them(write: Callable[[str], Result]) -> None:
    assert write(SHIPPED.replace("5.0e-4", "1e-4")).exit_code == 0
    assert config.load("train", TrainSettings).learning_rate == 1e-4


def test_a_missing_file_says_where_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="top folder"):
        config.read_params()
