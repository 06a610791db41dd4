"""Vectors of the queries and candidates of a table of rows, each query's nearest candidates, and the similarity of each row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelcart.embedding import encoders, search

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True)
class Vectors:
    """Unit vectors of the distinct queries and candidates of a table, and the nearest candidates of each query.

    Attributes
    ----------
    queries, candidates : dict of str to int
        The index of each text in the arrays below.
    query_vectors, candidate_vectors : numpy.ndarray
        ``(texts, dimensions)`` float32, of length 1.
    neighbours : numpy.ndarray
        ``(queries, count)`` int64 indices of candidates, nearest first; -1 after the last one that the search returned.
        ``(queries, 0)`` if no neighbours were requested.
    recall : float or None
        Share of the true neighbours in `neighbours` if the search was approximate, None if it was exact.
    """

    queries: dict[str, int]
    candidates: dict[str, int]
    query_vectors: np.ndarray
    candidate_vectors: np.ndarray
    neighbours: np.ndarray
    recall: float | None = None

    def of_queries(self, texts: Iterable[str]) -> np.ndarray:
        """``(texts, dimensions)`` float32: the vectors of these queries."""
        return self.query_vectors[[self.queries[text] for text in texts]]

    def of_candidates(self, texts: Iterable[str]) -> np.ndarray:
        """``(texts, dimensions)`` float32: the vectors of these candidates."""
        return self.candidate_vectors[[self.candidates[text] for text in texts]]


def embed_rows(
    rows: pd.DataFrame,
    settings: encoders.EncoderSettings,
    scratch: Path,
    *,
    local_model: str | None = None,
    neighbours: int | None = None,
    exact_limit: int = 1_000_000,
    progress: Callable[..., Iterable[Any]] = search.no_progress,
) -> Vectors:
    """Encode the queries and candidates of a table, and search for the nearest candidates of each query.

    Parameters
    ----------
    rows : pandas.DataFrame
        Columns ``origin_query`` and ``candidate``.
    settings : EncoderSettings
    scratch : Path
        Folder for downloaded packages and for the cache of vectors, ``vectors.sqlite``.
    local_model : str, optional
        Folder of the encoder's model if `EncoderSettings.local` is true.
    neighbours : int, optional
        Number of candidates to find for each query; default: no search.
    exact_limit : int
        With more distinct candidates than this, the search uses an approximate index.
    progress : callable
        Called as ``progress(iterable, total=..., desc=...)``, as tqdm is.

    Raises
    ------
    UserError
        If the encoder cannot be loaded, or if an approximate search is needed and faiss is not installed.
    """
    import numpy as np

    encoder = encoders.build_encoder(settings, scratch, lambda: [*rows["origin_query"], *rows["candidate"]], local_model)

    def embed_column(column: str, prefix: str) -> tuple[list[str], np.ndarray]:
        store = scratch / "vectors.sqlite"
        return encoders.embed_texts(rows[column], encoder, store, batch_size=settings.batch_size, prefix=prefix, progress=progress)

    queries, query_vectors = embed_column("origin_query", settings.query_prefix)
    candidates, candidate_vectors = embed_column("candidate", settings.candidate_prefix)
    nearest, recall = np.empty((len(queries), 0), dtype=np.int64), None
    if neighbours is not None:
        if len(candidates) > exact_limit:
            nearest, _, recall = search.approximate_nearest(query_vectors, candidate_vectors, neighbours)
        else:
            nearest, _ = search.nearest(query_vectors, candidate_vectors, neighbours, progress=progress)
    return Vectors(_index(queries), _index(candidates), query_vectors, candidate_vectors, nearest, recall)


def _index(texts: Sequence[str]) -> dict[str, int]:
    return {text: index for index, text in enumerate(texts)}


def row_similarity(rows: pd.DataFrame, vectors: Vectors) -> np.ndarray:
    """``(rows,)`` float32: the cosine similarity of each row's query and candidate."""
    import numpy as np

    return np.einsum("ij,ij->i", vectors.of_queries(rows["origin_query"]), vectors.of_candidates(rows["candidate"]))
