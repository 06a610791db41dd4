"""Training: resumed = uninterrupted, however it is divided; each setting does what its name says."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from babelcart.core.errors import UserError
from babelcart.imports import imported_modules
from babelcart.model import loading, prompts, scoring
from babelcart.model.packing import TokenRow, pack_rows
from babelcart.training import loop, optimizer
from babelcart.training.checkpoints import Checkpoints, fingerprint
from babelcart.training.loop import LabelledRows, TrainSettings
from tests.support.imports import ROOT
from tests.support.project import Project, run, run_to
from tests.support.tiny import BLOCK, LABELS, PROMPT, SETTINGS, TEXTS, build, fit, plain

# Cross-entropy of the first steps of SETTINGS without dropout.
TRAJECTORY = [0.4401, 1.0653, 0.1356, 0.2118, 0.0292]


@pytest.mark.parametrize(
    ("capabilities", "expected"), [({"avx2": True, "amx_bf16": False}, "float32"), ({"avx512_bf16": True}, "bfloat16")]
)
def test_a_cpu_without_bfloat16_computes_in_float32(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: Any) -> None:
    monkeypatch.setattr(loading, "device", lambda: "cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    block = dataclasses.replace(BLOCK, dtype="bfloat16")
    assert loading.for_this_cpu(block) == dataclasses.replace(block, dtype=expected)
    assert loading.for_this_cpu(BLOCK) == BLOCK
    monkeypatch.setattr(loading, "device", lambda: "cuda")
    assert loading.for_this_cpu(block) == block


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base")
    build(path, "gemma3_text", adapter=False)
    return path


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_a_run_that_was_stopped_ends_with_the_same_bytes(folder: Path, tmp_path: Path, seed: int) -> None:
    settings = dataclasses.replace(SETTINGS, eval_steps=3, seed=seed)
    whole, expected = fit(folder, settings)
    curve: list[tuple[int, float]] = []
    kept = Checkpoints(tmp_path)
    chance = random.Random(seed)
    stops = sorted(chance.sample(range(1, len(whole.losses)), 3))
    for stop in stops:

        def die(step: int, figures: Any, stop: int = stop) -> None:
            if step >= stop and "train/loss" in figures:
                raise Killed

        with pytest.raises(Killed):
            fit(folder, settings, checkpoints=kept, log=die)
        torch.manual_seed(chance.randrange(1000))  # what another process finds
    history, found = fit(folder, settings, checkpoints=kept, log=lambda step, figures: curve.append((step, sum(figures.values()))))
    assert equal(found, expected)
    assert history == whole
    assert len(curve) == len(whole.losses) + len(whole.evaluations), "the curves lack what was before the stop"


def test_a_broken_checkpoint_is_passed_over(folder: Path, tmp_path: Path) -> None:
    _, expected = fit(folder)
    kept = Checkpoints(tmp_path)
    for broken in ("truncated", "altered", "no record", "no tensors", "half a record"):
        with pytest.raises(Killed):
            fit(folder, checkpoints=kept, log=lambda step, figures: (_ for _ in ()).throw(Killed) if step == 9 else None)
        records = sorted(tmp_path.glob("*.json"))
        assert [record.stem for record in records] == ["00000006", "00000008"]
        newest = records[-1]
        tensors = newest.with_suffix(".safetensors")
        content = tensors.read_bytes()
        if broken == "truncated":
            tensors.write_bytes(content[: len(content) // 2])
        elif broken == "altered":
            tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        elif broken == "no record":
            newest.unlink()
        elif broken == "no tensors":
            tensors.unlink()
        else:
            newest.write_text(newest.read_text()[:20])
        found = kept.load()
        assert found is not None
        assert len(found[1]["losses"]) == 6
        _, resumed = fit(folder, checkpoints=kept)
        assert equal(resumed, expected), broken
        shutil.rmtree(tmp_path)
    assert kept.load() is None


def test_only_the_same_configuration_resumes() -> None:
    script = ROOT / "stages/train.py"
    name = fingerprint(script, SETTINGS, BLOCK, [1, 2])
    assert name == fingerprint(script, dataclasses.replace(SETTINGS), BLOCK, [1, 2])
    others = [
        fingerprint(script, dataclasses.replace(SETTINGS, learning_rate=0.02), BLOCK, [1, 2]),
        fingerprint(script, SETTINGS, dataclasses.replace(BLOCK, r=8), [1, 2]),
        fingerprint(script, SETTINGS, BLOCK, [2, 1]),
    ]
    assert len({name, *others}) == 4


def test_losses_do_not_depend_on_how_a_step_is_divided(folder: Path) -> None:
    losses = [torch.tensor(fit(folder, dataclasses.replace(SETTINGS, max_tokens=size), plain())[0].losses) for size in (20, 60, 10_000)]
    torch.testing.assert_close(losses[0], losses[2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses[1], losses[2], rtol=1e-4, atol=1e-5)


def test_the_first_losses_are_those_that_were_written_down(folder: Path) -> None:
    history, _ = fit(folder, block=plain())
    assert history.losses[:5] == pytest.approx(TRAJECTORY, abs=2e-3)
    assert history.losses[-1] < history.losses[0] / 2


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_halves_the_budget_and_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError) -> None:
    expected = fit(folder, block=plain())[0]
    real = loading.label_logits
    limit = 85

    def small(model: Any, pack: Any, labels: Any) -> torch.Tensor:
        logits = real(model, pack, labels)
        if pack.input_ids.shape[1] > limit:
            logits.sum().backward()  # gradients of a step that does not come to its end
            raise error
        return logits

    monkeypatch.setattr(loop, "label_logits", small)
    history, _ = fit(folder, block=plain())
    assert history.max_tokens <= limit < SETTINGS.max_tokens
    torch.testing.assert_close(torch.tensor(history.losses), torch.tensor(expected.losses), rtol=1e-4, atol=1e-5)
    limit = 1
    with pytest.raises(UserError, match=r"out of memory with a single row of .* gradient_checkpointing"):
        fit(folder, block=plain())


def test_scoring_survives_out_of_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, encoder = build(folder, "gemma3_text")
    rows = [encoder.encode(*row) for row in TEXTS]
    expected = scoring.score(model, rows, encoder.labels, 4096)
    real = loading.label_logits

    def small(model: Any, pack: Any, labels: Any) -> torch.Tensor:
        if pack.input_ids.shape[1] > 85:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(model, pack, labels)

    monkeypatch.setattr(scoring, "label_logits", small)
    torch.testing.assert_close(torch.tensor(scoring.score(model, rows, encoder.labels, 4096)), torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_another_error_is_not_taken_for_one_of_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "label_logits", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        fit(folder)


def test_the_best_adapter_is_kept_and_training_stops_early(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aucs = iter([0.6, 0.8, 0.7, 0.8, 0.5, 0.9])
    monkeypatch.setattr(loop, "quality", lambda *_: {"auc": next(aucs), "f1": 0.5})
    settings = dataclasses.replace(SETTINGS, eval_steps=2, early_stopping_patience=3)
    history, found = fit(folder, settings, plain())
    assert [one["auc"] for one in history.evaluations] == [0.6, 0.8, 0.7, 0.8, 0.5]
    assert (len(history.losses), history.best_step) == (10, 4)
    # Learning at a constant rate, four steps are four steps, however many were planned.
    constant = dataclasses.replace(SETTINGS, lr_scheduler_type="constant", warmup_ratio=0.0)
    aucs = iter([0.6, 0.8, *[0.1] * 20])
    _, best = fit(folder, dataclasses.replace(constant, eval_steps=2), plain())
    _, short = fit(folder, dataclasses.replace(constant, max_rows=sum(map(len, steps(constant)[:4]))), plain())
    assert equal(best, short)
    assert not equal(best, found)


def steps(settings: TrainSettings) -> list[list[int]]:
    rows = [TokenRow((hash(row[1]) % 10**9,), (n,)) for n, row in enumerate(TEXTS)]
    return list(loop.step_order(rows, settings))


def test_validation_with_one_label_says_what_to_set(folder: Path) -> None:
    adapted = loading.add_adapter(loading.load_base(folder, BLOCK), BLOCK, 0)
    rows = [TokenRow((1, 2), (3,))] * 2
    settings = dataclasses.replace(SETTINGS, eval_steps=1)
    with pytest.raises(UserError, match=r"train\.eval_steps to null"):
        loop.train(adapted, LabelledRows(rows, [0, 1]), prompts.LabelTokens(5, 6), settings, 0.1, validation=LabelledRows(rows, [1, 1]))


def test_loss_is_that_of_its_definition(folder: Path) -> None:
    settings = dataclasses.replace(SETTINGS, epochs=1, batch_size=100, class_weight="balanced", label_smoothing_factor=0.2)
    history, _ = fit(folder, settings, plain())
    model = loading.add_adapter(loading.load_base(folder, plain()), plain(), 0)
    encoder = prompts.PromptTokenizer(loading.load_tokenizer(folder), PROMPT)
    log_odds = torch.tensor(scoring.score(model, [encoder.encode(*row) for row in TEXTS], encoder.labels, 4096)).logit()
    expected = 0.0
    for label, value in zip(LABELS, log_odds, strict=True):
        log_p = torch.nn.functional.logsigmoid(torch.stack([-value, value]))
        weight = torch.tensor([7 / 8, 7 / 6], dtype=torch.double)
        expected += float(-0.8 * weight[label] * log_p[label] - 0.1 * (weight * log_p).sum())
    assert history.losses[0] == pytest.approx(expected / 7, rel=1e-4)


def test_balanced_needs_both_labels() -> None:
    assert loop.balanced_weights([0, 1, 1, 1]) == [2.0, 4 / 6]
    with pytest.raises(UserError, match="all rows of the training set have the same label"):
        loop.balanced_weights([1, 1])


def test_each_variant_of_lora_does_its_own(folder: Path) -> None:
    variants = [plain(), plain(use_rslora=True), plain(use_dora=True), plain(loraplus_lr_ratio=8.0)]
    losses = [fit(folder, block=block)[0].losses for block in variants]
    assert all(run[-1] < run[0] for run in losses)
    assert len({round(run[-1], 6) for run in losses}) == 4


def test_gradient_checkpointing_changes_nothing(folder: Path) -> None:
    losses = [fit(folder, block=plain(gradient_checkpointing=on))[0].losses for on in (False, True)]
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_rate_warms_up_and_ends_as_its_schedule_says(schedule: optimizer.Schedule) -> None:
    shares = [optimizer.schedule_factor(step, 100, 0.1, schedule) for step in range(100)]
    assert shares[:10] == sorted(shares[:10])
    assert 0 < shares[0] < 0.1
    assert shares[10] == 1
    assert shares[-1] == 1 if schedule == "constant" else 0 < shares[-1] < 0.02


def test_train_killed_and_started_again_writes_the_same_adapter(project: Project) -> None:
    project.change(train={"epochs": 40, "batch_size": 8, "save_steps": 5, "eval_steps": 20})
    run_to("train")
    adapter = Path("models/tiny/qc/adapter_model.safetensors")
    expected = adapter.read_bytes()
    curves = {path.name: path.read_bytes() for path in Path("plots/tiny/qc_training").rglob("*.tsv")}
    adapter.unlink()
    command = [sys.executable, "-m", "stages.train", "--task", "qc", "--model", "tiny"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    started = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(Path(".scratch/train").glob("*/*.json")) and started.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    ended = started.wait()
    assert ended == -signal.SIGKILL, "it ended before it was killed"
    assert not adapter.exists()
    # Python lists the modules that it imports: the fingerprint of the run covers each one of this project.
    done = subprocess.run([command[0], "-X", "importtime", *command[1:]], env=environment, check=True, capture_output=True, text=True)
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    loaded = {name for name in loaded if name.split(".")[0] in ("babelcart", "stages")}
    covered = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in imported_modules(ROOT / "stages/train.py")}
    assert len(loaded) > 10
    assert loaded <= covered
    assert adapter.read_bytes() == expected
    assert {path.name: path.read_bytes() for path in Path("plots/tiny/qc_training").rglob("*.tsv")} == curves
    # Until dvc has recorded the adapter, its last checkpoint is all there is of the work; then it is in nobody's way for long.
    kept = list(Path(".scratch/train").glob("*/*.safetensors"))
    assert len(kept) == 1
    project.change(train={"epochs": 1})
    run("train", "--task", "qc", "--model", "tiny")
    assert not kept[0].exists(), "a finished run's checkpoint remains after another run"


@pytest.mark.parametrize("family", ["gemma3_text", "qwen2"])
def test_scoring_between_steps_leaves_a_quantised_model_trainable(tmp_path: Path, family: str) -> None:
    """bitsandbytes repacks NF4 weights for inference on some CPUs, and what is repacked lets no gradient through."""
    build(tmp_path, family, adapter=False)
    block = plain(quantization="nf4", dtype="bfloat16")
    model = loading.add_adapter(loading.load_base(tmp_path, block), block, 0)
    encoder = prompts.PromptTokenizer(loading.load_tokenizer(tmp_path), PROMPT)
    pack = pack_rows([encoder.encode(*row) for row in TEXTS])

    def gradients() -> list[torch.Tensor]:
        model.train()
        model.zero_grad()
        loading.label_logits(model, pack, encoder.labels)[:, 1].sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    before = gradients()
    scoring.score(model, [encoder.encode(*row) for row in TEXTS], encoder.labels, 4096)
    after = gradients()
    assert len(before) == len(after) == sum(parameter.requires_grad for parameter in model.parameters())
    assert any(gradient.abs().max() > 0 for gradient in after)
    for one, two in zip(before, after, strict=True):
        torch.testing.assert_close(one, two)
