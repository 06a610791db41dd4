"""Convert rows to tokens: fill in the prompt, cut long texts, and find the two label tokens.

A prompt is a template: text with the fields of a row, in any order. The next token after the prompt is the answer. The text between
the fields and each field are tokenized separately, so that the tokens of a row do not depend on the rows in the same pack, and
rows with equal texts at the start of the prompt share their tokens (`babelcart.model.packing`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from babelcart.core.config import bounded
from babelcart.core.errors import UserError
from babelcart.model.packing import TokenRow

if TYPE_CHECKING:
    import pandas as pd

# Texts in one call of the tokenizer.
BATCH_SIZE = 8192
_FIELD = re.compile(r"\{(query|pivot|candidate)\}")


@dataclass(frozen=True)
class Prompt:
    """A block under ``prompts:`` in params.yaml: the template of a prompt and the two answers.

    Attributes
    ----------
    template : str
        Contains ``{candidate}``, ``{query}`` or ``{pivot}`` or both, and optionally ``{language}``. Ends with text.
    positive, negative : str
        The answers "relevant" and "not relevant". Each adds exactly one token to the template.
    max_query_tokens, max_candidate_tokens : int
        Longer queries and candidates are cut; the other text of the prompt is not.

    Raises
    ------
    ValueError
        If the template lacks a field or ends with one.
    """

    SECTION: ClassVar[str] = "prompts.*"

    template: str
    positive: str
    negative: str
    max_query_tokens: int = bounded(1, 8192, default=48)
    max_candidate_tokens: int = bounded(1, 8192, default=96)

    def __post_init__(self) -> None:
        for fields in (("{query}", "{pivot}"), ("{candidate}",)):
            if not any(field in self.template for field in fields):
                raise ValueError(f"template must contain {' or '.join(fields)}; found {self.template!r}")
        if repeated := [field for field in ("{query}", "{pivot}", "{candidate}") if self.template.count(field) > 1]:
            raise ValueError(f"template contains {repeated[0]} more than once; keep one")
        if re.search(r"\{(?:query|pivot|candidate|language)\}$", self.template):
            raise ValueError(
                f"template ends with a field: {self.template[-40:]!r}; add text to its end, because the answer follows its last token"
            )

    @staticmethod
    def former_keys(values: Mapping[str, Any]) -> str | None:
        """Return what to write in place of the three parts that version 0.1 had; None if `values` has none of them."""
        if not (former := [name for name in ("query", "candidate", "suffix") if name in values]):
            return None
        template = json.dumps("".join(str(values[name]) for name in former), ensure_ascii=False)
        return f"{', '.join(former)} were replaced by one text; write `template: {template}`"

    def ending(self, language: str) -> str:
        """Return the text after the last query, pivot or candidate, for rows of a language. The answer follows it."""
        return _FIELD.split(self.template)[-1].replace("{language}", language)

    def other_order(self) -> Prompt:
        """Return this prompt with query and candidate in each other's place."""
        field = "query" if "{query}" in self.template else "pivot"
        exchanged = {field: "{candidate}", "candidate": "{" + field + "}"}
        return replace(self, template=_FIELD.sub(lambda match: exchanged.get(match[1], match[0]), self.template))

    def query_first(self) -> bool:
        """Return whether the query, or its translation, comes before the candidate."""
        return self.template.index("{candidate}") > min(
            self.template.index(field) for field in ("{query}", "{pivot}") if field in self.template
        )


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


# A template: token ids of its text, alternating with names of the fields of `RowTexts`.
Template = list[tuple[int, ...] | str]


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
        If an answer is not exactly one token after the template.
    """

    tokenizer: Any
    prompt: Prompt

    def __post_init__(self) -> None:
        max_query, max_candidate = self.prompt.max_query_tokens, self.prompt.max_candidate_tokens
        self._limits = {"query": max_query, "pivot": max_query, "candidate": max_candidate}
        bos = self.tokenizer.bos_token_id
        self._first_tokens: tuple[int, ...] = () if bos is None else (bos,)
        self.labels = LabelTokens(self._label_token(self.prompt.negative), self._label_token(self.prompt.positive))
        if self.labels.negative == self.labels.positive:
            raise UserError(
                f"params.yaml: prompts: the answers {self.prompt.negative!r} and {self.prompt.positive!r} are the same token; "
                "choose different answers"
            )

    def _tokenize(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _label_token(self, answer: str) -> int:
        """Return the token that `answer` adds to the end of the template, found in context as in Tevatron's reranker."""
        text = self.prompt.ending("en")
        ending, with_answer = self._tokenize(text), self._tokenize(text + answer)
        if with_answer[: len(ending)] != ending or len(with_answer) != len(ending) + 1:
            raise UserError(
                f"params.yaml: prompts: the answer {answer!r} after {text!r} is not exactly one token of this "
                f"model ({self.tokenizer.convert_ids_to_tokens(with_answer)}); choose another answer or another end of the template"
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
        templates = {language: self._template(language) for language in {row.language for row in rows}}
        queries: dict[tuple[str, str, str], tuple[int, ...]] = {}  # rows of a query share one tuple
        candidates: dict[str, tuple[int, ...]] = {}
        encoded = []
        for row in rows:
            template, key = templates[row.language], (row.language, row.query, row.pivot)
            if key not in queries:
                queries[key] = self._fill(template, row._replace(candidate=""), ids)
            if row.candidate not in candidates:
                candidates[row.candidate] = ids[row.candidate][: self.prompt.max_candidate_tokens]
            encoded.append(TokenRow(self._fill(template, row, ids), queries[key], candidates[row.candidate]))
        return encoded

    def truncated_fields(self, rows: Sequence[RowTexts]) -> list[list[str]]:
        """Return the fields of each row, ``query`` or ``candidate``, whose texts are longer than the prompt allows."""
        fields = [field for field in _FIELD.findall(self.prompt.template) if field != "pivot"]
        long_texts = {}
        for field in fields:
            ids = self._tokenize_texts(list(dict.fromkeys(getattr(row, field) for row in rows)))
            long_texts[field] = {text for text, tokens in ids.items() if len(tokens) > self._limits[field]}
        return [[field for field in fields if getattr(row, field) in long_texts[field]] for row in rows]

    def _tokenize_texts(self, texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """Return texts of rows and their token ids.

        Special tokens are recognised only in the prompt: ``<eos>`` in a query becomes the tokens of these five characters.
        """
        ids: dict[str, tuple[int, ...]] = {"": ()}
        for start in range(0, len(texts), BATCH_SIZE):
            batch = texts[start : start + BATCH_SIZE]
            encoded = self.tokenizer(batch, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            ids.update(zip(batch, map(tuple, encoded), strict=True))
        return ids

    def _template(self, language: str) -> Template:
        """Divide the template at its fields and tokenize the text between them."""
        pieces = _FIELD.split(self.prompt.template.replace("{language}", language))
        return [tuple(self._tokenize(piece)) if index % 2 == 0 else piece for index, piece in enumerate(pieces)]

    def _fill(self, template: Template, row: RowTexts, ids: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        """Return the token ids of a template with the texts of a row, cut to the limits of the prompt."""
        filled = list(self._first_tokens)
        for part in template:
            filled += part if isinstance(part, tuple) else ids[getattr(row, part)][: self._limits[part]]
        return tuple(filled)
