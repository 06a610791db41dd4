"""Training: a resumed run equals an uninterrupted one, packs do not affect the result, and each setting has its effect."""

from __future__ import annotations

import dataclasses
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from babelcart.core.errors import UserError
from babelcart.imports import imported_modules
from babelcart.model import batching, loading, prompts, scoring
from babelcart.model.packing import pack_rows, trie_tokens
from babelcart.training import gradients, loop, optimizer
from babelcart.training import steps as training_steps
from babelcart.training.checkpoints import Checkpoints, fingerprint
from babelcart.training.loop import LabelledRows, TrainSettings
from tests.support.imports import ROOT
from tests.support.project import Project, run, run_to
from tests.support.tiny import LABELS, MODEL_SETTINGS, PROMPT, SETTINGS, TEXTS, build, fit, plain, token_row

# Cross-entropy of the first steps of SETTINGS without dropout.
FIRST_LOSSES = [0.7103, 0.9488, 0.7149, 0.1762, 0.2699]
BFLOAT16 = dataclasses.replace(MODEL_SETTINGS, dtype="bfloat16")


@pytest.mark.parametrize(
    ("capabilities", "expected"), [({"avx2": True, "amx_bf16": False}, "float32"), ({"avx512_bf16": True}, "bfloat16")]
)
def test_a_cpu_without_bfloat16_instructions_uses_float32(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: Any
) -> None:
    monkeypatch.setattr(loading, "device", lambda: "cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert loading.for_this_machine(BFLOAT16) == dataclasses.replace(BFLOAT16, dtype=expected)
    assert loading.for_this_machine(MODEL_SETTINGS) == MODEL_SETTINGS


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_a_gpu_without_bfloat16_instructions_uses_float32(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: Any
) -> None:
    monkeypatch.setattr(loading, "device", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert loading.for_this_machine(BFLOAT16) == dataclasses.replace(BFLOAT16, dtype=expected)


@pytest.mark.parametrize(
    ("version", "value", "message"),
    [
        ("cuda", None, r"12.2 billion parameters runs on the CPU, which takes hours: torch .* is built for CPUs only"),
        ("cuda", "13.0", r"built for CUDA 13.0 and finds no NVIDIA GPU, or the driver is too old"),
        ("hip", "7.1", r"AMD GPUs \(ROCm\) and finds none"),
    ],
)
def test_a_large_model_without_a_gpu_is_told_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, version: str, value: str | None, message: str
) -> None:
    monkeypatch.setattr(loading, "device", lambda: "cpu")
    monkeypatch.setattr(torch.version, version, value)
    assert re.search(message, loading.cpu_warning(12_200_000_000) or "")
    assert loading.cpu_warning(500_000_000) is None
    monkeypatch.setattr(loading, "device", lambda: "cuda")
    assert loading.cpu_warning(12_200_000_000) is None


def test_idle_gpus_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA L4")
    notices = []
    for count in (0, 1, 4):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        notices.append(loading.idle_gpus())
    assert notices == [None, None, "NVIDIA L4 is used; 3 other GPUs are idle. CUDA_VISIBLE_DEVICES chooses another one"]


def test_the_warning_comes_before_the_weights_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loading, "device", lambda: "cpu")
    monkeypatch.setattr(loading, "MANY_PARAMETERS", 1000)
    loading.load_base(folder, plain())
    assert "billion parameters runs on the CPU" in capsys.readouterr().err


class Interrupted(Exception):
    """Simulates the end of the process during training."""


def interrupt_at(stop: int) -> Callable[[int, Mapping[str, float]], None]:
    """Return a log that ends training after a step."""

    def log(step: int, figures: Mapping[str, float]) -> None:
        if step >= stop and "train/loss" in figures:
            raise Interrupted

    return log


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base")
    build(path, "gemma3_text", adapter=False)
    return path


def equal(tensors: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other) for tensor, other in zip(tensors, others, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_a_resumed_run_ends_with_the_same_bytes(folder: Path, tmp_path: Path, seed: int) -> None:
    settings = dataclasses.replace(SETTINGS, eval_steps=3, seed=seed)
    expected_history, expected_adapter = fit(folder, settings)
    curve: list[tuple[int, float]] = []
    checkpoints = Checkpoints(tmp_path)
    generator = random.Random(seed)
    for stop in sorted(generator.sample(range(1, len(expected_history.losses)), 3)):
        with pytest.raises(Interrupted):
            fit(folder, settings, checkpoints=checkpoints, log=interrupt_at(stop))
        torch.manual_seed(generator.randrange(1000))  # a new process has another random state
    history, adapter = fit(folder, settings, checkpoints=checkpoints, log=lambda step, figures: curve.append((step, sum(figures.values()))))
    assert equal(adapter, expected_adapter)
    assert history == expected_history
    assert len(curve) == len(history.losses) + len(history.evaluations), "the curves lack the steps before the interruption"


def cut_in_half(path: Path) -> None:
    """Keep the first half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip_last_bit(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".safetensors", cut_in_half),
        (".safetensors", flip_last_bit),
        (".safetensors", Path.unlink),
        (".json", Path.unlink),
        (".json", cut_in_half),
    ],
)
def test_a_damaged_checkpoint_is_skipped(folder: Path, tmp_path: Path, suffix: str, damage: Callable[[Path], None]) -> None:
    _, expected_adapter = fit(folder)
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(Interrupted):
        fit(folder, checkpoints=checkpoints, log=interrupt_at(9))
    record_paths = sorted(tmp_path.glob("*.json"))
    assert [path.stem for path in record_paths] == ["00000006", "00000008"]
    damage(record_paths[-1].with_suffix(suffix))
    checkpoint = checkpoints.load()
    assert checkpoint is not None
    assert len(checkpoint[1]["losses"]) == 6
    _, adapter = fit(folder, checkpoints=checkpoints)
    assert equal(adapter, expected_adapter)
    shutil.rmtree(tmp_path)
    assert checkpoints.load() is None


def test_only_the_same_configuration_resumes() -> None:
    script = ROOT / "stages/train.py"
    name = fingerprint(script, SETTINGS, MODEL_SETTINGS, [1, 2])
    assert name == fingerprint(script, dataclasses.replace(SETTINGS), MODEL_SETTINGS, [1, 2])
    other_names = [
        fingerprint(script, dataclasses.replace(SETTINGS, learning_rate=0.02), MODEL_SETTINGS, [1, 2]),
        fingerprint(script, SETTINGS, dataclasses.replace(MODEL_SETTINGS, r=8), [1, 2]),
        fingerprint(script, SETTINGS, MODEL_SETTINGS, [2, 1]),
    ]
    assert len({name, *other_names}) == 4


def test_losses_do_not_depend_on_the_size_of_packs(folder: Path) -> None:
    losses = [
        torch.tensor(fit(folder, dataclasses.replace(SETTINGS, max_tokens=max_tokens), plain())[0].losses)
        for max_tokens in (20, 60, 10_000)
    ]
    torch.testing.assert_close(losses[0], losses[2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses[1], losses[2], rtol=1e-4, atol=1e-5)


def test_the_first_losses_equal_the_recorded_ones(folder: Path) -> None:
    history, _ = fit(folder, model_settings=plain())
    assert history.losses[:5] == pytest.approx(FIRST_LOSSES, abs=2e-3)
    assert history.losses[-1] < history.losses[0] / 2


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_training_halves_its_packs_when_memory_runs_out(folder: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError) -> None:
    expected = fit(folder, model_settings=plain())[0]
    label_logits = loading.label_logits
    limit = 85

    def limited_logits(model: Any, pack: Any, labels: Any) -> torch.Tensor:
        logits = label_logits(model, pack, labels)
        if pack.input_ids.shape[1] > limit:
            logits.sum().backward()  # leaves gradients of a step that is not completed
            raise error
        return logits

    monkeypatch.setattr(gradients, "label_logits", limited_logits)
    separate_kernels = dataclasses.replace(SETTINGS, cuda_graphs=False)
    history, _ = fit(folder, separate_kernels, plain())
    assert history.max_tokens <= limit < SETTINGS.max_tokens
    torch.testing.assert_close(torch.tensor(history.losses), torch.tensor(expected.losses), rtol=1e-4, atol=1e-5)
    limit = 1
    with pytest.raises(UserError, match=r"out of memory with a single row of .* gradient_checkpointing"):
        fit(folder, separate_kernels, plain())


def test_a_failed_attempt_releases_its_tensors_before_the_next_one(folder: Path) -> None:
    tokenizer = prompts.PromptTokenizer(loading.load_tokenizer(folder), PROMPT)
    rows = [tokenizer.encode(*text) for text in TEXTS]
    references = []

    def attempt() -> None:
        activation = torch.ones(3)
        references.append(weakref.ref(activation))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError) as raised:
        attempt()
    assert references[0]() is not None
    assert batching.smaller_budget(raised.value, 4096, rows) == trie_tokens(rows) // 2
    assert references[0]() is None


def test_scoring_halves_its_packs_when_memory_runs_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = build(folder, "gemma3_text")
    rows = [tokenizer.encode(*text) for text in TEXTS]
    expected = scoring.score(model, rows, tokenizer.labels, scoring.Predict())
    label_logits = loading.label_logits

    def limited_logits(model: Any, pack: Any, labels: Any, cache: Any) -> torch.Tensor:
        if pack.input_ids.shape[1] > 85:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return label_logits(model, pack, labels, cache)

    monkeypatch.setattr(scoring, "label_logits", limited_logits)
    probability = scoring.score(model, rows, tokenizer.labels, scoring.Predict())
    torch.testing.assert_close(torch.tensor(probability), torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_other_errors_are_not_mistaken_for_a_lack_of_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "label_logits", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        fit(folder)


def test_training_stops_early_and_restores_the_best_adapter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aucs = iter([0.6, 0.8, 0.7, 0.8, 0.5, 0.9])
    monkeypatch.setattr(loop, "auc_and_f1", lambda *_: {"auc": next(aucs), "f1": 0.5})
    settings = dataclasses.replace(SETTINGS, eval_steps=2, early_stopping_patience=3)
    history, stopped_adapter = fit(folder, settings, plain())
    assert [evaluation["auc"] for evaluation in history.evaluations] == [0.6, 0.8, 0.7, 0.8, 0.5]
    assert (len(history.losses), history.best_step) == (10, 4)
    # With a constant learning rate, the first four steps do not depend on the number of steps that follow.
    constant = dataclasses.replace(SETTINGS, lr_scheduler_type="constant", warmup_ratio=0.0)
    aucs = iter([0.6, 0.8, *[0.1] * 20])
    _, best_adapter = fit(folder, dataclasses.replace(constant, eval_steps=2), plain())
    _, adapter_of_four_steps = fit(folder, dataclasses.replace(constant, max_rows=sum(map(len, steps(constant)[:4]))), plain())
    assert equal(best_adapter, adapter_of_four_steps)
    assert not equal(best_adapter, stopped_adapter)


def steps(settings: TrainSettings) -> list[list[int]]:
    """Steps of a run on TEXTS. They depend only on which rows have the same query."""
    rows = [token_row((hash(query) % 10**9,), (row_index,)) for row_index, (_, query, _) in enumerate(TEXTS)]
    return list(training_steps.step_order(rows, settings))


@pytest.mark.parametrize("group_by", ["query", "candidate", "neighbours", "none"])
def test_steps_use_every_row_once_an_epoch_and_keep_groups_together(group_by: training_steps.GroupBy) -> None:
    generator = random.Random(0)
    rows = [token_row((generator.randrange(40),), (generator.randrange(30), 0)) for _ in range(1000)]
    chosen = TrainSettings(epochs=2, batch_size=16, group_by=group_by, seed=3)
    drawn = list(training_steps.step_order(rows, chosen))
    assert drawn == list(training_steps.step_order(rows, chosen))
    assert drawn != list(training_steps.step_order(rows, dataclasses.replace(chosen, seed=4)))
    epochs = [index for step in drawn for index in step]
    assert sorted(epochs[:1000]) == sorted(epochs[1000:]) == list(range(1000))
    assert epochs[:1000] != epochs[1000:]
    assert max(map(len, drawn)) < 16 + 4
    if group_by in ("query", "candidate"):
        steps_of: dict[tuple[int, ...], list[int]] = {}  # the steps of the rows of a query or candidate, in both epochs
        for number, step in enumerate(drawn):
            for index in step:
                steps_of.setdefault(getattr(rows[index], group_by), []).append(number)
        for numbers in steps_of.values():
            assert len(set(numbers)) <= 2 * math.ceil(len(numbers) / 2 / 4), "rows of a group are in different steps"


@pytest.mark.parametrize("group_by", ["query", "candidate", "neighbours"])
def test_a_frequent_query_or_candidate_does_not_fill_a_step(group_by: training_steps.GroupBy) -> None:
    rows = [token_row((number % 30,), (number % 30,)) for number in range(1200)]
    drawn = list(training_steps.step_order(rows, TrainSettings(batch_size=16, group_by=group_by)))
    assert all(len({rows[index].query for index in step}) > 1 for step in drawn)


def test_groups_of_neighbours_share_more_tokens_than_single_rows() -> None:
    generator = random.Random(0)
    paths = [(level, inner, leaf) for level in range(8) for inner in range(8) for leaf in range(8)]
    rows = [token_row((), (*generator.choice(paths), generator.randrange(99))) for _ in range(2000)]
    tokens = {}
    for group_by in ("none", "candidate", "neighbours"):
        drawn = training_steps.step_order(rows, TrainSettings(group_by=group_by))
        tokens[group_by] = sum(trie_tokens([rows[index] for index in step]) for step in drawn)
    assert tokens["neighbours"] < tokens["none"]
    assert tokens["candidate"] <= tokens["none"]


@pytest.mark.parametrize(
    ("max_rows", "epochs", "expected"), [(None, 1, None), (100, 1, None), (50, 0.5, None), (50, 1, "100"), (150, 2, "200")]
)
def test_a_limit_that_leaves_out_rows_is_told(max_rows: int | None, epochs: float, expected: str | None) -> None:
    message = training_steps.limit_message("qc", 100, dataclasses.replace(SETTINGS, max_rows=max_rows, epochs=epochs))
    assert (message is None) == (expected is None)
    assert message is None or f"a part of the {expected} rows" in message


def test_validation_rows_with_one_label_are_refused(folder: Path) -> None:
    adapted = loading.add_adapter(loading.load_base(folder, MODEL_SETTINGS), MODEL_SETTINGS, 0)
    rows = [token_row((1, 2), (3,))] * 2
    settings = dataclasses.replace(SETTINGS, eval_steps=1)
    with pytest.raises(UserError, match=r"train\.eval_steps to null"):
        loop.Trainer(adapted, MODEL_SETTINGS, LabelledRows(rows, [0, 1]), prompts.LabelTokens(5, 6), settings, LabelledRows(rows, [1, 1]))


def test_the_learning_rate_of_a_model_overrides_that_of_train(folder: Path) -> None:
    expected, _ = fit(folder, model_settings=plain())
    overridden, _ = fit(folder, dataclasses.replace(SETTINGS, learning_rate=0.5), plain(learning_rate=SETTINGS.learning_rate))
    assert overridden.losses == expected.losses


def test_the_loss_is_the_weighted_smoothed_cross_entropy(folder: Path) -> None:
    settings = dataclasses.replace(SETTINGS, epochs=1, batch_size=100, class_weight="balanced", label_smoothing_factor=0.2)
    history, _ = fit(folder, settings, plain())
    model = loading.add_adapter(loading.load_base(folder, plain()), plain(), 0)
    tokenizer = prompts.PromptTokenizer(loading.load_tokenizer(folder), PROMPT)
    log_odds = torch.tensor(
        scoring.score(model, [tokenizer.encode(*text) for text in TEXTS], tokenizer.labels, scoring.Predict())
    ).logit()  # (rows,)
    weights = torch.tensor([7 / 8, 7 / 6], dtype=torch.double)
    expected = 0.0
    for label, row_log_odds in zip(LABELS, log_odds, strict=True):
        log_probability = torch.nn.functional.logsigmoid(torch.stack([-row_log_odds, row_log_odds]))  # (2,)
        expected += float(-0.8 * weights[label] * log_probability[label] - 0.1 * (weights * log_probability).sum())
    assert history.losses[0] == pytest.approx(expected / 7, rel=1e-4)


def test_balanced_class_weights_need_both_labels() -> None:
    assert loop.balanced_weights([0, 1, 1, 1]) == [2.0, 4 / 6]
    with pytest.raises(UserError, match="all rows of the training set have the same label"):
        loop.balanced_weights([1, 1])


def test_each_variant_of_lora_trains_differently(folder: Path) -> None:
    variants = [plain(), plain(use_rslora=True), plain(use_dora=True), plain(loraplus_lr_ratio=8.0)]
    losses = [fit(folder, model_settings=variant)[0].losses for variant in variants]
    assert all(variant_losses[-1] < variant_losses[0] for variant_losses in losses)
    assert len({round(variant_losses[-1], 6) for variant_losses in losses}) == 4


def test_gradient_checkpointing_does_not_change_the_losses(folder: Path) -> None:
    losses = [fit(folder, model_settings=plain(gradient_checkpointing=on))[0].losses for on in (False, True)]
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_learning_rate_warms_up_and_follows_its_schedule(schedule: optimizer.Schedule) -> None:
    factors = [optimizer.schedule_factor(step_index, 100, 0.1, schedule) for step_index in range(100)]
    assert factors[:10] == sorted(factors[:10])
    assert 0 < factors[0] < 0.1
    assert factors[10] == 1
    assert factors[-1] == 1 if schedule == "constant" else 0 < factors[-1] < 0.02


def test_train_writes_the_same_adapter_after_it_was_killed(project: Project) -> None:
    project.change(train={"epochs": 40, "batch_size": 8, "save_steps": 5, "eval_steps": 20})
    run_to("train")
    adapter = Path("models/tiny/qc/adapter_model.safetensors")
    expected_adapter, expected_curves = adapter.read_bytes(), read_curves()
    adapter.unlink()
    command = [sys.executable, "-m", "stages.train", "--task", "qc", "--model", "tiny"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(Path(".scratch/train").glob("*/*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    exit_code = process.wait()
    assert exit_code == -signal.SIGKILL, "the process ended before it was killed"
    assert not adapter.exists()
    # Python lists the modules that it imports. The fingerprint of the run must cover all modules of this project, except the package
    # `stages`, which only redirects old names of commands.
    resumed = subprocess.run([command[0], "-X", "importtime", *command[1:]], env=environment, check=True, capture_output=True, text=True)
    imported = {line.split("|")[-1].strip() for line in resumed.stderr.splitlines() if line.startswith("import time:")}
    imported = {name for name in imported if name.split(".")[0] in ("babelcart", "stages")} - {"stages"}
    covered = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in imported_modules(ROOT / "stages/train.py")}
    assert len(imported) > 10
    assert imported <= covered
    assert adapter.read_bytes() == expected_adapter
    assert read_curves() == expected_curves
    # The last checkpoint stays until DVC has recorded the adapter; the next finished run deletes it.
    checkpoints = list(Path(".scratch/train").glob("*/*.safetensors"))
    assert len(checkpoints) == 1
    project.change(train={"epochs": 1})
    run("train", "--task", "qc", "--model", "tiny")
    assert not checkpoints[0].exists(), "the checkpoint of a finished run remains after another run"


def read_curves() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("plots/tiny/qc_training").rglob("*.tsv")}


@pytest.mark.parametrize("family", ["gemma3_text", "qwen2"])
def test_a_quantised_model_can_be_trained_after_scoring(tmp_path: Path, family: str) -> None:
    """On some CPUs, bitsandbytes repacks NF4 weights for inference, and repacked weights do not support gradients."""
    build(tmp_path, family, adapter=False)
    model_settings = plain(quantization="nf4", dtype="bfloat16")
    model = loading.add_adapter(loading.load_base(tmp_path, model_settings), model_settings, 0)
    tokenizer = prompts.PromptTokenizer(loading.load_tokenizer(tmp_path), PROMPT)
    rows = [tokenizer.encode(*text) for text in TEXTS]
    pack = pack_rows(rows)

    def adapter_gradients() -> list[torch.Tensor]:
        model.train()
        model.zero_grad()
        loading.label_logits(model, pack, tokenizer.labels)[:, 1].sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    before = adapter_gradients()
    scoring.score(model, rows, tokenizer.labels, scoring.Predict())
    after = adapter_gradients()
    assert len(before) == len(after) == sum(parameter.requires_grad for parameter in model.parameters())
    assert any(gradient.abs().max() > 0 for gradient in after)
    for gradient_before, gradient_after in zip(before, after, strict=True):
        torch.testing.assert_close(gradient_before, gradient_after)
