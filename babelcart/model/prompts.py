"""Convert rows to tokens: fill in the prompt, cut long texts, and find the two label tokens.

The tokens of a row are those of instruction and query, followed by those of candidate and suffix; the next token is the answer.
All candidates of a query share the first part, which is therefore computed once (`babelcart.model.packing`). Each part is
tokenized separately, so that the tokens of a row do not depend on the rows in the same pack.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from babelcart.core.config import bounded
from babelcart.core.errors import UserError
from babelcart.model.packing import TokenRow

if TYPE_CHECKING:
    import pandas as pd

# Texts in one call of the tokenizer.
BATCH_SIZE = 8192


@dataclass(frozen=True)
class Prompt:
    """A block under ``prompts:`` in params.yaml: the parts of a prompt and the two answers.

    Attributes
    ----------
    query : str
        Instruction and query. Contains ``{query}`` or ``{pivot}``, and optionally ``{language}``.
    candidate : str
        Contains ``{candidate}``.
    suffix : str
        Text between the candidate and the answer.
    positive, negative : str
        The answers "relevant" and "not relevant". Each adds exactly one token to the suffix.
    max_query_tokens, max_candidate_tokens : int
        Longer queries and candidates are cut; the other text of the prompt is not.
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
    """The token ids of the answers "not relevant" and "relevant"."""

    negative: int
    positive: int


class RowTexts(NamedTuple):
    """The texts of a row that a prompt can use. `pivot` is the query in the pivot language, or empty."""

    language: str
    query: str
    candidate: str
    pivot: str = ""


# A part of the prompt: token ids of its literal text, alternating with names of the fields of `RowTexts`.
Template = list[list[int] | str]


@dataclass
class PromptTokenizer:
    """Convert rows to a `TokenRow` each.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
    prompt : Prompt

    Attributes
    ----------
    labels : LabelTokens
        The tokens of the two answers.

    Raises
    ------
    UserError
        If the prompt lacks a field or the suffix, or if an answer is not exactly one token after the suffix.
    """

    tokenizer: Any
    prompt: Prompt

    def __post_init__(self) -> None:
        for part, fields in (("query", ("{query}", "{pivot}")), ("candidate", ("{candidate}",))):
            text = getattr(self.prompt, part)
            if not any(field in text for field in fields):
                raise UserError(f"params.yaml: prompts: {part} must contain {' or '.join(fields)}; found {text!r}")
        if not self.prompt.suffix:
            raise UserError("params.yaml: prompts: suffix is empty; it must contain text, because the answer follows its last token")
        max_query, max_candidate = self.prompt.max_query_tokens, self.prompt.max_candidate_tokens
        self._limits = {"query": max_query, "pivot": max_query, "candidate": max_candidate}
        bos = self.tokenizer.bos_token_id
        self._first_tokens = [] if bos is None else [bos]
        self.labels = LabelTokens(self._label_token(self.prompt.negative), self._label_token(self.prompt.positive))
        if self.labels.negative == self.labels.positive:
            raise UserError(
                f"params.yaml: prompts: the answers {self.prompt.negative!r} and {self.prompt.positive!r} are the same token; "
                "choose different answers"
            )

    def _tokenize(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _label_token(self, answer: str) -> int:
        """Return the token that `answer` adds to the suffix, found in context as in Tevatron's reranker."""
        suffix = self._tokenize(self.prompt.suffix)
        with_answer = self._tokenize(self.prompt.suffix + answer)
        if with_answer[: len(suffix)] != suffix or len(with_answer) != len(suffix) + 1:
            raise UserError(
                f"params.yaml: prompts: the answer {answer!r} after {self.prompt.suffix!r} is not exactly one token of this "
                f"model ({self.tokenizer.convert_ids_to_tokens(with_answer)}); choose another answer or suffix"
            )
        return with_answer[-1]

    def encode(self, language: str, query: str, candidate: str, pivot: str = "") -> TokenRow:
        """Tokenize one row; see `encode_many`."""
        return self.encode_many([RowTexts(language, query, candidate, pivot)])[0]

    def encode_table(self, rows: pd.DataFrame) -> list[TokenRow]:
        """Tokenize the rows of a table; see `encode_many`.

        Parameters
        ----------
        rows : pandas.DataFrame
            With the columns ``language``, ``origin_query``, ``candidate`` and ``pivot``.
        """
        columns = (rows["language"], rows["origin_query"], rows["candidate"], rows["pivot"])
        return self.encode_many([RowTexts(*texts) for texts in zip(*columns, strict=True)])

    def encode_many(self, rows: Sequence[RowTexts]) -> list[TokenRow]:
        """Tokenize rows. Each distinct text is tokenized once.

        Texts longer than the limits of the prompt are cut. A row without `pivot` uses the query in its place.

        Returns
        -------
        list of TokenRow
            In the order of `rows`.
        """
        rows = [row if row.pivot else row._replace(pivot=row.query) for row in rows]
        ids = self._tokenize_texts(list(dict.fromkeys(text for row in rows for text in (row.query, row.pivot, row.candidate))))
        query_templates = {language: self._template(self.prompt.query, language) for language in {row.language for row in rows}}
        # The text after the candidate is tokenized together with the suffix: both are the context of the answer.
        candidate_template = self._template(self.prompt.candidate + self.prompt.suffix, "")
        return [
            TokenRow(
                query=(*self._first_tokens, *self._fill(query_templates[row.language], row, ids)),
                candidate=tuple(self._fill(candidate_template, row, ids)),
            )
            for row in rows
        ]

    def _tokenize_texts(self, texts: Sequence[str]) -> dict[str, list[int]]:
        """Return texts of rows and their token ids.

        Special tokens are recognised only in the prompt: ``<eos>`` in a query becomes the tokens of these five characters.
        """
        ids: dict[str, list[int]] = {}
        for start in range(0, len(texts), BATCH_SIZE):
            batch = texts[start : start + BATCH_SIZE]
            ids.update(zip(batch, self.tokenizer(batch, add_special_tokens=False, split_special_tokens=True)["input_ids"], strict=True))
        return ids

    def _template(self, text: str, language: str) -> Template:
        """Divide a part of the prompt at its fields and tokenize the text between them."""
        pieces = re.split(r"\{(query|pivot|candidate)\}", text.replace("{language}", language))
        return [self._tokenize(piece) if index % 2 == 0 else piece for index, piece in enumerate(pieces)]

    def _fill(self, template: Template, row: RowTexts, ids: Mapping[str, list[int]]) -> Iterator[int]:
        """Yield the token ids of a template with the texts of a row, cut to the limits of the prompt."""
        for part in template:
            if isinstance(part, list):
                yield from part
            else:
                yield from ids[getattr(row, part)][: self._limits[part]]
