"""The HTTP interface of an engine, as a FastAPI application."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteError

from babelcart import __version__
from babelcart.core.errors import UserError
from babelcart.model.packing import TokenRow
from babelcart.model.prompts import RowTexts
from babelcart.serving import schemas
from babelcart.serving.engine import Answer, Busy, Engine, ServedModel, Stopping
from babelcart.serving.guard import Guard, Limits, error_response, language_code, queue_is_full, result_in_time
from babelcart.serving.page import Page

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

CLIENT_CLOSED_REQUEST = 499  # nginx's status of a request whose client disconnected


class Metrics:
    """The metrics of ``/metrics``."""

    def __init__(self, engine: Engine) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("babelcart_requests", "Requests", ["path", "status"], registry=self.registry)
        self.seconds = Histogram("babelcart_request_seconds", "Time of a request", ["path"], registry=self.registry)
        self.pairs = Counter("babelcart_pairs", "Scored pairs of query and candidate", registry=self.registry)
        self.pack_rows = Histogram("babelcart_pack_rows", "Rows of a pack", buckets=[2**n for n in range(12)], registry=self.registry)
        self.pack_seconds = Histogram("babelcart_pack_seconds", "Time of a pack", registry=self.registry)
        Gauge("babelcart_waiting_rows", "Rows in the queue", registry=self.registry).set_function(lambda: engine.waiting_rows)

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Return an ASGI application that counts the requests of another. Requests of clients that disconnected have the status 499."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            start, status = time.perf_counter(), CLIENT_CLOSED_REQUEST

            async def send_noted(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await app(scope, receive, send_noted)
            except Exception:  # the response has the status 500
                status = 500
                raise
            finally:
                path = getattr(scope.get("route"), "path", "other")
                self.requests.labels(path, status).inc()
                self.seconds.labels(path).observe(time.perf_counter() - start)

        return counted

    def add_pack(self, rows: int, seconds: float) -> None:
        """Count a pack."""
        self.pairs.inc(rows)
        self.pack_rows.observe(rows)
        self.pack_seconds.observe(seconds)


@dataclass(frozen=True)
class Service:
    """The requests that an engine answers.

    Attributes
    ----------
    engine : Engine
    limits : Limits
    metrics : Metrics
    reload : callable, optional
        Loads the current adapter into the engine.
    """

    engine: Engine
    limits: Limits
    metrics: Metrics
    reload: Callable[[], None] | None

    @property
    def default_model(self) -> ServedModel:
        """The model that answers requests that choose none."""
        return self.engine.models[0]

    async def score(self, body: schemas.ScoreRequest) -> schemas.ScoreResponse:
        """Score one query or several queries, each with its candidates."""
        queries, model = body.all_queries(), self._model(body.model)
        scorer = model.scorer
        self._check_count(sum(len(query.candidates) for query in queries))
        texts = [self._texts(model, query.query, query.candidates, query.language) for query in queries]
        flat = [row for rows in texts for row in rows]
        rows = await run_in_threadpool(scorer.tokenizer.encode_many, flat)
        notes = iter(await run_in_threadpool(scorer.notes, flat))
        answered = await self._answer(model, rows, body.exact)
        probability = iter(answered.probability)
        results = []
        for query, query_texts in zip(queries, texts, strict=True):
            threshold = answered.decision.threshold_of(query_texts[0].language)
            answers = []
            for row in query_texts:
                p = next(probability)
                answers.append(schemas.CandidateAnswer(candidate=row.candidate, p_relevant=p, relevant=p >= threshold, notes=next(notes)))
            results.append(schemas.QueryAnswer(query=query.query, threshold=threshold, answers=answers))
        return schemas.ScoreResponse(task=scorer.task, model=model.name, revision=answered.revision, results=results)

    async def rerank(self, body: schemas.RerankRequest) -> schemas.RerankResponse:
        """Order candidates by p(relevant), with requests and responses as those of Cohere and Jina."""
        candidates, model = body.candidates(), self.default_model
        self._check_count(len(candidates))
        texts = self._texts(model, body.query, candidates, body.language)
        rows = await run_in_threadpool(model.scorer.tokenizer.encode_many, texts)
        probability = (await self._answer(model, rows)).probability
        results = []
        for index in sorted(range(len(candidates)), key=lambda index: (-probability[index], index))[: body.top_n]:
            document = {"text": candidates[index]} if body.return_documents else None
            results.append(schemas.RerankResult(index=index, relevance_score=probability[index], document=document))
        meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
        usage = {"total_tokens": _count_tokens(rows)}
        return schemas.RerankResponse(id=str(uuid.uuid4()), model=model.name, results=results, meta=meta, usage=usage)

    async def generative_scoring(self, body: schemas.GenerativeScoringRequest) -> schemas.GenerativeScoringResponse:
        """Score items with a query, with requests and responses as those of vLLM."""
        self._check_count(len(body.items))
        model = self.default_model
        scorer = model.scorer
        labels = [scorer.tokenizer.labels.positive, scorer.tokenizer.labels.negative]
        if body.label_token_ids not in (None, labels):
            raise HTTPException(
                400, f"label_token_ids is {body.label_token_ids}; accepted: {labels}, the tokens of the positive and the negative label"
            )
        if isinstance(body.query, str):
            texts = self._texts(model, body.query, [str(item) for item in body.items], body.language)
            rows = await run_in_threadpool(scorer.tokenizer.encode_many, texts)
        else:
            rows = self._token_rows(body.query, body.items, body.item_first)
        answered, tokens = await self._answer(model, rows), _count_tokens(rows)
        return schemas.GenerativeScoringResponse(
            id=f"score-{uuid.uuid4()}",
            created=int(time.time()),
            model=model.name,
            data=[schemas.ItemScore(index=index, score=p) for index, p in enumerate(answered.probability)],
            usage={"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
        )

    async def load_again(self) -> dict[str, str]:
        """Load the current adapter. Requests that have begun are completed with the previous one, and none is lost."""
        if self.reload is None:
            raise HTTPException(
                409, "the server has only adapters of fixed revisions; start it without --rev to load the adapter of the workspace"
            )
        try:
            await asyncio.wrap_future(self.engine.between_requests(self.reload))
        except UserError as error:
            raise HTTPException(409, str(error)) from error
        except Stopping:
            raise HTTPException(503, "the server is stopping") from None
        return {"revision": self.default_model.scorer.revision}

    async def healthy(self) -> dict[str, str]:
        """Whether the process works."""
        if not self.engine.is_alive:
            raise HTTPException(503, "the engine has ended")
        return {"status": "ok"}

    async def ready(self) -> dict[str, str]:
        """Whether requests are accepted."""
        if not self.engine.is_ready:
            raise HTTPException(503, "the server is stopping")
        scorer = self.default_model.scorer
        return {"status": "ok", "model": self.default_model.name, "task": scorer.task, "revision": scorer.revision}

    async def prometheus(self) -> Response:
        """Metrics in the format of Prometheus."""
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    def _model(self, name: str | None) -> ServedModel:
        models = {model.name: model for model in self.engine.models}
        if name is not None and name not in models:
            raise HTTPException(422, f"model is {name!r}; accepted: {', '.join(models)}")
        return self.default_model if name is None else models[name]

    async def _answer(self, model: ServedModel, rows: Sequence[TokenRow], exact: bool = False) -> Answer:
        try:
            future = self.engine.submit(model, rows, exact)
        except Busy as error:
            raise queue_is_full(error) from None
        except Stopping:
            raise HTTPException(503, "the server is stopping", {"Retry-After": "1"}) from None
        late = f"not answered within {self.limits.seconds:g} seconds; send fewer candidates in a request"
        return await result_in_time(future, self.limits.seconds, late, "the rows could not be computed")

    def _texts(self, model: ServedModel, query: str, candidates: Sequence[str], language: str | None) -> list[RowTexts]:
        code = language_code(language) or ""
        if not code and model.scorer.needs_language:
            raise HTTPException(422, "language is missing, but the prompt or a threshold depends on it; send an ISO 639-1 code, such as de")
        return [RowTexts(code, query, candidate) for candidate in candidates]

    def _check_count(self, candidates: int) -> None:
        if candidates > self.limits.candidates:
            raise HTTPException(413, f"the request has {candidates:,} candidates; accepted: at most {self.limits.candidates:,}")

    def _token_rows(self, query: list[int], items: Sequence[Any], item_first: bool) -> list[TokenRow]:
        """Return the rows of prompts that are given in token ids."""
        scorer = self.default_model.scorer
        size, prompt = scorer.model.get_input_embeddings().num_embeddings, scorer.task_model.prompt
        longest = prompt.max_query_tokens + prompt.max_candidate_tokens + len(scorer.tokenizer.encode("en", "", "").tokens)
        rows = []
        for item in items:
            tokens = (*item, *query) if item_first else (*query, *item)
            if not tokens or len(tokens) > longest or not all(0 <= token < size for token in tokens):
                raise HTTPException(422, f"a prompt has {len(tokens)} tokens; accepted: 1 to {longest:,}, each from 0 to {size - 1:,}")
            rows.append(TokenRow(tokens, tokens, ()))
        return rows


def _count_tokens(rows: Sequence[TokenRow]) -> int:
    return sum(len(row.tokens) for row in rows)


def build_app(
    engine: Engine, limits: Limits, key: str | None = None, reload: Callable[[], None] | None = None, page: Page | None = None
) -> FastAPI:
    """Return the application that answers with an engine.

    Parameters
    ----------
    engine : Engine
        It has been started, and is stopped together with the application.
    limits : Limits
    key : str, optional
        Key that every request must have.
    reload : callable, optional
        Loads the current adapter into the engine; called for ``POST /v1/reload``.
    page : Page, optional
        The page for browsers, which is stopped together with the application.
    """
    metrics = Metrics(engine)
    engine.on_pack = metrics.add_pack
    service = Service(engine, limits, metrics, reload)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(engine.stop)
        if page:
            await run_in_threadpool(page.describer.stop)

    app = FastAPI(title="Babelcart", version=__version__, lifespan=lifespan)
    app.add_middleware(Guard, limits=limits, key=key)
    app.add_middleware(metrics.middleware)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(StarletteError, _refused)
    app.post("/v1/score")(service.score)
    for path in ("/v1/rerank", "/v2/rerank"):
        app.post(path, response_model_exclude_none=True)(service.rerank)
    app.post("/generative_scoring")(service.generative_scoring)
    app.post("/v1/reload")(service.load_again)
    app.get("/healthz")(service.healthy)
    app.get("/readyz")(service.ready)
    app.get("/metrics")(service.prometheus)
    if page:
        page.add_to(app)
    return app


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """Return the first problem of a body."""
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": str(error)}
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    message = str(first["msg"]).removeprefix("Value error, ")  # pydantic's prefix of the messages of our own checks
    return error_response(422, f"{place}: {message}" if place else message)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    """Return an error that the service raised, or that no path matches."""
    if not isinstance(error, StarletteError):
        raise error
    return error_response(error.status_code, str(error.detail), dict(error.headers or {}))
