"""From a row to tokens: the prompt's three parts, its truncation, and the two label tokens.

``instruction + query`` is the same for every candidate of a query and stands first, so that it can be shared
(`babelcart.packing`). ``candidate + suffix`` follows; the next token is the answer. Each part is tokenised on its own:
the same row has the same tokens whatever it is packed with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from babelcart.config import within
from babelcart.errors import UserError
from babelcart.packing import TokenRow


@dataclass(frozen=True)
class Prompt:
    """The three parts of a prompt; ``{query}``, ``{language}`` and ``{candidate}`` are filled in."""

    query: str
    candidate: str
    suffix: str
    positive: str
    negative: str
    max_query_tokens: int = within(1, 8192, default=48)
    max_candidate_tokens: int = within(1, 8192, default=96)


@dataclass(frozen=True)
class LabelTokens:
    """The token ids that mean "not relevant" and "relevant"."""

    negative: int
    positive: int


@dataclass
class Encoder:
    """Turns (language, query, candidate) into a `TokenRow`.

    Attributes
    ----------
    tokenizer
        A transformers tokenizer.
    prompt : Prompt
        The parts; `max_query_tokens` and `max_candidate_tokens` cut the texts, never the words of the prompt.
    labels : LabelTokens
        Resolved in context when the encoder is made.
    """

    tokenizer: Any
    prompt: Prompt

    def __post_init__(self) -> None:
        for part, needed in (("query", "{query}"), ("candidate", "{candidate}")):
            if getattr(self.prompt, part).count(needed) != 1:
                raise UserError(f"params.yaml: prompts: {part} must hold {needed} once; found {getattr(self.prompt, part)!r}")
        if not self.prompt.suffix:
            raise UserError("params.yaml: prompts: suffix is empty; the answer follows its last token")
        start = self.tokenizer.bos_token_id
        self._start = [] if start is None else [start]
        self._query_before, self._query_after = self.prompt.query.split("{query}")
        self._candidate_before, candidate_after = self.prompt.candidate.split("{candidate}")
        self._candidate_head = tuple(self._tokens(self._candidate_before))
        self._tail = tuple(self._tokens(candidate_after + self.prompt.suffix))
        self._query_tail = tuple(self._tokens(self._query_after))
        self._heads: dict[str, tuple[int, ...]] = {}
        self.labels = LabelTokens(self._label(self.prompt.negative), self._label(self.prompt.positive))
        if self.labels.negative == self.labels.positive:
            raise UserError(f"params.yaml: prompts: {self.prompt.negative!r} and {self.prompt.positive!r} are the same token")

    def _tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _label(self, answer: str) -> int:
        """The one token that `answer` adds to the suffix, as Tevatron resolves its yes and no."""
        context = self._tokens(self.prompt.suffix)
        whole = self._tokens(self.prompt.suffix + answer)
        if whole[: len(context)] != context or len(whole) != len(context) + 1:
            raise UserError(
                f"params.yaml: prompts: the answer {answer!r} after {self.prompt.suffix!r} is not exactly one token of this "
                f"model ({self.tokenizer.convert_ids_to_tokens(whole)}); choose another answer or suffix"
            )
        return whole[-1]

    def encode(self, language: str, query: str, candidate: str) -> TokenRow:
        """Tokens of one row. The query and the candidate are cut to their limits, the suffix never is."""
        return self.encode_many([(language, query, candidate)])[0]

    def encode_many(self, rows: Iterable[tuple[str, str, str]]) -> list[TokenRow]:
        """`encode` for many rows; every distinct text is tokenised once."""
        rows = list(rows)
        texts = list(dict.fromkeys(text for _, query, candidate in rows for text in (query, candidate)))
        ids: dict[str, list[int]] = {}
        for start in range(0, len(texts), 8192):
            batch = texts[start : start + 8192]
            ids.update(zip(batch, self.tokenizer(batch, add_special_tokens=False)["input_ids"], strict=True))
        for language in {language for language, _, _ in rows} - self._heads.keys():
            self._heads[language] = tuple(self._start + self._tokens(self._query_before.replace("{language}", language)))
        return [
            TokenRow(
                query=(*self._heads[language], *ids[query][: self.prompt.max_query_tokens], *self._query_tail),
                candidate=(*self._candidate_head, *ids[candidate][: self.prompt.max_candidate_tokens], *self._tail),
            )
            for language, query, candidate in rows
        ]
