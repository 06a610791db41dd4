"""Similarities of a training set: vectors for sampling, and what they say about positives, natural and sampled negatives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.embedding import encoders, search
from babelcart.negatives.sampling import Negatives, Sampling, Vectors

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def embed_rows(
    rows: pd.DataFrame, sampling: Sampling, settings: Negatives, scratch: Path, progress: Callable[..., Iterable[Any]]
) -> Vectors:
    """Vectors of the queries and candidates of `rows`, and, for hard negatives, each query's nearest candidates."""
    import numpy as np

    chosen = settings.encoder
    encoder = encoders.build(chosen, scratch, lambda: [*rows["origin_query"], *rows["candidate"]], settings.local_model)
    store = scratch / "vectors.sqlite"
    made = [
        encoders.embed(rows[column], encoder, store, batch_size=chosen.batch_size, prefix=prefix, progress=progress)
        for column, prefix in (("origin_query", chosen.query_prefix), ("candidate", chosen.candidate_prefix))
    ]
    (queries, query_vectors), (candidates, candidate_vectors) = made
    neighbours, recall = np.empty((len(queries), 0), dtype=np.int64), None
    if sampling.strategy in ("hard", "mixed"):
        # Room for those that are left out: known candidates and relatives of positives stand near.
        count = 2 * sampling.last_rank + 50
        if len(candidates) > settings.exact_limit:
            neighbours, _, recall = search.approximate(query_vectors, candidate_vectors, count)
        else:
            neighbours, _ = search.nearest(query_vectors, candidate_vectors, count, progress=progress)
    return Vectors(
        {text: number for number, text in enumerate(queries)}, {text: number for number, text in enumerate(candidates)},
        query_vectors, candidate_vectors, neighbours, recall,
    )  # fmt: skip


def row_similarity(rows: pd.DataFrame, found: Vectors) -> np.ndarray:
    """``(rows,)`` similarity of each row's query and candidate."""
    import numpy as np

    queries = found.query_vectors[[found.queries[text] for text in rows["origin_query"]]]
    candidates = found.candidate_vectors[[found.candidates[text] for text in rows["candidate"]]]
    return np.einsum("ij,ij->i", queries, candidates)


def _kinds(rows: pd.DataFrame, sampled: pd.DataFrame) -> dict[str, pd.DataFrame]:
    kinds = {"positive": rows[rows["label"] == 1], "natural_negative": rows[rows["label"] == 0]}
    return {**kinds, **{kind: sampled[sampled["origin"] == kind] for kind in ("easy", "hard")}}


def similarity_report(rows: pd.DataFrame, sampled: pd.DataFrame, found: Vectors | None) -> dict[str, Any]:
    """Shares of label 0 and of each language before and after, quantiles of similarity by kind of row, recall of an approximate search."""
    import numpy as np
    import pandas as pd

    after = pd.concat([rows, sampled], ignore_index=True)
    result: dict[str, Any] = {}
    for name, table in (("before", rows), ("after", after)):
        shares = table["language"].value_counts(normalize=True).sort_index()
        result[name] = {
            "rows": len(table), "negative_share": round(float((table["label"] == 0).mean()), 5),
            "language": {language: round(float(share), 5) for language, share in shares.items()},
        }  # fmt: skip
    if found is not None:
        result["similarity"] = {
            kind: {
                f"q{round(100 * q):02d}": round(float(value), 3)
                for q, value in zip(QUANTILES, np.quantile(row_similarity(table, found), QUANTILES), strict=True)
            }
            for kind, table in _kinds(rows, sampled).items()
            if len(table)
        }
        if found.recall is not None:
            result["search_recall"] = round(found.recall, 4)
    return result


def examples(rows: pd.DataFrame, sampled: pd.DataFrame, found: Vectors | None, count: int = 10) -> dict[str, list[dict[str, Any]]]:
    """`count` rows of each kind, evenly spread, with their similarity."""
    import numpy as np

    shown: dict[str, list[dict[str, Any]]] = {}
    for kind, table in _kinds(rows, sampled).items():
        some = table.iloc[np.linspace(0, len(table) - 1, min(count, len(table))).astype(int)] if len(table) else table
        scores = row_similarity(some, found) if found is not None and len(some) else [None] * len(some)
        shown[kind] = [
            {
                "language": row.language,
                "query": row.origin_query,
                "candidate": row.candidate,
                "similarity": score and round(float(score), 3),
            }
            for row, score in zip(some.itertuples(), scores, strict=True)
        ]
    return shown
