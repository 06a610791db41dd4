"""What only a GPU can show: CUDA graphs, and the same bytes from run to run. Skipped without a GPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from babelcart.model import decoder, loading
from babelcart.training.checkpoints import Checkpoints
from tests.support.tiny import MODEL_SETTINGS, SETTINGS, build, fit, plain

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("family", decoder.FAMILIES)
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_cuda_graphs_do_not_change_the_losses(tmp_path: Path, family: str, quantization: str) -> None:
    build(tmp_path, family, adapter=False)
    model_settings = plain(quantization=quantization)
    with_graphs, without = (fit(tmp_path, dataclasses.replace(SETTINGS, cuda_graphs=on), model_settings)[0].losses for on in (True, False))
    torch.testing.assert_close(torch.tensor(with_graphs), torch.tensor(without), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_two_runs_give_the_same_bytes(tmp_path: Path, quantization: str) -> None:
    build(tmp_path, "gemma3_text", adapter=False)
    model_settings = plain(quantization=quantization, dtype="bfloat16")
    (_, first), (_, second) = (fit(tmp_path, model_settings=model_settings) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("model_settings", [plain(), MODEL_SETTINGS], ids=["graphs", "dropout"])
def test_a_resumed_run_ends_with_the_same_bytes(tmp_path: Path, model_settings: loading.ModelSettings) -> None:
    build(tmp_path / "base", "gemma3_text", adapter=False)

    def stop(step: int, figures: dict[str, float]) -> None:
        if step == 9:
            raise KeyboardInterrupt

    _, expected = fit(tmp_path / "base", model_settings=model_settings)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "base", model_settings=model_settings, checkpoints=checkpoints, log=stop)
    _, resumed = fit(tmp_path / "base", model_settings=model_settings, checkpoints=checkpoints)
    assert all(torch.equal(one, other) for one, other in zip(expected, resumed, strict=True))
