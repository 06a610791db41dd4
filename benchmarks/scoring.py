"""Scoring rows with gemma3-270m beside other scorers: same base, same rows, same prompt.

    pip install sentence-transformers
    export PYTHONPATH=. OMP_NUM_THREADS=2
    python benchmarks/scoring.py                                     # rows of the sample, after `dvc repro`
    python benchmarks/scoring.py --data ../shared/real/qc.csv        # or of your own
    python benchmarks/scoring.py --instruction benchmarks/instruction.txt    # 60 words before the prompt

* *classifier*: the loop of the competition's winner, AutoModelForSequenceClassification over padded batches; *causal*: the same with
  AutoModelForCausalLM, padded on the left so that only the last position's logits are asked for; *CrossEncoder*: that of
  sentence-transformers, which sorts by length itself. `predict` of each gets the same rows; ours scores with the adapter in place,
  causal with the same adapter merged, the other two with a head of random weights, which costs the same.
* Before the rounds each peer is tried with several settings (`--tune-rows` rows) and keeps the fastest; the first table says which.
* rows/s is of the scoring, tokens made on the way, after 32 rows to warm up; process that of the whole process, from its start; start
  the seconds to the first row. Memory is the process's peak (VmHWM). Share: `sides.linear_operations` over the packs of ours.
* Apart is the largest difference of a probability from ours, AUC of the rows' labels: for systems with the adapter.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from sides import (
    BASE,
    MODEL,
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
    started,
    table,
    tune,
)

WARM = 32


def peers() -> list[System]:
    start = {"batch": 16, "sorted": True, "attention": "sdpa", "spin": "20000"}
    choices: dict[str, list[Any]] = {
        "batch": [16, 8, 32, 64],
        "sorted": [True, False],
        "attention": ["sdpa", "eager"],
        "spin": ["20000", ""],
    }
    whole = {key: value for key, value in choices.items() if key != "sorted"}
    return [
        System("classifier", dict(start), choices),
        System("causal", dict(start), choices),
        System("CrossEncoder", {key: value for key, value in start.items() if key != "sorted"}, whole),
    ]


def figures(rows: int, start: float, end: float) -> dict[str, float]:
    return {"steady": rows / (end - start), "process": rows / (end - started()), "start": start - started(), "memory": peak_memory()}


def ours(rows: Any, task: str, settings: dict[str, Any]) -> tuple[dict[str, float], Any]:
    from babelcart import plan
    from babelcart.model import loading, scoring

    block, encoder = load(task)
    model = loading.load_adapter(loading.load_base(BASE, block), Path("models") / MODEL / task)
    budget = scoring.Predict().max_tokens
    scoring.score(model, encoder.encode_table(rows.iloc[:WARM]), encoder.labels, budget)
    start = time.time()
    found = encoder.encode_table(rows)
    probability = scoring.score(model, found, encoder.labels, budget)
    result = figures(len(rows), start, time.time())
    work = plan.count_work(plan.scoring_packs(found, budget))
    result["flops"] = linear_operations(model.get_base_model().get_decoder(), work.rows, work.tokens, train=False) / work.rows
    return result, probability


def loop(rows: Any, task: str, settings: dict[str, Any], causal: bool) -> tuple[dict[str, float], Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from babelcart.model import loading

    _, encoder = load(task)
    asked = dict(dtype=precision(), attn_implementation=settings["attention"])
    if causal:
        base = AutoModelForCausalLM.from_pretrained(BASE, **asked)
        model = loading.load_adapter(base, Path("models") / MODEL / task).merge_and_unload().eval()
        encoder.tokenizer.padding_side = "left"
    else:
        model = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=2, **asked).eval()
        model.config.pad_token_id = encoder.tokenizer.pad_token_id
    answers = [encoder.labels.negative, encoder.labels.positive]

    def score(table: Any) -> np.ndarray:
        ids = [[*row.query, *row.candidate] for row in encoder.encode_table(table)]
        order = sorted(range(len(ids)), key=lambda n: len(ids[n])) if settings["sorted"] else list(range(len(ids)))
        probability = np.empty(len(ids))
        for first in range(0, len(ids), settings["batch"]):
            numbers = order[first : first + settings["batch"]]
            inputs = encoder.tokenizer.pad({"input_ids": [ids[n] for n in numbers]}, return_tensors="pt")
            logits = model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1, answers] if causal else model(**inputs).logits
            probability[numbers] = torch.softmax(logits.double(), dim=-1)[:, 1].numpy()
        return probability

    with torch.inference_mode():
        score(rows.iloc[:WARM])
        start = time.time()
        probability = score(rows)
        return figures(len(rows), start, time.time()), probability if causal else None


def cross_encoder(rows: Any, task: str, settings: dict[str, Any]) -> tuple[dict[str, float], Any]:
    from sentence_transformers import CrossEncoder

    _, encoder = load(task)
    prompt = encoder.prompt
    asked = {"dtype": precision(), "attn_implementation": settings["attention"]}
    model = CrossEncoder(str(BASE), num_labels=1, device="cpu", model_kwargs=asked)
    model.model.config.pad_token_id = model.tokenizer.pad_token_id

    def score(table: Any) -> None:
        pairs = [
            (
                prompt.query.format(query=row.origin_query, pivot=row.pivot or row.origin_query, language=row.language),
                prompt.candidate.format(candidate=row.candidate) + prompt.suffix,
            )
            for row in table.itertuples()
        ]
        model.predict(pairs, batch_size=settings["batch"], show_progress_bar=False)

    score(rows.iloc[:WARM])
    start = time.time()
    score(rows)
    return figures(len(rows), start, time.time()), None


SIDES: dict[str, Callable[[Any, str, dict[str, Any]], tuple[dict[str, float], Any]]] = {
    "ours": ours,
    "classifier": partial(loop, causal=False),
    "causal": partial(loop, causal=True),
    "CrossEncoder": cross_encoder,
}


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), default=Path("build/translate/qc/test.parquet"), show_default=True)
@click.option("--task", type=click.Choice(["qc", "qi"]), default="qc", show_default=True)
@click.option("--rows", default=2000, show_default=True)
@click.option("--tune-rows", default=512, show_default=True, help="To try each setting of the peers with; 0: take the first of each.")
@click.option("--repeats", default=3, show_default=True)
@instruction
@click.option("--only", multiple=True, type=click.Choice(list(SIDES)), help="These systems alone.")
@click.option("--system", hidden=True)
@click.option("--settings", default="{}", hidden=True)
@click.option("--keep", type=click.Path(path_type=Path), hidden=True, help="Folder for the probabilities.")
def main(
    data: Path,
    task: str,
    rows: int,
    tune_rows: int,
    repeats: int,
    only: tuple[str, ...],
    system: str | None,
    settings: str,
    keep: Path | None,
) -> None:
    from sklearn.metrics import roc_auc_score

    found, _ = read_rows(data, rows)
    if system:
        result, probability = SIDES[system](found, task, json.loads(settings))
        if probability is not None:
            result["auc"] = float(roc_auc_score(found["label"].astype(int), probability))
            if keep:
                np.save(keep / f"{system}.npy", probability)
                if (keep / "ours.npy").exists():
                    result["apart"] = float(np.abs(probability - np.load(keep / "ours.npy")).max())
        print(json.dumps(result))
        return
    systems = [one for one in [System("ours"), *peers()] if not only or one.name in only]
    given = ["--data", str(data), "--task", task]
    print(f"{data}, {len(found):,} rows, {os.environ.get('OMP_NUM_THREADS', os.cpu_count())} threads, {repeats} rounds\n", flush=True)
    if tune_rows:
        lines = [line for one in systems for line in tune(__file__, one, [*given, "--rows", str(tune_rows)])]
        print("\n".join(["| peer | settings tried | rows/s |", "|---|---|---|", *lines]), flush=True)
    width = json.loads((BASE / "config.json").read_text())
    peaks = [matrix_peak(width["hidden_size"], width["intermediate_size"])]
    with tempfile.TemporaryDirectory() as name:
        results = in_turns(__file__, systems, [*given, "--rows", str(rows), "--keep", name], repeats)
    peaks.append(matrix_peak(width["hidden_size"], width["intermediate_size"]))
    peak = report_peak(peaks)
    columns = {
        "steady": "rows/s",
        "process": "process, rows/s",
        "start": "start, s",
        "memory": "memory, GiB",
        "auc": "AUC",
        "apart": "apart",
    }
    print(table(results, columns, {"steady": "ours is", "process": "ours is, process"}, peak))


if __name__ == "__main__":
    main()
