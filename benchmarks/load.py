"""The users of `benchmarks/serving.py`, for locust: each sends one request after another, a query with random categories."""

from __future__ import annotations

import os
import random
from typing import Any

import pandas as pd
from locust import FastHttpUser, constant, task

from babelcart.model.prompts import RowTexts

LLAMA_CPP = os.environ.get("FORM") == "llama.cpp"  # otherwise, the requests of Babelcart's server
CANDIDATES = int(os.environ["CANDIDATES"])
_TABLE = pd.read_parquet(os.environ["ROWS"])
QUERIES = sorted(set(_TABLE["origin_query"]))
CATEGORIES = sorted(set(_TABLE["candidate"]))
_random = random.Random(0)
if LLAMA_CPP:
    import llama_server
    import sides

    _, TOKENIZER = sides.load(os.environ["TASK"])


class Shopper(FastHttpUser):  # type: ignore[misc]
    """A client that waits for an answer before it sends the next request."""

    wait_time = constant(0)
    network_timeout = connection_timeout = 120.0

    @task  # type: ignore[untyped-decorator]
    def score(self) -> None:
        """Send a query with random categories."""
        body: dict[str, Any] = {"query": _random.choice(QUERIES), "candidates": _random.sample(CATEGORIES, CANDIDATES)}
        if LLAMA_CPP:
            rows = TOKENIZER.encode_many([RowTexts("", body["query"], candidate) for candidate in body["candidates"]])
            body = llama_server.request_body([row.tokens for row in rows], TOKENIZER.labels)
        with self.client.post("/completion" if LLAMA_CPP else "/v1/score", json=body, catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
