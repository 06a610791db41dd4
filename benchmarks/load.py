"""The users of `benchmarks/serving.py`, for locust: each sends one request after another, a query with random categories."""

from __future__ import annotations

import os
import random

import pandas as pd
from locust import FastHttpUser, constant, task

CANDIDATES = int(os.environ["CANDIDATES"])
_TABLE = pd.read_parquet(os.environ["ROWS"])
QUERIES = sorted(set(_TABLE["origin_query"]))
CATEGORIES = sorted(set(_TABLE["candidate"]))
_random = random.Random(0)


class Shopper(FastHttpUser):  # type: ignore[misc]
    """A client that waits for an answer before it sends the next request."""

    wait_time = constant(0)
    network_timeout = connection_timeout = 120.0

    @task  # type: ignore[untyped-decorator]
    def score(self) -> None:
        """Send a query with random categories."""
        body = {"query": _random.choice(QUERIES), "candidates": _random.sample(CATEGORIES, CANDIDATES)}
        with self.client.post("/v1/score", json=body, catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
