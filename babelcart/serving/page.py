"""The page at ``/``, for people who want to try a model in a browser, and the requests that it sends in addition to ``/v1/score``.

The page has the style of the report. It loads nothing from other hosts, and its Content-Security-Policy allows no script but its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fastapi import FastAPI, Response

from babelcart.domain import NOTES
from babelcart.rows import taxonomy
from babelcart.serving import schemas
from babelcart.serving.describe import Describer
from babelcart.serving.engine import Busy, Engine
from babelcart.serving.guard import Limits, language_code, queue_is_full, result_in_time

FOLDER = Path(__file__).parent
REPORT = FOLDER.parent / "report"
# Path -> files that it consists of, and their type.
FILES = {
    "/": ([FOLDER / "page.html"], "text/html"),
    "/page.css": ([REPORT / "report.css", FOLDER / "page.css"], "text/css"),
    "/page.js": ([REPORT / "common.js", FOLDER / "page.js"], "text/javascript"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class Page:
    """The page and its requests.

    Attributes
    ----------
    engine : Engine
    limits : Limits
    describer : Describer
        Must have been started.
    candidates : sequence of str
        The categories of the shop, from which a user can choose.
    """

    engine: Engine
    limits: Limits
    describer: Describer
    candidates: Sequence[str] = ()

    @cached_property
    def _categories(self) -> list[schemas.Category]:
        separator = taxonomy.find_separator(self.candidates)
        return [schemas.Category(candidate=path, levels=list(taxonomy.levels(path, separator))) for path in self.candidates]

    def add_to(self, app: FastAPI) -> None:
        """Add the files and the requests to an application."""
        for path, (files, kind) in FILES.items():
            content = "\n".join(file.read_text(encoding="utf-8") for file in files)
            app.get(path, include_in_schema=False)(_file(content, kind))
        app.get("/v1/info")(self.info)
        app.get("/v1/candidates")(self.categories)
        app.post("/v1/describe")(self.describe)

    async def info(self) -> schemas.Info:
        """Return the models, and what requests may contain."""
        models = []
        for model in self.engine.models:
            decision = model.scorer.decision
            models.append(
                schemas.ModelInfo(
                    name=model.name, revision=model.scorer.revision, threshold=decision.threshold, thresholds=decision.languages
                )
            )
        domain = self.engine.models[0].scorer.domain
        return schemas.Info(
            task=self.engine.models[0].scorer.task,
            models=models,
            needs_language=any(model.scorer.needs_language for model in self.engine.models),
            languages=sorted(domain.languages) if domain else [],
            candidate_count=len(self.candidates),
            max_candidates=self.limits.candidates,
            notes=NOTES,
        )

    def categories(self) -> list[schemas.Category]:
        """Return the candidates of the option --candidates with the levels of their paths."""
        return self._categories

    async def describe(self, body: schemas.DescribeRequest) -> schemas.Description:
        """Return the language of a query, its translations and the nearest training queries."""
        try:
            future = self.describer.submit(body.query, language_code(body.language))
        except Busy as error:
            raise queue_is_full(error) from None
        late = f"the query was not described within {self.limits.seconds:g} seconds"
        return await result_in_time(future, self.limits.seconds, late, "the query could not be described")


def _file(content: str, kind: str) -> Callable[[], Awaitable[Response]]:
    async def file() -> Response:
        return Response(content, media_type=kind, headers=HEADERS)

    return file
