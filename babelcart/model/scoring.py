"""Compute p(relevant) of rows: the only score that training, `predict` and all later stages use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from babelcart.core.config import bounded
from babelcart.model.batching import CHUNK_ROWS, scoring_packs, smaller_budget
from babelcart.model.loading import label_logits
from babelcart.model.packing import TokenRow, pack_rows

if TYPE_CHECKING:
    import numpy as np
    import torch

    from babelcart.model.prompts import LabelTokens


@dataclass(frozen=True)
class Predict:
    """The section ``predict`` of params.yaml."""

    SECTION: ClassVar[str] = "predict"

    splits: tuple[Literal["validation", "dev", "test"], ...] = ("validation", "dev", "test")
    max_tokens: int = bounded(1, 2**31, default=4096)
    chunk_rows: int = bounded(1, 2**31, default=CHUNK_ROWS)


def score(model: Any, rows: Sequence[TokenRow], labels: LabelTokens, settings: Predict, description: str | None = None) -> np.ndarray:
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
        Both change the probabilities by rounding errors at most. `max_tokens` limits memory, and is halved when memory runs out.
    description : str, optional
        Text next to the progress bar. Without it, no bar is shown.

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
    from tqdm import tqdm

    probability = np.full(len(rows), np.nan)  # (rows,)
    model.eval()
    with torch.inference_mode(), tqdm(total=len(rows), desc=description, unit="row", disable=None if description else True) as bar:
        packs = _pack_logits(model, rows, labels, settings)
        previous = next(packs, None)
        while previous:
            current = next(packs, None)  # a GPU computes this pack while the results of the previous one are copied
            row_indices, logits = previous
            probability[row_indices] = torch.softmax(logits.double(), dim=-1)[:, 1].cpu().numpy()  # (rows of the pack,)
            bar.update(len(row_indices))
            previous = current
    return probability


def _pack_logits(model: Any, rows: Sequence[TokenRow], labels: LabelTokens, settings: Predict) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Row indices and ``(rows of the pack, 2)`` logits of each pack; when memory runs out, the remaining packs become smaller."""
    scored, max_tokens = 0, settings.max_tokens
    while scored < len(rows):
        for row_indices in scoring_packs(rows, max_tokens, settings.chunk_rows, scored):
            pack = [rows[row_index] for row_index in row_indices]
            try:
                logits = label_logits(model, pack_rows(pack), labels)
            except RuntimeError as error:
                max_tokens = smaller_budget(error, max_tokens, pack)
                break
            scored += len(row_indices)
            yield row_indices, logits
