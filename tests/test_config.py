"""params.yaml: what is wrong is named by its key, with what was found and what is accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from babelcart import config
from babelcart.errors import UserError

SHIPPED = (Path(__file__).parent.parent / "params.yaml").read_text(encoding="utf-8")

WRONG = [
    ("batch_size: 32", "batch_sise: 32", "unknown key train.batch_sise; accepted: epochs"),
    ("batch_size: 32", "batch_size: 0", "train.batch_size is 0; accepted: 1 to 65536"),
    ("batch_size: 32", "batch_size: many", "train.batch_size is 'many'; accepted: a whole number"),
    ("batch_size: 32", "batch_size: true", "train.batch_size is True; accepted: a whole number"),
    ("learning_rate: 5.0e-4", "learning_rate: .nan", "train.learning_rate is nan; accepted: a number"),
    ("strategy: easy", "strategy: eazy", "negatives.strategy is 'eazy'; accepted: one of 'none', 'easy'"),
    ("threshold: best_f1", "threshold: best", "evaluate.threshold is 'best'; accepted: a number or one of 'best_f1'"),
    ("threshold: best_f1", "threshold: 1.5", "evaluate.threshold is 1.5; accepted: 0 to 1"),
    ("  - qi\n", "  - qx\n", r"tasks\[1\] is 'qx'; accepted: one of 'qc', 'qi'"),
    ("run:\n  - gemma3-270m", "run:\n  - gemma4", "no model 'gemma4'; models: has"),
    ("max_broken_rows: 0", "max_broken_rows: -1", "prepare.max_broken_rows is -1"),
    ("data:\n", "date:\n", "unknown key date"),
    ("      revision: 96b6f1eccf38110c56df3a15bffe176da04bfd80\n", "", "models.gemma3-12b.weights.revision is missing"),
    ("      random: gemma3_text\n", "", "models.tiny.weights needs exactly one of packages, repo, random"),
    ("    dtype: float32", "    dtype: float16", "models.tiny.dtype is 'float16'; accepted: one of 'float32', 'bfloat16'"),
    ("tasks:", "tasks: [", "is not YAML"),
    (SHIPPED, "- 1\n", "the file is"),
    (SHIPPED, "", "the file is None"),
]


def test_the_shipped_file_loads() -> None:
    params = config.load(Path(__file__).parent.parent / "params.yaml")
    assert {"gemma3-270m", "smollm2-135m", "gemma3-12b", "qwen25-14b", "tiny"} <= params.models.keys()
    assert params.models["gemma3-12b"].quantization == "nf4"


@pytest.mark.parametrize(("found", "replaced", "message"), WRONG)
def test_a_wrong_setting_is_named(tmp_path: Path, found: str, replaced: str, message: str) -> None:
    assert found in SHIPPED
    (tmp_path / "params.yaml").write_text(SHIPPED.replace(found, replaced, 1), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        config.load(tmp_path / "params.yaml")


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(SHIPPED.replace("5.0e-4", "1e-4"), encoding="utf-8")
    assert config.load(tmp_path / "params.yaml").train.learning_rate == 1e-4


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="top folder"):
        config.load(tmp_path / "params.yaml")
