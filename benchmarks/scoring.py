"""Scoring rows with gemma3-270m beside other scorers: same base, same rows, same prompt.

    pip install sentence-transformers
    python benchmarks/scoring.py                                     # rows of the sample, after `dvc repro`
    python benchmarks/scoring.py --data ../shared/real/qc.csv        # or of your own

* *loop* is the one of the competition's winner: AutoModelForSequenceClassification over batches padded to their longest row, as they
  come; *sorted loop* the same after sorting by length; *CrossEncoder* that of sentence-transformers, which sorts too.
* Ours scores with the adapter in place, as `predict` does; the others are given a model without one, as if it were merged.
* `--peer-batch`: the default was the fastest of 8, 16, 32 and 64. rows/s is that of the scoring, tokens made on the way; process
  that of the whole process; memory its peak. Share is of the machine's best bfloat16 product and counts useful operations
  alone: 2 a weight of each linear layer and the adapter for every token of our packs.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import click
from sides import MODEL, in_turns, matrix_peak, peak_memory, read_rows, started, table

FOLDER = Path("models") / MODEL / "base"
SYSTEMS = ("ours", "loop", "sorted loop", "CrossEncoder")


def texts(rows: Any, prompt: Any) -> list[tuple[str, str]]:
    """The prompt of each row: up to the query, and the rest."""
    return [
        (
            prompt.query.format(query=row.origin_query, pivot=row.pivot or row.origin_query, language=row.language),
            prompt.candidate.format(candidate=row.candidate) + prompt.suffix,
        )
        for row in rows.itertuples()
    ]


def figures(rows: int, start: float, end: float, flops: float | None = None) -> dict[str, float | None]:
    return {"steady": rows / (end - start), "process": rows / (end - started()), "memory": peak_memory(), "flops": flops}


def ours(rows: Any, task: str, batch: int) -> dict[str, float | None]:
    import torch

    from babelcart import config, models, plan, prompts, scoring

    block = config.load(f"models.{MODEL}", models.Model)
    encoder = prompts.Encoder(models.load_tokenizer(FOLDER), config.load(f"prompts.{task}", prompts.Prompt))
    model = models.load_adapter(models.load_base(FOLDER, block), Path("models") / MODEL / task)
    scoring.score(model, encoder.encode_table(rows.iloc[:32]), encoder.labels, 4096)
    start = time.time()
    found = encoder.encode_table(rows)
    scoring.score(model, found, encoder.labels, scoring.Predict().max_tokens)
    end = time.time()
    work = plan.count(plan.scoring_packs(found, 4096))
    decoder = model.get_base_model().get_decoder()
    last = set(decoder.layers[-1].modules())
    operations = sum(
        2
        * module.weight.numel()
        * (work.rows if module in last and not any(part in name for part in ("k_proj", "v_proj")) else work.tokens)
        for name, module in decoder.named_modules()
        if isinstance(module, torch.nn.Linear)
    )
    return figures(len(rows), start, end, operations / len(rows))


def loop(rows: Any, task: str, batch: int, by_length: bool = False) -> dict[str, float | None]:
    import torch
    from transformers import AutoModelForSequenceClassification

    from babelcart import config, models, prompts

    model = AutoModelForSequenceClassification.from_pretrained(FOLDER, dtype=torch.bfloat16, num_labels=2).eval()
    tokenizer = models.load_tokenizer(FOLDER)
    model.config.pad_token_id = tokenizer.pad_token_id
    whole = ["".join(pair) for pair in texts(rows, config.load(f"prompts.{task}", prompts.Prompt))]

    def score(found: list[str]) -> None:
        for first in range(0, len(found), batch):
            inputs = tokenizer(found[first : first + batch], padding=True, return_tensors="pt")
            torch.softmax(model(**inputs).logits.float(), dim=-1)

    with torch.inference_mode():
        score(whole[:32])
        start = time.time()
        score(sorted(whole, key=len) if by_length else whole)
        return figures(len(rows), start, time.time())


def cross_encoder(rows: Any, task: str, batch: int) -> dict[str, float | None]:
    import torch
    from sentence_transformers import CrossEncoder

    from babelcart import config, prompts

    model = CrossEncoder(str(FOLDER), num_labels=1, device="cpu", model_kwargs={"dtype": torch.bfloat16})
    model.model.config.pad_token_id = model.tokenizer.pad_token_id
    pairs = texts(rows, config.load(f"prompts.{task}", prompts.Prompt))
    model.predict(pairs[:32], batch_size=batch, show_progress_bar=False)
    start = time.time()
    model.predict(pairs, batch_size=batch, show_progress_bar=False)
    return figures(len(rows), start, time.time())


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=Path("build/translate/qc/test.parquet"), show_default=True)
@click.option("--task", type=click.Choice(["qc", "qi"]), default="qc", show_default=True)
@click.option("--rows", default=2000, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--peer-batch", default=32, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(SYSTEMS), help="These systems alone.")
@click.option("--system", hidden=True)
def main(data: Path, task: str, rows: int, repeats: int, peer_batch: int, only: tuple[str, ...], system: str) -> None:
    if system:
        found, _ = read_rows(data, rows)
        sides = {"ours": ours, "loop": loop, "CrossEncoder": cross_encoder, "sorted loop": lambda *given: loop(*given, by_length=True)}
        print(json.dumps(sides[system](found, task, peer_batch)))
        return
    peak = matrix_peak()
    given = ["--data", str(data), "--task", task, "--rows", str(rows), "--peer-batch", str(peer_batch)]
    results = in_turns(__file__, only or SYSTEMS, given, repeats)
    peak = max(peak, matrix_peak())
    print(table(results, {"steady": "rows/s", "process": "process, rows/s", "memory": "memory, GiB"}, "steady"))
    if "ours" in results:
        share = results["ours"]["flops"] * results["ours"]["steady"] / peak
        print(f"\nBest bfloat16 product: {peak / 1e9:.0f} GFLOP/s; ours uses {share:.0%} of it. {os.cpu_count()} cores.")


if __name__ == "__main__":
    main()
