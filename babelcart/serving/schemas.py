"""The bodies of requests and responses: those of Babelcart, and the forms of other servers whose clients exist.

Sources of the other forms: Cohere's API reference (``/v2/rerank``, ``/v1/rerank``), Jina's (``/v1/rerank``), and vLLM's documentation of
``/generative_scoring`` (version 0.22).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_CHARACTERS = 4000  # of a query or a candidate

Text = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS, pattern=r"\S")]


class Query(BaseModel):
    """A query and its candidates."""

    model_config = ConfigDict(extra="forbid")

    query: Text
    candidates: list[Text] = Field(min_length=1)
    language: str | None = Field(None, description="ISO 639-1 code; required if the prompt or a threshold depends on it")


class ScoreRequest(BaseModel):
    """The body of ``/v1/score``: one query, or several in `queries`."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"query": "abendkleid lang", "candidates": ["women's clothing,dresses"]}]}
    )

    query: Text | None = None
    candidates: list[Text] | None = Field(None, min_length=1)
    language: str | None = None
    queries: list[Query] | None = Field(None, min_length=1)
    exact: bool = Field(False, description="compute the rows in packs of their own, as `predict` does")
    model: str | None = Field(None, description="a name of /v1/info; by default, the model of the option --model")

    @model_validator(mode="after")
    def one_form(self) -> ScoreRequest:
        """Require either `query` and `candidates`, or `queries`."""
        single = self.query is not None and self.candidates is not None
        if single == (self.queries is not None) or (self.queries and (self.query or self.candidates or self.language)):
            raise ValueError("expected either query and candidates, or queries")
        return self

    def all_queries(self) -> list[Query]:
        """Return the queries in the form of `queries`."""
        if self.queries is not None:
            return self.queries
        return [Query(query=str(self.query), candidates=self.candidates or [], language=self.language)]


class CandidateAnswer(BaseModel):
    """The answer for one candidate."""

    candidate: str
    p_relevant: float
    relevant: bool
    notes: list[str]


class QueryAnswer(BaseModel):
    """The answers for the candidates of a query, in their order."""

    query: str
    threshold: float
    answers: list[CandidateAnswer]


class ScoreResponse(BaseModel):
    """The response of ``/v1/score``."""

    task: str
    model: str
    revision: str
    results: list[QueryAnswer]


class ModelInfo(BaseModel):
    """A model of the server."""

    name: str
    revision: str
    threshold: float
    thresholds: dict[str, float] = Field(description="of languages that have their own")


class Info(BaseModel):
    """The response of ``/v1/info``."""

    task: str
    models: list[ModelInfo]
    needs_language: bool
    languages: list[str] = Field(description="ISO 639-1 codes of the training rows")
    candidate_count: int = Field(description="number of candidates of /v1/candidates")
    max_candidates: int = Field(description="of a request")
    notes: dict[str, str] = Field(description="the meaning of each note of an answer")


class Category(BaseModel):
    """A candidate that the server was started with."""

    candidate: str
    levels: list[str] = Field(description="of the category's path, from the top level down, in normal form")


class DescribeRequest(BaseModel):
    """The body of ``/v1/describe``."""

    model_config = ConfigDict(extra="forbid")

    query: Text
    language: str | None = None


class LanguageGuess(BaseModel):
    """The most likely language of a query."""

    code: str
    confidence: float


class Translation(BaseModel):
    """A translation of a query."""

    language: str
    text: str


class TrainingRow(BaseModel):
    """A labelled training row."""

    candidate: str
    language: str
    label: int


class TrainingQuery(BaseModel):
    """A training query with some of its labelled rows."""

    query: str
    similarity: float = Field(description="cosine similarity to the query of the request")
    rows: list[TrainingRow]


class Description(BaseModel):
    """The response of ``/v1/describe``."""

    language: LanguageGuess | None
    translations: list[Translation]
    training_queries: list[TrainingQuery] | None = Field(description="null without the option --show-training-rows")


class Document(BaseModel):
    """A candidate in the form of an object; other fields are ignored."""

    text: Text


class RerankRequest(BaseModel):
    """The body of ``/v1/rerank`` and ``/v2/rerank``, as Cohere's and Jina's clients send it. Other fields are ignored."""

    query: Text
    documents: list[Text | Document] = Field(min_length=1)
    model: str | None = None
    top_n: int | None = Field(None, ge=1)
    return_documents: bool | None = None
    language: str | None = Field(None, description="not a field of these APIs; as in /v1/score")

    def candidates(self) -> list[str]:
        """Return the texts of the documents."""
        return [document if isinstance(document, str) else document.text for document in self.documents]


class RerankResult(BaseModel):
    """A candidate by its index, and p(relevant)."""

    index: int
    relevance_score: float
    document: dict[str, str] | None = None


class RerankResponse(BaseModel):
    """The response of ``/v1/rerank`` and ``/v2/rerank``, with the fields of Cohere and of Jina."""

    id: str
    model: str
    results: list[RerankResult]
    meta: dict[str, Any]
    usage: dict[str, int]


class GenerativeScoringRequest(BaseModel):
    """The body of ``/generative_scoring``, as vLLM takes it.

    Token ids are scored as they are. Texts are a query and candidates, which are put into the prompt of the task.
    """

    query: Text | list[int]
    items: list[Text] | list[list[int]] = Field(min_length=1)
    label_token_ids: list[int] | None = None
    apply_softmax: Literal[True] = True
    item_first: bool = False
    model: str | None = None
    language: str | None = Field(None, description="not a field of vLLM; as in /v1/score")

    @model_validator(mode="after")
    def same_form(self) -> GenerativeScoringRequest:
        """Require texts or token ids in both fields."""
        if isinstance(self.query, str) != isinstance(self.items[0], str):
            raise ValueError("query and items must both be texts or both be token ids")
        return self


class ItemScore(BaseModel):
    """The score of an item."""

    index: int
    object: Literal["score"] = "score"
    score: float


class GenerativeScoringResponse(BaseModel):
    """The response of ``/generative_scoring``."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[ItemScore]
    usage: dict[str, int]
