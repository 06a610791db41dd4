"""Compare the speed of scoring with gemma3-270m to other scorers: same base model, same rows, same prompt.

    pip install sentence-transformers openvino nncf xllamacpp gguf
    export PYTHONPATH=. OMP_NUM_THREADS=2
    python benchmarks/scoring.py                                             # rows of the sample, after `dvc repro`
    python benchmarks/scoring.py --data FOLDER/qc.csv                        # rows of your own
    python benchmarks/scoring.py --instruction benchmarks/instruction.txt    # 60 words before the prompt
    python benchmarks/scoring.py --data FOLDER/qc.csv --rows 13000 --one-query    # one query with all of their candidates

Systems:

* *classifier*: the loop of the competition's winner, AutoModelForSequenceClassification over padded batches.
* *causal*: the same loop with AutoModelForCausalLM, padded on the left, so that only the logits of the last position are computed.
* *CrossEncoder*: that of sentence-transformers, which sorts by length itself.
* *OpenVINO*: padded batches, compiled by OpenVINO, with the logits of the two answers at the last position only.
* *OpenVINO int8*: the same, with weights and activations quantised to 8 bits by NNCF, calibrated on validation rows.
* *llama.cpp*: its server, with the 4-bit weights that Babelcart dequantises, and inputs in 8 bits (benchmarks/llama_server.py).

Babelcart and llama.cpp score with the adapter in place; *causal* and both OpenVINO systems score with the same adapter merged. The other
two have a head of random weights, which costs the same.

Method:

* Before the rounds, each peer is tried with several settings on `--tune-rows` rows and keeps the fastest. The first table lists them.
* rows/s covers scoring and tokenisation, after 32 rows of warm-up. *process* covers the complete process from its start; *start* is the
  time to the first row, in seconds. Memory is the peak of the process (VmHWM).
* The share of the peak is computed from `sides.linear_operations` for the packs of Babelcart.
* *difference* is the largest difference of a probability from Babelcart's, and AUC is computed with the labels of the rows. Both are
  given for systems with the adapter.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import sides
from sides import BASE, MODEL, OURS, System

from babelcart.core.tasks import TASKS

WARM_UP = 32
CALIBRATION_ROWS = 128
OPENVINO_CHOICES: dict[str, list[Any]] = {"batch": [16, 4, 8, 32], "hint": ["LATENCY", "THROUGHPUT"]}

Figures = dict[str, float]


def peers() -> list[System]:
    """Return the other systems with their first settings and the settings to try."""
    start = {"batch": 16, "sorted": True, "attention": "sdpa", "spin": "20000"}
    choices: dict[str, list[Any]] = {
        "batch": [16, 8, 32, 64],
        "sorted": [True, False],
        "attention": ["sdpa", "eager"],
        "spin": ["20000", ""],
    }
    return [
        System("classifier", dict(start), choices),
        System("causal", dict(start), choices),
        System(
            "CrossEncoder",
            {key: value for key, value in start.items() if key != "sorted"},
            {key: values for key, values in choices.items() if key != "sorted"},
        ),
        System("OpenVINO", {"batch": 16, "hint": "LATENCY", "precision": "bf16"}, OPENVINO_CHOICES | {"precision": ["bf16", "f32"]}),
        System("llama.cpp", {"slots": 8}, {"slots": [8, 1, 4, 16, 32]}),
        System("OpenVINO int8", {"batch": 16, "hint": "LATENCY", "precision": "f32"}, OPENVINO_CHOICES | {"precision": ["f32", "bf16"]}),
    ]


def measured(rows: int, start: float, end: float) -> Figures:
    """Return the figures of a system that scored `rows` rows between two times."""
    return {
        "steady": rows / (end - start),
        "process": rows / (end - sides.started()),
        "start": start - sides.started(),
        "memory": sides.peak_memory(),
    }


def babelcart(rows: pd.DataFrame, task: str, settings: dict[str, Any]) -> tuple[Figures, np.ndarray | None]:
    """Score as `predict` does."""
    from babelcart.model import loading, scoring
    from babelcart.model.workload import scoring_workload

    model_settings, tokenizer = sides.load(task)
    model = loading.load_adapter(loading.load_base(BASE, model_settings), Path("models") / MODEL / task)
    predict = scoring.Predict()
    scoring.score(model, tokenizer.encode_table(rows.iloc[:WARM_UP]), tokenizer.labels, predict)
    start = time.time()
    encoded = tokenizer.encode_table(rows)
    probability = scoring.score(model, encoded, tokenizer.labels, predict)
    figures = measured(len(rows), start, time.time())
    work = scoring_workload([encoded], predict)
    decoder = model.get_base_model().get_decoder()
    figures["flops"] = sides.linear_operations(decoder, work.rows, work.tokens, train=False) / work.rows
    return figures, probability


def load_padded(task: str, attention: str, causal: bool) -> tuple[Any, Any]:
    """Return a model of transformers with a language-model head or a classification head, and the tokenizer of the prompt."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from babelcart.model import loading

    _, tokenizer = sides.load(task)
    loading_settings = dict(dtype=sides.precision(), attn_implementation=attention)
    if causal:
        base = AutoModelForCausalLM.from_pretrained(BASE, **loading_settings)
        model = loading.load_adapter(base, Path("models") / MODEL / task).merge_and_unload().eval()
        tokenizer.tokenizer.padding_side = "left"
    else:
        model = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=2, **loading_settings).eval()
        model.config.pad_token_id = tokenizer.tokenizer.pad_token_id
    return model, tokenizer


def loop(rows: pd.DataFrame, task: str, settings: dict[str, Any], causal: bool) -> tuple[Figures, np.ndarray | None]:
    """Score padded batches."""
    import torch

    model, tokenizer = load_padded(task, settings["attention"], causal)
    answers = [tokenizer.labels.negative, tokenizer.labels.positive]

    def score(table: pd.DataFrame) -> np.ndarray:
        ids = [list(row.tokens) for row in tokenizer.encode_table(table)]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index])) if settings["sorted"] else list(range(len(ids)))
        probability = np.empty(len(ids))
        for first in range(0, len(ids), settings["batch"]):
            indices = order[first : first + settings["batch"]]
            inputs = tokenizer.tokenizer.pad({"input_ids": [ids[index] for index in indices]}, return_tensors="pt")
            logits = model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1, answers] if causal else model(**inputs).logits
            probability[indices] = torch.softmax(logits.double(), dim=-1)[:, 1].numpy()
        return probability

    with torch.inference_mode():
        score(rows.iloc[:WARM_UP])
        start = time.time()
        probability = score(rows)
        return measured(len(rows), start, time.time()), probability if causal else None


def cross_encoder(rows: pd.DataFrame, task: str, settings: dict[str, Any]) -> tuple[Figures, np.ndarray | None]:
    """Score with the CrossEncoder of sentence-transformers."""
    from sentence_transformers import CrossEncoder

    _, tokenizer = sides.load(task)
    prompt = tokenizer.prompt
    loading_settings = {"dtype": sides.precision(), "attn_implementation": settings["attention"]}
    model = CrossEncoder(str(BASE), num_labels=1, device="cpu", model_kwargs=loading_settings)
    model.model.config.pad_token_id = model.tokenizer.pad_token_id

    def score(table: pd.DataFrame) -> None:
        first, second = prompt.template.split("{candidate}")
        pairs = []
        for row in table.itertuples():
            fields = {"query": row.origin_query, "pivot": row.pivot or row.origin_query, "language": row.language}
            pairs.append((first.format(**fields), row.candidate + second.format(**fields)))
        model.predict(pairs, batch_size=settings["batch"], show_progress_bar=False)

    score(rows.iloc[:WARM_UP])
    start = time.time()
    score(rows)
    return measured(len(rows), start, time.time()), None


def answer_logits(base: Any, answers: list[int]) -> Any:
    """A module that computes the logits of `answers` at the last position of right-padded rows: (N, T) -> (N, 2)."""
    import torch

    class AnswerLogits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = base.get_decoder()
            self.register_buffer("head", base.get_output_embeddings().weight[answers].detach().clone())  # (2, D)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.decoder(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state  # (N, T, D)
            last = attention_mask.sum(-1) - 1  # (N,)
            return hidden[torch.arange(hidden.shape[0]), last].float() @ self.head.float().T

    return AnswerLogits().eval()


def openvino(rows: pd.DataFrame, task: str, settings: dict[str, Any], quantised: bool) -> tuple[Figures, np.ndarray | None]:
    """Score padded batches of similar length with a model that OpenVINO compiled; THROUGHPUT runs several batches at once."""
    import openvino
    import torch
    from transformers import AutoModelForCausalLM

    from babelcart.model import loading

    _, tokenizer = sides.load(task)
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32, attn_implementation="sdpa")
    merged = loading.load_adapter(base, Path("models") / MODEL / task).merge_and_unload()
    example = {"input_ids": torch.ones(2, 8, dtype=torch.long), "attention_mask": torch.ones(2, 8, dtype=torch.long)}
    with torch.inference_mode():
        graph = openvino.convert_model(answer_logits(merged, [tokenizer.labels.negative, tokenizer.labels.positive]), example_input=example)
    del base, merged

    def batches(table: pd.DataFrame) -> tuple[list[list[int]], list[dict[str, np.ndarray]]]:
        ids = [list(row.tokens) for row in tokenizer.encode_table(table)]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        groups = [order[first : first + settings["batch"]] for first in range(0, len(order), settings["batch"])]
        padded = [dict(tokenizer.tokenizer.pad({"input_ids": [ids[index] for index in group]}, return_tensors="np")) for group in groups]
        return groups, padded

    tokenizer.tokenizer.padding_side = "right"
    if quantised:
        import nncf

        calibration = pd.read_parquet(f"build/translate/{task}/validation.parquet").iloc[:CALIBRATION_ROWS]
        graph = nncf.quantize(
            graph, nncf.Dataset(batches(calibration)[1]), model_type=nncf.ModelType.TRANSFORMER, subset_size=CALIBRATION_ROWS
        )
    compiled = openvino.compile_model(
        graph,
        "CPU",
        {
            "PERFORMANCE_HINT": settings["hint"],
            "INFERENCE_PRECISION_HINT": settings["precision"],
            "INFERENCE_NUM_THREADS": int(sides.threads()),
        },
    )

    def score(table: pd.DataFrame) -> np.ndarray:
        groups, padded = batches(table)
        probability = np.empty(len(table))
        queue = openvino.AsyncInferQueue(compiled)

        def store(request: Any, group: list[int]) -> None:
            logits = request.get_output_tensor().data.astype(float)  # (N, 2)
            probability[group] = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))

        queue.set_callback(store)
        for group, inputs in zip(groups, padded, strict=True):
            queue.start_async(inputs, group)
        queue.wait_all()
        return probability

    score(rows.iloc[:WARM_UP])
    start = time.time()
    probability = score(rows)
    return measured(len(rows), start, time.time()), probability


def llama_cpp(rows: pd.DataFrame, task: str, settings: dict[str, Any]) -> tuple[Figures, np.ndarray | None]:
    """Score with llama.cpp's server."""
    import llama_server

    _, tokenizer = sides.load(task)
    server = llama_server.Server.of_task(task, settings["slots"])

    def score(table: pd.DataFrame) -> np.ndarray:
        return server.score([row.tokens for row in tokenizer.encode_table(table)], tokenizer.labels)

    score(rows.iloc[:WARM_UP])
    start = time.time()
    probability = score(rows)
    return measured(len(rows), start, time.time()), probability


SIDES: dict[str, Callable[[pd.DataFrame, str, dict[str, Any]], tuple[Figures, np.ndarray | None]]] = {
    OURS: babelcart,
    "classifier": partial(loop, causal=False),
    "causal": partial(loop, causal=True),
    "CrossEncoder": cross_encoder,
    "llama.cpp": llama_cpp,
    "OpenVINO": partial(openvino, quantised=False),
    "OpenVINO int8": partial(openvino, quantised=True),
}


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    data: Path
    task: str
    rows: int
    tune_rows: int
    repeats: int
    one_query: bool
    profiled: bool
    only: tuple[str, ...]
    system: str | None
    settings: str
    keep: Path | None


def profile(rows: pd.DataFrame, task: str) -> None:
    """Print the torch operations that take most of Babelcart's time."""
    from babelcart.model import loading, scoring

    model_settings, tokenizer = sides.load(task)
    model = loading.load_adapter(loading.load_base(BASE, model_settings), Path("models") / MODEL / task)
    encoded = tokenizer.encode_table(rows)
    sides.print_profile(lambda: scoring.score(model, encoded, tokenizer.labels, scoring.Predict()))


def run_in_this_process(options: Options, rows: pd.DataFrame) -> Figures:
    """Figures of the system that ``--system`` names; probabilities are left in the folder ``--keep``."""
    from sklearn.metrics import roc_auc_score

    figures, probability = SIDES[str(options.system)](rows, options.task, json.loads(options.settings))
    if probability is not None:
        if not options.one_query:
            figures["auc"] = float(roc_auc_score(rows["label"].astype(int), probability))
        if options.keep:
            np.save(options.keep / f"{options.system}.npy", probability)
            if (ours := options.keep / f"{OURS}.npy").exists():
                figures["difference"] = float(np.abs(probability - np.load(ours)).max())
    return figures


def compare(options: Options) -> None:
    """Tune the peers, run all systems in turns, print the tables."""
    systems = [system for system in [System(OURS), *peers()] if not options.only or system.name in options.only]
    given = ["--data", str(options.data), "--task", options.task, *(["--one-query"] if options.one_query else [])]
    if options.tune_rows:
        lines = [line for system in systems for line in sides.tune(__file__, system, [*given, "--rows", str(options.tune_rows)])]
        print(sides.tuning_table(lines), flush=True)
    peaks = [sides.peak_of_model()]
    with tempfile.TemporaryDirectory() as folder:
        results = sides.in_turns(__file__, systems, [*given, "--rows", str(options.rows), "--keep", folder], options.repeats)
    peaks.append(sides.peak_of_model())
    peak = sides.report_peak(peaks)
    columns = {"steady": "rows/s", "process": "process, rows/s", "start": "start, s", "memory": "memory, GiB", "auc": "AUC"}
    columns["difference"] = "difference"
    print(sides.table(results, columns, {"steady": "{} is", "process": "{} is, process"}, peak))


@click.command(help=__doc__)
@sides.data_option("build/translate/qc/test.parquet")
@click.option("--task", type=click.Choice(TASKS), default="qc", show_default=True, help="Task, for its prompt and adapter.")
@click.option("--rows", default=2000, show_default=True, help="Approximate number of rows.")
@click.option("--tune-rows", default=512, show_default=True, help="Rows for each setting of the peers; 0: use the first settings.")
@click.option("--repeats", default=3, show_default=True, help="Number of rounds.")
@click.option("--one-query", is_flag=True, help="Score the first query with every candidate of the rows instead.")
@click.option("--profile", "profiled", is_flag=True, help="Print the time of Babelcart by operation instead of comparing speed.")
@sides.prompt_options
@click.option("--only", multiple=True, type=click.Choice(list(SIDES)), help="Run only this system; repeatable.")
@click.option("--system", hidden=True)
@click.option("--settings", default="{}", hidden=True)
@click.option("--keep", type=click.Path(path_type=Path), hidden=True)
def main(**given: Any) -> None:
    options = Options(**given)
    rows, _ = sides.read_rows(options.data, options.rows)
    if options.one_query:
        first = rows.iloc[0]
        texts = {"language": first["language"], "origin_query": first["origin_query"], "pivot": first["pivot"]}
        rows = rows.drop_duplicates("candidate").assign(**texts)
    if options.system:
        print(json.dumps(run_in_this_process(options, rows)))
        return
    if options.profiled:
        profile(rows, options.task)
        return
    print(f"{options.data}, {len(rows):,} rows, {sides.threads()} threads, {options.repeats} rounds\n", flush=True)
    compare(options)


if __name__ == "__main__":
    main()
