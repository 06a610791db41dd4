"""Compare the training of a LoRA adapter of gemma3-270m to other trainers: same base, rows, prompt, adapter, rows per step, learning rate.

    pip install datasets && pip install --no-deps trl                # in addition to the project's own packages
    python -m venv peer && peer/bin/pip install llamafactory         # needs older packages, so it gets its own environment
    export PYTHONPATH=. OMP_NUM_THREADS=2
    python benchmarks/training.py --llamafactory peer/bin/python                                # rows of the sample, after `dvc repro`
    python benchmarks/training.py --llamafactory peer/bin/python --data FOLDER/qc.csv           # rows of your own
    python benchmarks/training.py --llamafactory peer/bin/python --quality --rows 3000          # AUC on held-out queries, by seed
    python benchmarks/training.py --instruction benchmarks/instruction.txt                      # 60 words before the prompt
    python benchmarks/training.py --profile --rows 128                                          # time of Babelcart by operation

Systems:

* *Trainer*: transformers' Trainer with AutoModelForSequenceClassification and peft, padded to the longest row of a batch.
* *SFTTrainer*: that of TRL. Its loss is that of the completion (one token), and it does not compute other logits. It is tried padded and
  padding-free, with a batch as one sequence for which torch's attention takes a mask. Its `packing` does the same, but changes the rows of
  a step.
* *LLaMA-Factory*: its own `run_exp`, stage sft.

These systems are missing: the kernels of Liger and Unsloth need Triton, which has no CPU backend. torch.compile is only tried with
`--compile`, because it takes minutes for each setting. Axolotl 0.19 cannot be installed with a CPU build of torch (it requires xformers
and torchao for CUDA). Unsloth 2026.10 stops at import without a GPU ("Unsloth cannot find any torch accelerator").

Method:

* Before the rounds, each peer is tried with several settings on `--tune-rows` rows and keeps the fastest. The first table lists them.
* rows/s covers the steps after the third. *process* covers the complete process from its start to its last step; *start* is the time to
  the first step, in seconds. Memory is the peak of the process (VmHWM).
* The share of the peak is computed from `sides.linear_operations` for the packs of Babelcart.
* Speed: the base model and the adapters of all sides are in bfloat16, or in float32 on a CPU without bfloat16 instructions.
* Quality (`--quality`): Babelcart as for speed; peers with float32 adapters, peft's default, with which they learn better. The Trainer's
  adapters score the held-out rows with their own forward pass, all others with Babelcart's.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pandas as pd
import sides
from sides import BASE, OURS, System

from babelcart.core.tasks import TASKS

BATCH = 32
RATE = 5e-4
WARMUP = 0.05
SKIPPED_STEPS = 3  # not counted in rows/s
SCORING_TOKENS = 4096
LORA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

Figures = dict[str, float]


@dataclass(frozen=True)
class Work:
    """Rows to train on and to hold out, and the seed.

    Attributes
    ----------
    data : pathlib.Path
    task : str
    rows, held : int
        Approximate numbers of rows; with ``held`` 0, nothing is scored.
    seed : int
    steps : int
        Approximate number of steps to train; 0 for one epoch.
    """

    data: Path
    task: str
    rows: int
    held: int = 0
    seed: int = 0
    steps: int = 0

    def step_sizes(self, rows: int) -> list[int]:
        """Return the rows of each step of transformers' Trainer, for `rows` rows to train on."""
        return [min(BATCH, rows - start) for start in range(0, rows, BATCH)][: self.steps or None]

    def load(self) -> Any:
        """Settings of the model, its tokenizer, the rows to train on, the held-out rows."""
        return *sides.load(self.task), *sides.read_rows(self.data, self.rows, self.held)


def peers(llamafactory: str | None, compiled: bool) -> list[System]:
    """Return the other systems with their first settings and the settings to try."""
    common: dict[str, list[Any]] = {
        "batch": [16, 8, 32], "attention": ["sdpa", "eager"], "spin": ["20000", ""], "checkpointing": [False, True],
    }  # fmt: skip
    common |= {"compile": [False, True]} if compiled else {}
    start: dict[str, Any] = {"batch": 16, "attention": "sdpa", "spin": "20000", "checkpointing": False, "sampler": "group_by_length"}
    start["adapter"] = str(sides.precision()).removeprefix("torch.")  # for speed, all adapters have the dtype of the base
    sampler: dict[str, list[Any]] = {"sampler": ["group_by_length", "batch_rebalance", "random"]}
    padding: dict[str, list[Any]] = {"padding_free": [False, True]}
    systems = [
        System("Trainer", dict(start), common | sampler),
        System("SFTTrainer", {**start, "padding_free": False}, padding | common | sampler),
    ]
    if llamafactory:
        # In float32: on a CPU it refuses bfloat16 ("This device does not support `pure_bf16`").
        systems.append(System("LLaMA-Factory", {**start, "adapter": "float32"}, common, llamafactory))
    return systems


def labels(rows: pd.DataFrame) -> list[int]:
    """Return the labels of rows, 0 or 1."""
    return rows["label"].astype(int).tolist()


def auc(rows: pd.DataFrame, scores: Any) -> float:
    """AUC of scores of rows."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels(rows), scores))


def auc_of(model: Any, tokenizer: Any, held_out: pd.DataFrame) -> float:
    """AUC on held-out rows with Babelcart's forward pass."""
    from babelcart.model import scoring

    return auc(
        held_out, scoring.score(model, tokenizer.encode_table(held_out), tokenizer.labels, scoring.Predict(max_tokens=SCORING_TOKENS))
    )


def measured(ends: Sequence[float], steps: Sequence[int]) -> Figures:
    """Figures of a training.

    Parameters
    ----------
    ends : sequence of float
        The time at which the first step starts, then the time at which each step ends.
    steps : sequence of int
        Rows of each step.
    """
    assert len(ends) == len(steps) + 1
    skipped = min(SKIPPED_STEPS, len(steps) - 1)
    return {
        "steady": sum(steps[skipped:]) / (ends[-1] - ends[skipped]),
        "process": sum(steps) / (ends[-1] - sides.started()),
        "start": ends[0] - sides.started(),
        "memory": sides.peak_memory(),
    }


def our_settings(work: Work) -> Any:
    """Babelcart's settings, equal to those of the peers."""
    from babelcart.training import loop

    max_rows, seed = BATCH * work.steps or None, work.seed
    return loop.TrainSettings(batch_size=BATCH, max_rows=max_rows, learning_rate=RATE, warmup_ratio=WARMUP, seed=seed)


def babelcart(work: Work, settings: dict[str, Any]) -> Figures:
    """Train as the stage `train` does."""
    from babelcart.model import loading
    from babelcart.model.workload import training_workload
    from babelcart.training import loop

    model_settings, tokenizer, train, held_out = work.load()
    model = loading.add_adapter(loading.load_base(BASE, model_settings), model_settings, work.seed)
    train_settings, rows = our_settings(work), tokenizer.encode_table(train)
    ends = [time.time()]
    data = loop.LabelledRows(rows, labels(train))
    trainer = loop.Trainer(model, model_settings, data, tokenizer.labels, train_settings)
    trainer.train(log=lambda *_: ends.append(time.time()))
    figures = measured(ends, [len(step) for step in trainer.steps])
    computed = training_workload(rows, trainer.steps, train_settings.max_tokens)
    decoder = model.get_base_model().get_decoder()
    figures["flops"] = sides.linear_operations(decoder, computed.rows, computed.tokens, train=True) / computed.rows
    if work.held:
        figures["auc"] = auc_of(model, tokenizer, held_out)
    return figures


def timer() -> Any:
    """Return a callback of transformers that records when training starts and when each step ends."""
    from transformers import TrainerCallback

    class Timer(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.time())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.time())

    return Timer()


def arguments(folder: str, work: Work, settings: dict[str, Any]) -> dict[str, Any]:
    """Arguments of transformers' TrainingArguments."""
    batch = settings["batch"]
    return dict(
        output_dir=folder, num_train_epochs=1, max_steps=work.steps or -1, per_device_train_batch_size=batch,
        gradient_accumulation_steps=BATCH // batch, learning_rate=RATE, lr_scheduler_type="linear", warmup_steps=WARMUP,
        max_grad_norm=1.0, weight_decay=0.0, bf16=False,
        use_cpu=True, save_strategy="no", logging_strategy="no", report_to="none", seed=work.seed, disable_tqdm=True,
        train_sampling_strategy=settings["sampler"], torch_compile=settings.get("compile", False),
        gradient_checkpointing=settings["checkpointing"],
    )  # fmt: skip


def lora(model_settings: Any, base: Any, task_type: str, settings: dict[str, Any]) -> Any:
    """Return a base model with an adapter of peft, of the size that the model's block defines."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=model_settings.r, lora_alpha=model_settings.lora_alpha, target_modules=LORA, task_type=task_type)
    return get_peft_model(base, config, autocast_adapter_dtype=settings["adapter"] == "float32")


def trainer(work: Work, settings: dict[str, Any]) -> Figures:
    """Train with transformers' Trainer."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, Trainer, TrainingArguments, set_seed

    model_settings, tokenizer, train, held_out = work.load()
    set_seed(work.seed)
    base = AutoModelForSequenceClassification.from_pretrained(
        BASE, dtype=sides.precision(), num_labels=2, attn_implementation=settings["attention"]
    )
    base.config.pad_token_id = tokenizer.tokenizer.pad_token_id
    model = lora(model_settings, base, "SEQ_CLS", settings)

    def dataset(rows: pd.DataFrame) -> Any:
        ids = [list(row.tokens) for row in tokenizer.encode_table(rows)]
        return Dataset.from_dict({"input_ids": ids, "labels": labels(rows)})

    clock = timer()
    with tempfile.TemporaryDirectory() as folder:
        worker = Trainer(
            model, TrainingArguments(**arguments(folder, work, settings), per_device_eval_batch_size=64),
            data_collator=DataCollatorWithPadding(tokenizer.tokenizer), train_dataset=dataset(train), callbacks=[clock],
        )  # fmt: skip
        worker.train()
        figures = measured(clock.ends, work.step_sizes(len(train)))
        if work.held:
            logits = worker.predict(dataset(held_out)).predictions
            figures["auc"] = auc(held_out, logits[:, 1] - logits[:, 0])
    return figures


def sft_trainer(work: Work, settings: dict[str, Any]) -> Figures:
    """Train with TRL's SFTTrainer."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, set_seed
    from trl import SFTConfig, SFTTrainer

    model_settings, tokenizer, train, held_out = work.load()
    set_seed(work.seed)
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=sides.precision(), attn_implementation=settings["attention"])
    model = lora(model_settings, base, "CAUSAL_LM", settings)
    answers = (tokenizer.labels.negative, tokenizer.labels.positive)
    prompts = [list(row.tokens) for row in tokenizer.encode_table(train)]
    with_answers = [ids + [answers[label]] for ids, label in zip(prompts, labels(train), strict=True)]
    rows = Dataset.from_dict({"input_ids": with_answers, "completion_mask": [[0] * len(ids) + [1] for ids in prompts]})
    clock = timer()
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            **arguments(folder, work, settings), completion_only_loss=True, padding_free=settings["padding_free"], max_length=None
        )
        worker = SFTTrainer(model, config, train_dataset=rows, processing_class=tokenizer.tokenizer, callbacks=[clock])
        worker.train()
    figures = measured(clock.ends, work.step_sizes(len(train)))
    if work.held:
        del worker  # and its wrapper of the model's forward pass
        figures["auc"] = auc_of(model.to(sides.precision()), tokenizer, held_out)
    return figures


def llama_factory(work: Work, settings: dict[str, Any]) -> Figures:
    """Train with LLaMA-Factory, in its own environment, on the files that `prepare` wrote."""
    import shutil

    from llamafactory.train.tuner import run_exp

    clock = timer()
    folder = Path(settings["folder"])
    config = arguments(str(folder / "out"), work, settings)
    config.pop("gradient_checkpointing")
    if work.held:
        config |= {"save_strategy": "steps", "save_steps": 10**6}
    shutil.rmtree(folder / "out", ignore_errors=True)
    run_exp(
        config
        | {
            "model_name_or_path": str(BASE.resolve()), "stage": "sft", "do_train": True, "finetuning_type": "lora", "lora_rank": 16,
            "lora_alpha": 32, "lora_dropout": 0.0, "lora_target": ",".join(LORA), "dataset": "rows", "template": "empty",
            "dataset_dir": str(folder), "cutoff_len": 512,
            "flash_attn": {"sdpa": "sdpa", "eager": "disabled"}[settings["attention"]],
            "disable_gradient_checkpointing": not settings["checkpointing"], "overwrite_cache": True,
        },
        callbacks=[clock],
    )  # fmt: skip
    return measured(clock.ends, work.step_sizes(json.loads((folder / "dataset_info.json").read_text())["rows"]["count"]))


def prepare(work: Work, folder: Path) -> None:
    """Write the rows in the form that LLaMA-Factory reads."""
    _, tokenizer, train, _ = work.load()
    answers = (tokenizer.prompt.negative, tokenizer.prompt.positive)
    decoded = [tokenizer.tokenizer.decode(list(row.tokens)) for row in tokenizer.encode_table(train)]
    rows = [{"instruction": text, "input": "", "output": answers[label]} for text, label in zip(decoded, labels(train), strict=True)]
    (folder / "rows.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json", "count": len(rows)}}))


def saved(work: Work, settings: dict[str, Any]) -> Figures:
    """AUC of the adapter that LLaMA-Factory wrote."""
    from babelcart.model import loading

    model_settings, tokenizer, _, held_out = work.load()
    model = loading.load_adapter(loading.load_base(BASE, model_settings), Path(settings["folder"]) / "out")
    return {"auc": auc_of(model, tokenizer, held_out)}


SIDES: dict[str, Callable[[Work, dict[str, Any]], Figures]] = {
    OURS: babelcart,
    "Trainer": trainer,
    "SFTTrainer": sft_trainer,
    "LLaMA-Factory": llama_factory,
    "saved": saved,
}


def profile(work: Work) -> None:
    """Print the torch operations that take most of Babelcart's training time."""
    from babelcart.model import loading
    from babelcart.training import loop

    model_settings, tokenizer, train, _ = work.load()
    model = loading.add_adapter(loading.load_base(BASE, model_settings), model_settings, 0)
    data, train_settings = loop.LabelledRows(tokenizer.encode_table(train), labels(train)), our_settings(work)
    sides.print_profile(lambda: loop.Trainer(model, model_settings, data, tokenizer.labels, train_settings).train())


def compare_speed(systems: list[System], given: list[str], rounds: int) -> None:
    """Run all systems in turns and print their figures."""
    peaks = [sides.peak_of_model()]
    results = sides.in_turns(__file__, systems, given, rounds)
    peaks.append(sides.peak_of_model())
    peak = sides.report_peak(peaks)
    columns = {"steady": "rows/s", "process": "process, rows/s", "start": "start, s", "memory": "memory, GiB"}
    print(sides.table(results, columns, {"steady": "{} is", "process": "{} is, process"}, peak), flush=True)


def compare_quality(systems: list[System], given: list[str], seeds: int) -> None:
    """Train every system with each seed and print its AUC on the held-out rows."""
    print("\nAUC on held-out queries\n\n| seed | " + " | ".join(system.name for system in systems) + " |")
    print("|---" * (len(systems) + 1) + "|", flush=True)
    for seed in range(seeds):
        cells = []
        for system in systems:
            figures = sides.run(__file__, system, [*given, "--seed", str(seed)])
            if system.name == "LLaMA-Factory" and "failed" not in figures:
                figures = sides.run(__file__, System("saved", system.settings), [*given, "--seed", str(seed)])
            cells.append(f"{figures['auc']:.4f}" if "auc" in figures else f"failed: {figures['failed']}")
        print(f"| {seed} | {' | '.join(cells)} |", flush=True)


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    data: Path
    task: str
    rows: int
    tune_rows: int
    repeats: int
    quality: bool
    profiled: bool
    held: int
    llamafactory: str | None
    compiled: bool
    steps: int
    only: tuple[str, ...]
    system: str | None
    settings: str
    seed: int


def compare(options: Options, work: Work) -> None:
    """Tune the peers, run all systems, print the tables."""
    systems = [System(OURS), *peers(options.llamafactory, options.compiled)]
    systems = [system for system in systems if not options.only or system.name in options.only]
    given = ["--data", str(work.data), "--task", work.task]
    with tempfile.TemporaryDirectory() as folder:
        for system in systems:
            if system.name == "LLaMA-Factory":
                system.settings["folder"] = folder
        print(f"{work.data}, {work.rows:,} rows, {sides.threads()} threads, {options.repeats} rounds\n", flush=True)
        if options.tune_rows and len(systems) > 1:
            prepare(Work(work.data, work.task, options.tune_rows), Path(folder))
            tuning = [*given, "--rows", str(options.tune_rows)]
            lines = [line for system in systems for line in sides.tune(__file__, system, tuning)]
            print(sides.tuning_table(lines).replace(f", folder {folder}", ""), flush=True)
        prepare(work, Path(folder))
        given += ["--rows", str(work.rows), "--steps", str(work.steps)]
        if not options.quality:
            compare_speed(systems, given, options.repeats)
            return
        for system in systems:
            system.settings["adapter"] = "float32"
        compare_quality(systems, [*given, "--quality", "--held", str(work.held)], options.repeats)


@click.command(help=__doc__)
@sides.data_option("build/negatives/qc.parquet")
@click.option("--task", type=click.Choice(TASKS), default="qc", show_default=True, help="Task, for its prompt.")
@click.option("--rows", default=1500, show_default=True, help="Approximate number of rows to train on.")
@click.option("--tune-rows", default=256, show_default=True, help="Rows for each setting of the peers; 0: use the first settings.")
@click.option("--repeats", default=3, show_default=True, help="Number of rounds; with --quality, of seeds.")
@click.option("--steps", default=0, show_default=True, help="Train only this number of steps, drawn from all rows; 0: one epoch.")
@click.option("--quality", is_flag=True, help="Compare AUC on --held rows of other queries instead of speed.")
@click.option("--profile", "profiled", is_flag=True, help="Print the time of Babelcart by operation instead of comparing speed.")
@click.option("--held", default=2000, show_default=True, help="Approximate number of held-out rows, for --quality.")
@click.option("--llamafactory", help="Python interpreter of an environment that contains LLaMA-Factory.")
@click.option("--compile", "compiled", is_flag=True, help="Also try torch.compile on the peers.")
@sides.prompt_options
@click.option("--only", multiple=True, help="Run only this system; repeatable.")
@click.option("--system", hidden=True)
@click.option("--settings", default="{}", hidden=True)
@click.option("--seed", default=0, hidden=True)
def main(**given: Any) -> None:
    options = Options(**given)
    work = Work(options.data, options.task, options.rows, options.held if options.quality else 0, options.seed, options.steps)
    if options.system:
        print(json.dumps(SIDES[options.system](work, json.loads(options.settings))))
    elif options.profiled:
        profile(Work(work.data, work.task, work.rows))
    else:
        compare(options, work)


if __name__ == "__main__":
    main()
