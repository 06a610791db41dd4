"""Training a LoRA adapter of gemma3-270m beside other trainers: same base, rows, prompt, adapter, rows a step, rate, schedule.

    pip install datasets && pip install --no-deps trl                # beside the project's own packages
    python -m venv peer && peer/bin/pip install llamafactory         # it needs older ones: an environment of its own
    export PYTHONPATH=. OMP_NUM_THREADS=2
    python benchmarks/training.py --llamafactory peer/bin/python                            # rows of the sample, after `dvc repro`
    python benchmarks/training.py --llamafactory peer/bin/python --data ../shared/real/qc.csv       # or of your own
    python benchmarks/training.py --llamafactory peer/bin/python --quality --rows 3000      # AUC on held-out queries, by seed
    python benchmarks/training.py --instruction benchmarks/instruction.txt                  # 60 words before the prompt
    python benchmarks/training.py --profile --rows 128                                      # where the time of ours goes

* *Trainer*: transformers' Trainer, AutoModelForSequenceClassification and peft, padded to the longest row of a batch.
  *SFTTrainer*: TRL's, with the loss of the completion (one token) alone, whose other logits it does not compute; padded or
  padding-free (a batch as one sequence, of which torch's attention takes a mask; its `packing` does the same but changes the
  rows of a step). *LLaMA-Factory*: its own `run_exp`, stage sft.
* Before the rounds each peer is tried with several settings (`--tune-rows` rows) and keeps the fastest; the first table says
  which. Not among them: Liger's and Unsloth's kernels (Triton: no CPU), torch.compile (`--compile` adds it: minutes each).
* Axolotl 0.19 does not install beside a CPU build of torch (it requires xformers and torchao for CUDA); Unsloth 2026.10 stops at
  import without a GPU ("Unsloth cannot find any torch accelerator").
* rows/s is of the steps after the third; process that of the whole process, from its start to its last step; start the seconds to
  the first step. Memory is the process's peak (VmHWM). Share: `sides.linear_operations` over the packs of ours.
* Speed: base and adapters of all sides in bfloat16, or in float32 on a CPU without instructions for that. `--quality`: ours as in
  speed; peers with float32 adapters, peft's default, at which they learn better. The Trainer's adapters score the held-out rows by their
  own forward pass, all others by ours.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from sides import (
    BASE,
    System,
    in_turns,
    instruction,
    linear_operations,
    load,
    matrix_peak,
    peak_memory,
    precision,
    read_rows,
    report_peak,
    run,
    started,
    table,
    tune,
)

BATCH = 32
RATE = 5e-4
WARMUP = 0.05
SKIPPED = 3  # steps before rows/s are counted
LORA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def peers(llamafactory: str | None, compiled: bool) -> list[System]:
    common: dict[str, list[Any]] = {
        "batch": [16, 8, 32], "attention": ["sdpa", "eager"], "spin": ["20000", ""], "checkpointing": [False, True],
    }  # fmt: skip
    common |= {"compile": [False, True]} if compiled else {}
    start = {"batch": 16, "attention": "sdpa", "spin": "20000", "checkpointing": False}
    start["adapter"] = str(precision()).removeprefix("torch.")  # the speed of all is that of adapters in the base's dtype
    sampler = {"sampler": ["group_by_length", "batch_rebalance", "random"]}
    padding = {"padding_free": [False, True]}
    found = [
        System("Trainer", {**start, "sampler": "group_by_length"}, common | sampler),
        System("SFTTrainer", {**start, "sampler": "group_by_length", "padding_free": False}, padding | common | sampler),
    ]
    if llamafactory:
        # In float32: it takes no bfloat16 on a CPU ("This device does not support `pure_bf16`").
        own = {**start, "sampler": "group_by_length", "adapter": "float32"}
        found.append(System("LLaMA-Factory", own, common, llamafactory))
    return found


def load_with_rows(data: Path, task: str, count: int, held: int) -> Any:
    """Settings of the model, its encoder, rows to train on and to hold out."""
    return *load(task), *read_rows(data, count, held)


def labels(rows: Any) -> list[int]:
    return rows["label"].astype(int).tolist()


def auc(rows: Any, scores: Any) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels(rows), scores))


def figures(ends: list[float], steps: list[int]) -> dict[str, float]:
    """From the start of the first step, the end of every step, and the rows of each."""
    assert len(ends) == len(steps) + 1
    skipped = min(SKIPPED, len(steps) - 1)
    return {
        "steady": sum(steps[skipped:]) / (ends[-1] - ends[skipped]),
        "process": sum(steps) / (ends[-1] - started()),
        "start": ends[0] - started(),
        "memory": peak_memory(),
    }


def ours(data: Path, task: str, count: int, held: int, seed: int, settings: dict[str, Any]) -> dict[str, float]:
    from babelcart import plan
    from babelcart.model import loading, scoring
    from babelcart.training import loop

    block, encoder, train, out = load_with_rows(data, task, count, held)
    model = loading.add_adapter(loading.load_base(BASE, block), block, seed)
    asked = loop.TrainSettings(batch_size=BATCH, learning_rate=RATE, warmup_ratio=WARMUP, lr_scheduler_type="linear", seed=seed)
    rows = encoder.encode_table(train)
    ends = [time.time()]
    loop.train(
        model, loop.LabelledRows(rows, labels(train)), encoder.labels, asked, RATE, log=lambda *_: ends.append(time.time())
    )  # fmt: skip
    packs = plan.training_packs(rows, asked)
    found = figures(ends, [sum(map(len, step)) for step in packs])
    work = plan.count_work(pack for step in packs for pack in step)
    found["flops"] = linear_operations(model.get_base_model().get_decoder(), work.rows, work.tokens, train=True) / work.rows
    if held:
        found["auc"] = auc(out, scoring.score(model, encoder.encode_table(out), encoder.labels, 4096))
    return found


def timer() -> Any:
    """A callback of transformers that keeps when training began and when steps ended."""
    from transformers import TrainerCallback

    class Timer(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.time())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.time())

    return Timer()


def arguments(folder: str, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Those of TrainingArguments."""
    batch = settings["batch"]
    return dict(
        output_dir=folder, num_train_epochs=1, per_device_train_batch_size=batch, gradient_accumulation_steps=BATCH // batch,
        learning_rate=RATE, lr_scheduler_type="linear", warmup_steps=WARMUP, max_grad_norm=1.0, weight_decay=0.0, bf16=False,
        use_cpu=True, save_strategy="no", logging_strategy="no", report_to="none", seed=seed, disable_tqdm=True,
        train_sampling_strategy=settings["sampler"], torch_compile=settings.get("compile", False),
        gradient_checkpointing=settings["checkpointing"],
    )  # fmt: skip


def steps(rows: int) -> list[int]:
    """Rows of each step of transformers' Trainer."""
    return [min(BATCH, rows - start) for start in range(0, rows, BATCH)]


def lora(block: Any, base: Any, task_type: str, settings: dict[str, Any]) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=block.r, lora_alpha=block.lora_alpha, target_modules=LORA, task_type=task_type)
    return get_peft_model(base, config, autocast_adapter_dtype=settings["adapter"] == "float32")


def trainer(data: Path, task: str, count: int, held: int, seed: int, settings: dict[str, Any]) -> dict[str, float]:
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, Trainer, TrainingArguments, set_seed

    block, encoder, train, out = load_with_rows(data, task, count, held)
    set_seed(seed)
    base = AutoModelForSequenceClassification.from_pretrained(
        BASE, dtype=precision(), num_labels=2, attn_implementation=settings["attention"]
    )
    base.config.pad_token_id = encoder.tokenizer.pad_token_id
    model = lora(block, base, "SEQ_CLS", settings)

    def dataset(rows: Any) -> Any:
        found = [[*row.query, *row.candidate] for row in encoder.encode_table(rows)]
        return Dataset.from_dict({"input_ids": found, "labels": labels(rows)})

    clock = timer()
    with tempfile.TemporaryDirectory() as folder:
        worker = Trainer(
            model, TrainingArguments(**arguments(folder, seed, settings), per_device_eval_batch_size=64),
            data_collator=DataCollatorWithPadding(encoder.tokenizer), train_dataset=dataset(train), callbacks=[clock],
        )  # fmt: skip
        worker.train()
        found = figures(clock.ends, steps(len(train)))
        if held:
            logits = worker.predict(dataset(out)).predictions
            found["auc"] = auc(out, logits[:, 1] - logits[:, 0])
    return found


def sft_trainer(data: Path, task: str, count: int, held: int, seed: int, settings: dict[str, Any]) -> dict[str, float]:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, set_seed
    from trl import SFTConfig, SFTTrainer

    from babelcart.model import scoring

    block, encoder, train, out = load_with_rows(data, task, count, held)
    set_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=precision(), attn_implementation=settings["attention"])
    model = lora(block, base, "CAUSAL_LM", settings)
    answers = (encoder.labels.negative, encoder.labels.positive)
    found = [[*row.query, *row.candidate] for row in encoder.encode_table(train)]
    whole = [ids + [answers[label]] for ids, label in zip(found, labels(train), strict=True)]
    rows = Dataset.from_dict({"input_ids": whole, "completion_mask": [[0] * len(ids) + [1] for ids in found]})
    clock = timer()
    with tempfile.TemporaryDirectory() as folder:
        asked = SFTConfig(
            **arguments(folder, seed, settings), completion_only_loss=True, padding_free=settings["padding_free"], max_length=None
        )
        worker = SFTTrainer(model, asked, train_dataset=rows, processing_class=encoder.tokenizer, callbacks=[clock])
        worker.train()
    result = figures(clock.ends, steps(len(train)))
    if held:
        del worker  # and what it put around the model's forward pass
        result["auc"] = auc(out, scoring.score(model.to(precision()), encoder.encode_table(out), encoder.labels, 4096))
    return result


def llama_factory(data: Path, task: str, count: int, held: int, seed: int, settings: dict[str, Any]) -> dict[str, float]:
    """Runs in LLaMA-Factory's environment, on the files that `prepare` wrote."""
    import shutil

    from llamafactory.train.tuner import run_exp

    clock = timer()
    folder = Path(settings["folder"])
    asked = arguments(str(folder / "out"), seed, settings)
    asked.pop("gradient_checkpointing")
    if held:
        asked |= {"save_strategy": "steps", "save_steps": 10**6}
    shutil.rmtree(folder / "out", ignore_errors=True)
    run_exp(
        asked
        | {
            "model_name_or_path": str(BASE.resolve()), "stage": "sft", "do_train": True, "finetuning_type": "lora", "lora_rank": 16,
            "lora_alpha": 32, "lora_dropout": 0.0, "lora_target": ",".join(LORA), "dataset": "rows", "template": "empty",
            "dataset_dir": str(folder), "cutoff_len": 512,
            "flash_attn": {"sdpa": "sdpa", "eager": "disabled"}[settings["attention"]],
            "disable_gradient_checkpointing": not settings["checkpointing"], "overwrite_cache": True,
        },
        callbacks=[clock],
    )  # fmt: skip
    return figures(clock.ends, steps(json.loads((folder / "dataset_info.json").read_text())["rows"]["count"]))


def prepare(data: Path, task: str, count: int, held: int, folder: Path) -> None:
    """The rows in the form that LLaMA-Factory reads."""
    _, encoder, train, _ = load_with_rows(data, task, count, held)
    answers = (encoder.prompt.negative, encoder.prompt.positive)
    decoded = [encoder.tokenizer.decode([*row.query, *row.candidate]) for row in encoder.encode_table(train)]
    rows = [{"instruction": text, "input": "", "output": answers[label]} for text, label in zip(decoded, labels(train), strict=True)]
    (folder / "rows.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json", "count": len(rows)}}))


def saved(data: Path, task: str, count: int, held: int, seed: int, settings: dict[str, Any]) -> dict[str, float]:
    """AUC of an adapter that another process wrote."""
    from babelcart.model import loading, scoring

    block, encoder, _, out = load_with_rows(data, task, count, held)
    model = loading.load_adapter(loading.load_base(BASE, block), Path(settings["folder"]) / "out")
    return {"auc": auc(out, scoring.score(model, encoder.encode_table(out), encoder.labels, 4096))}


SIDES = {"ours": ours, "Trainer": trainer, "SFTTrainer": sft_trainer, "LLaMA-Factory": llama_factory, "saved": saved}


def profile(data: Path, task: str, count: int) -> None:
    """Print what share of our training each operation of torch takes, its own time alone."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recorder

    from babelcart.model import loading
    from babelcart.training import loop

    block, encoder, train, _ = load_with_rows(data, task, count, 0)
    model = loading.add_adapter(loading.load_base(BASE, block), block, 0)
    rows = loop.LabelledRows(encoder.encode_table(train), labels(train))
    asked = loop.TrainSettings(batch_size=BATCH, learning_rate=RATE, warmup_ratio=WARMUP, lr_scheduler_type="linear")
    loop.train(model, rows, encoder.labels, asked, RATE)  # the first steps prepare kernels
    with recorder(activities=[ProfilerActivity.CPU], acc_events=True) as found:
        loop.train(model, rows, encoder.labels, asked, RATE)
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in events)
    print("| operation | share | calls |\n|---|---|---|")
    for event in events[:20]:
        print(f"| `{event.key}` | {event.self_cpu_time_total / whole:.1%} | {event.count:,} |")


def measure(systems: list[System], given: list[str], repeats: int) -> None:
    width = json.loads((BASE / "config.json").read_text())
    peaks = [matrix_peak(width["hidden_size"], width["intermediate_size"])]
    results = in_turns(__file__, systems, given, repeats)
    peaks.append(matrix_peak(width["hidden_size"], width["intermediate_size"]))
    peak = report_peak(peaks)
    columns = {"steady": "rows/s", "process": "process, rows/s", "start": "start, s", "memory": "memory, GiB"}
    print(table(results, columns, {"steady": "ours is", "process": "ours is, process"}, peak), flush=True)


def compare_quality(systems: list[System], given: list[str], seeds: int) -> None:
    print("\nAUC on held-out queries\n\n| seed | " + " | ".join(system.name for system in systems) + " |")
    print("|---" * (len(systems) + 1) + "|", flush=True)
    for seed in range(seeds):
        cells = []
        for system in systems:
            found = run(__file__, system, [*given, "--seed", str(seed)])
            if system.name == "LLaMA-Factory" and "failed" not in found:
                found = run(__file__, System("saved", system.settings), [*given, "--seed", str(seed)])
            cells.append(f"{found['auc']:.4f}" if "auc" in found else f"failed: {found['failed']}")
        print(f"| {seed} | {' | '.join(cells)} |", flush=True)


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), default=Path("build/negatives/qc.parquet"), show_default=True)
@click.option("--task", type=click.Choice(["qc", "qi"]), default="qc", show_default=True)
@click.option("--rows", default=1500, show_default=True, help="To train on.")
@click.option("--tune-rows", default=256, show_default=True, help="To try each setting of the peers with; 0: take the first of each.")
@click.option("--repeats", default=3, show_default=True, help="Rounds; with --quality, seeds.")
@click.option("--quality", is_flag=True, help="AUC on --held rows of other queries, instead of speed.")
@click.option("--profile", "profiled", is_flag=True, help="Where the time of ours goes, instead of speed.")
@click.option("--held", default=2000, show_default=True)
@click.option("--llamafactory", help="The Python of an environment that holds LLaMA-Factory.")
@click.option("--compile", "compiled", is_flag=True, help="Try torch.compile on peers too.")
@instruction
@click.option("--only", multiple=True, help="These systems alone.")
@click.option("--system", hidden=True)
@click.option("--settings", default="{}", hidden=True)
@click.option("--seed", default=0, hidden=True)
def main(
    data: Path, task: str, rows: int, tune_rows: int, repeats: int, quality: bool, profiled: bool, held: int, llamafactory: str | None,
    compiled: bool, only: tuple[str, ...], system: str | None, settings: str, seed: int,
) -> None:  # fmt: skip
    held = held if quality else 0
    if system:
        print(json.dumps(SIDES[system](data, task, rows, held, seed, json.loads(settings))))
        return
    if profiled:
        profile(data, task, rows)
        return
    systems = [one for one in [System("ours"), *peers(llamafactory, compiled)] if not only or one.name in only]
    given = ["--data", str(data), "--task", task]
    with tempfile.TemporaryDirectory() as name:
        for one in systems:
            if one.name == "LLaMA-Factory":
                one.settings["folder"] = name
        print(f"{data}, {rows:,} rows, {os.environ.get('OMP_NUM_THREADS', os.cpu_count())} threads, {repeats} rounds\n", flush=True)
        if tune_rows and len(systems) > 1:
            prepare(data, task, tune_rows, 0, Path(name))
            lines = [line for one in systems for line in tune(__file__, one, [*given, "--rows", str(tune_rows)])]
            print("\n".join(["| peer | settings tried | rows/s |", "|---|---|---|", *lines]).replace(f", folder {name}", ""), flush=True)
        prepare(data, task, rows, held, Path(name))
        if quality:
            for one in systems:
                one.settings["adapter"] = "float32"
            compare_quality(systems, [*given, "--rows", str(rows), "--quality", "--held", str(held)], repeats)
        else:
            measure(systems, [*given, "--rows", str(rows)], repeats)


if __name__ == "__main__":
    main()
