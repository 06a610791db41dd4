"""Compute p(relevant) of rows: the only score that training, `predict` and all later stages use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from babelcart.core.config import bounded
from babelcart.model.batching import CHUNK_ROWS, PART_CHUNKS, run_packs
from babelcart.model.loading import label_logits
from babelcart.model.packing import TokenRow, pack_rows
from babelcart.model.prefix_cache import PrefixCache, fill_cache, recurring_prefixes, token_bytes

if TYPE_CHECKING:
    import numpy as np

    from babelcart.model.prompts import LabelTokens


@dataclass(frozen=True)
class Predict:
    """The section ``predict`` of params.yaml."""

    SECTION: ClassVar[str] = "predict"

    splits: tuple[Literal["validation", "dev", "test"], ...] = ("validation", "dev", "test")
    max_tokens: int = bounded(1, 2**31, default=4096)
    chunk_rows: int = bounded(1, 2**31, default=CHUNK_ROWS)
    prefix_cache_gib: float = bounded(0, 2**20, default=1.0)

    @property
    def part_rows(self) -> int:
        """Consecutive rows with a common prefix cache; a file of any length is scored part by part."""
        return self.chunk_rows * PART_CHUNKS

    def cache_tokens(self, config: Any, number_bytes: int) -> int:
        """Return the tokens that fit into the prefix cache; the parameters are those of `babelcart.model.prefix_cache.token_bytes`."""
        return int(self.prefix_cache_gib * 2**30 // token_bytes(config, number_bytes))


def score(
    model: Any,
    rows: Sequence[TokenRow],
    labels: LabelTokens,
    settings: Predict,
    description: str | None = None,
    cache: PrefixCache | None = None,
) -> np.ndarray:
    """Probability that each candidate is relevant to its query.

    The probability is the softmax over the two label tokens, as in Nogueira et al., "Document Ranking with a Pretrained
    Sequence-to-Sequence Model" (2020).

    Parameters
    ----------
    model
        A transformers or peft model (see `babelcart.model.loading`). It is left in evaluation mode.
    rows : sequence of TokenRow
        Rows in any order. Their order changes the probabilities by rounding errors at most. Rows with equal tokens are computed once.
    labels : LabelTokens
        Token ids of the two answers.
    settings : Predict
        `max_tokens` is the token budget of a pack, and `chunk_rows` the number of consecutive rows that are divided into packs together.
        Prefixes that several chunks of a part share are computed once, within a memory of `prefix_cache_gib`. These settings change the
        probabilities by rounding errors at most. `max_tokens` limits memory, and is halved when memory runs out.
    description : str, optional
        Text next to the progress bar. Without it, no bar is shown.
    cache : PrefixCache, optional
        A cache to use in place of that of the shared prefixes.

    Returns
    -------
    numpy.ndarray
        ``(rows,)`` float64 in [0, 1], in the order of `rows`.

    Raises
    ------
    UserError
        If memory is too small for a single row.
    """
    import numpy as np
    from tqdm import tqdm

    probability = np.full(len(rows), np.nan)  # (rows,)
    with tqdm(total=len(rows), desc=description, unit="row", disable=None if description else True) as bar:
        for start in range(0, len(rows), settings.part_rows):
            part = rows[start : start + settings.part_rows]
            part_cache = part_prefixes(model, part, settings) if cache is None else cache
            probability[start : start + len(part)] = score_chunks(model, part, labels, settings, part_cache, bar.update)
    return probability


def part_prefixes(model: Any, rows: Sequence[TokenRow], settings: Predict) -> PrefixCache:
    """Compute the prefixes that rows of several chunks of a part share.

    Parameters
    ----------
    model
        As for `score`.
    rows : sequence of TokenRow
        The rows of a part, at most ``settings.part_rows``.
    settings : Predict

    Returns
    -------
    PrefixCache
        It is empty if the part has one chunk only.
    """
    model.eval()
    prefixes = recurring_prefixes(rows, settings.chunk_rows, settings.cache_tokens(model.config, model.dtype.itemsize))
    return fill_cache(model, prefixes, settings.max_tokens)


def score_chunks(
    model: Any,
    rows: Sequence[TokenRow],
    labels: LabelTokens,
    settings: Predict,
    cache: PrefixCache,
    update: Callable[[int], object] = lambda count: None,
) -> np.ndarray:
    """Compute p(relevant) of one or more complete chunks of a part. The result is the same for one chunk at a time and for all at once.

    Parameters
    ----------
    model, labels, settings
        As for `score`.
    rows : sequence of TokenRow
        Consecutive rows, the first of which begins a chunk.
    cache : PrefixCache
        That of the part, or any other.
    update : callable
        Called with the number of rows of each pack, when its probabilities are known.

    Returns
    -------
    numpy.ndarray
        ``(rows,)`` float64 in [0, 1], in the order of `rows`.

    Raises
    ------
    UserError
        If memory is too small for a single row.
    """
    import numpy as np
    import torch

    probability = np.full(len(rows), np.nan)  # (rows,)
    model.eval()
    tree = cache.tree
    with torch.inference_mode():
        packs = run_packs(
            rows, lambda pack: label_logits(model, pack_rows(pack, tree), labels, cache), settings.max_tokens, settings.chunk_rows, tree
        )
        previous = next(packs, None)
        while previous:
            current = next(packs, None)  # a GPU computes this pack while the results of the previous one are copied
            row_indices, logits = previous
            probability[row_indices] = torch.softmax(logits.double(), dim=-1)[:, 1].cpu().numpy()  # (rows of the pack,)
            update(len(row_indices))
            previous = current
    return probability
