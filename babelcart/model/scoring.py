"""p(relevant) of rows: the one score that training, `predict` and everything after them use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from babelcart.core.config import bounded
from babelcart.model.batching import by_length, smaller_budget, token_budget
from babelcart.model.loading import label_logits
from babelcart.model.packing import TokenRow, pack_rows

if TYPE_CHECKING:
    import numpy as np

    from babelcart.model.prompts import LabelTokens


@dataclass(frozen=True)
class Predict:
    """The section ``predict`` of params.yaml."""

    SECTION: ClassVar[str] = "predict"

    splits: tuple[Literal["validation", "dev", "test"], ...] = ("validation", "dev", "test")
    max_tokens: int = bounded(1, 2**31, default=4096)


def score(model: Any, rows: Sequence[TokenRow], labels: LabelTokens, max_tokens: int, description: str | None = None) -> np.ndarray:
    """Probability that each candidate answers its query.

    The softmax over the two label tokens, as in Nogueira et al., "Document Ranking with a Pretrained Sequence-to-Sequence
    Model" (2020).

    Parameters
    ----------
    model
        A transformers or peft model (`babelcart.model.loading`).
    rows : sequence of TokenRow
        Any order; the result does not depend on it beyond float error.
    max_tokens : int
        Tokens of a pack: bounds memory, changes nothing else. Where memory runs out it is halved.
    description : str, optional
        Shown beside the progress bar; without it there is none.

    Returns
    -------
    numpy.ndarray
        ``(rows,)`` float64 in [0, 1], in the order of `rows`.
    """
    import numpy as np
    import torch
    from tqdm import tqdm

    probability = np.full(len(rows), np.nan)
    order = [number for group in by_length(rows) for number in group]
    done = 0
    model.eval()
    with torch.inference_mode(), tqdm(total=len(rows), desc=description, unit="row", disable=None if description else True) as bar:
        while done < len(rows):
            for numbers in token_budget([order[done:]], rows, max_tokens):
                try:
                    logits = label_logits(model, pack_rows([rows[n] for n in numbers]), labels)
                except RuntimeError as error:
                    max_tokens = smaller_budget(error, max_tokens, numbers, rows)
                    break
                probability[numbers] = torch.softmax(logits.double(), dim=-1)[:, 1].cpu().numpy()
                done += len(numbers)
                bar.update(len(numbers))
    return probability
