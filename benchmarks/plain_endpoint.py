"""A plain endpoint to compare the server with: FastAPI and transformers, one padded batch for the candidates of a request.

The adapter is merged into the base model, and only the logits of the last position are computed. One request computes at a time, with
all threads; the others wait.

    PYTHONPATH=. python benchmarks/plain_endpoint.py --task qc --port 8001
"""

from __future__ import annotations

import threading

import click
import scoring
import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from babelcart.core.tasks import TASKS
from babelcart.model.prompts import RowTexts


class Body(BaseModel):
    """A query and its candidates."""

    query: str
    candidates: list[str]


@click.command(help=__doc__)
@click.option("--task", type=click.Choice(TASKS), default="qc", show_default=True)
@click.option("--port", default=8001, show_default=True)
def main(task: str, port: int) -> None:
    model, tokenizer = scoring.load_padded(task, "sdpa", causal=True)
    answers = [tokenizer.labels.negative, tokenizer.labels.positive]
    computing = threading.Lock()
    app = FastAPI()

    @app.post("/v1/score")
    def score(body: Body) -> list[float]:
        rows = tokenizer.encode_many([RowTexts("", body.query, candidate) for candidate in body.candidates])
        inputs = tokenizer.tokenizer.pad({"input_ids": [list(row.tokens) for row in rows]}, return_tensors="pt")
        with computing, torch.inference_mode():
            logits = model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1, answers]
            return torch.softmax(logits.double(), dim=-1)[:, 1].tolist()

    @app.get("/readyz")
    def ready() -> str:
        return "ok"

    uvicorn.run(app, port=port, log_level="warning")


if __name__ == "__main__":
    main()
