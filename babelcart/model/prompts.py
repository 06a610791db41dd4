"""From a row to tokens: the prompt's three parts, its truncation, and the two label tokens.

``instruction + query`` is the same for every candidate of a query and stands first, so that it can be shared
(`babelcart.model.packing`). ``candidate + suffix`` follows; the next token is the answer. Each part is tokenised on its own:
the same row has the same tokens whatever it is packed with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from babelcart.core.config import bounded
from babelcart.core.errors import UserError
from babelcart.model.packing import TokenRow

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Prompt:
    """The three parts of a prompt.

    `query` may use ``{query}``, ``{pivot}`` (the query in translate.pivot, or as it is where there is no translation) and
    ``{language}``; `candidate` uses ``{candidate}``.
    """

    SECTION: ClassVar[str] = "prompts.*"

    query: str
    candidate: str
    suffix: str
    positive: str
    negative: str
    max_query_tokens: int = bounded(1, 8192, default=48)
    max_candidate_tokens: int = bounded(1, 8192, default=96)


@dataclass(frozen=True)
class LabelTokens:
    """The token ids that mean "not relevant" and "relevant"."""

    negative: int
    positive: int


@dataclass
class PromptTokenizer:
    """Turns a row into a `TokenRow`.

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
        for part, needed in (("query", ("{query}", "{pivot}")), ("candidate", ("{candidate}",))):
            if not any(field in getattr(self.prompt, part) for field in needed):
                raise UserError(f"params.yaml: prompts: {part} must hold {' or '.join(needed)}; found {getattr(self.prompt, part)!r}")
        if not self.prompt.suffix:
            raise UserError("params.yaml: prompts: suffix is empty; the answer follows its last token")
        start = self.tokenizer.bos_token_id
        self._start = [] if start is None else [start]
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

    def encode(self, language: str, query: str, candidate: str, pivot: str = "") -> TokenRow:
        """Tokens of one row. Over-long texts are cut to their limits, the suffix never is."""
        return self.encode_many([{"language": language, "query": query, "candidate": candidate, "pivot": pivot}])[0]

    def encode_table(self, rows: pd.DataFrame) -> list[TokenRow]:
        """`encode` for each row of a table in the contract of `babelcart.rows.readers`, with a ``pivot`` column."""
        columns = (rows["language"], rows["origin_query"], rows["candidate"], rows["pivot"])
        names = ("language", "query", "candidate", "pivot")
        return self.encode_many([dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)])

    def encode_many(self, rows: Sequence[Mapping[str, str]]) -> list[TokenRow]:
        """`encode` for many rows; every distinct text is tokenised once.

        Parameters
        ----------
        rows : sequence of mapping
            ``language``, ``query``, ``candidate``, ``pivot``; where the pivot is empty, the query stands in for it.
        """
        limits = {
            "query": self.prompt.max_query_tokens,
            "pivot": self.prompt.max_query_tokens,
            "candidate": self.prompt.max_candidate_tokens,
        }
        ids: dict[str, list[int]] = {}
        texts = list(dict.fromkeys(row[name] for row in rows for name in limits))
        for start in range(0, len(texts), 8192):
            batch = texts[start : start + 8192]
            # "<eos>" in a query is five characters, not the end of the text: only the prompt may hold special tokens.
            found = self.tokenizer(batch, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            ids.update(zip(batch, found, strict=True))

        def fill(template: list[str | list[int]], row: Mapping[str, str]) -> Iterator[int]:
            for part in template:
                if isinstance(part, list):
                    yield from part
                else:
                    text = row["query"] if part == "pivot" and not row["pivot"] else row[part]
                    yield from ids[text][: limits[part]]

        query = {language: self._template(self.prompt.query, language) for language in {row["language"] for row in rows}}
        # What follows the candidate is tokenised together with the suffix: it is the answer's context.
        candidate = self._template(self.prompt.candidate + self.prompt.suffix, "")
        return [TokenRow(query=(*self._start, *fill(query[row["language"]], row)), candidate=(*fill(candidate, row),)) for row in rows]

    def _template(self, text: str, language: str) -> list[str | list[int]]:
        """A part of the prompt as tokens and names of fields, in turn."""
        found: list[str | list[int]] = []
        for number, part in enumerate(re.split(r"\{(query|pivot|candidate)\}", text.replace("{language}", language))):
            found.append(part if number % 2 else self._tokens(part))
        return found
