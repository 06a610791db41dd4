"""Describe a query: its language, its translations, and the nearest labelled training rows.

One thread does this work, because an SQLite connection belongs to the thread that opened it. Queries are not sent to other machines, and
translations of queries are kept until the server stops.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from babelcart.core import config
from babelcart.core.errors import UserError
from babelcart.core.files import temporary_folder
from babelcart.embedding.encoders import EncoderSettings, build_encoder, embed_texts
from babelcart.inspection.languages import guess_language
from babelcart.rows.table import read_table
from babelcart.rows.text import normalise
from babelcart.serving import schemas
from babelcart.serving.engine import Busy
from babelcart.translation import engines, memory_files
from babelcart.translation.settings import TranslateSettings
from babelcart.translation.translation_memory import Memory
from babelcart.translation.translator import Answer, Source, Translator

if TYPE_CHECKING:
    import numpy as np

SCRATCH = Path(".scratch")
MAX_WAITING = 32  # requests
TRANSLATIONS = 8  # of a query
TRAINING_QUERIES = 5
ROWS_OF_QUERY = 5


class Describer:
    """Describes queries in a thread of its own.

    Parameters
    ----------
    task : str
    translate_to : str, optional
        ISO 639-1 code. Queries that the translation memory lacks are translated into this language by the engines of ``translate.chain``
        in params.yaml that run on this machine. Without it, only the memory is used.
    training_rows : bool
        Show labelled training rows.
    """

    def __init__(self, task: str, translate_to: str | None = None, training_rows: bool = False) -> None:
        self.task, self.translate_to, self.training_rows = task, translate_to, training_rows
        self._executor = ThreadPoolExecutor(1, "describer")
        self._resources = ExitStack()
        self._room = threading.BoundedSemaphore(MAX_WAITING)
        self._translations: dict[str, list[tuple[str, str]]] = {}
        self._translate: Callable[[str, str], str | None] = lambda language, query: None
        self._nearest: Callable[[str], list[schemas.TrainingQuery]] | None = None

    def start(self) -> None:
        """Read the memories and the training rows; raise `UserError` if that fails."""
        self._executor.submit(self._load).result()

    def stop(self) -> None:
        """Complete the requests that wait, and end the thread."""
        self._executor.submit(self._resources.close).result()  # SQLite wants the thread that opened the memory
        self._executor.shutdown()

    def submit(self, query: str, language: str | None) -> Future[schemas.Description]:
        """Describe a query.

        Parameters
        ----------
        query : str
        language : str, optional
            ISO 639-1 code; otherwise the guess is used for the translation.

        Raises
        ------
        Busy
            If `MAX_WAITING` queries wait.
        """
        if not self._room.acquire(blocking=False):
            raise Busy(1.0)
        future = self._executor.submit(self._describe, query, language)
        future.add_done_callback(lambda _: self._room.release())
        return future

    def _load(self) -> None:
        settings = config.load_section(TranslateSettings)
        self._translations = known_translations([Path(settings.memory), Path(f"memory/{self.task}.csv")])
        if self.translate_to:
            folder = self._resources.enter_context(temporary_folder(SCRATCH, "describe-"))
            self._translate = live_translator(settings, self.translate_to, self._resources.enter_context(Memory(folder / "memory.sqlite")))
        if self.training_rows:
            self._nearest = nearest_training_queries(Path(f"build/negatives/{self.task}.parquet"))

    def _describe(self, query: str, language: str | None) -> schemas.Description:
        guess = guess_language(query)
        known = self._translations.get(normalise(query), [])
        source = language or (guess[0] if guess else None)
        if source and not any(target == self.translate_to for target, _ in known) and (translation := self._translate(source, query)):
            known = [(str(self.translate_to), translation), *known]
        translations = [schemas.Translation(language=target, text=text) for target, text in known[:TRANSLATIONS]]
        return schemas.Description(
            language=schemas.LanguageGuess(code=guess[0], confidence=guess[1]) if guess else None,
            translations=translations,
            training_queries=self._nearest(query) if self._nearest else None,
        )


def known_translations(paths: list[Path]) -> dict[str, list[tuple[str, str]]]:
    """Read translation memories in both directions.

    Returns
    -------
    dict
        Text in normal form -> languages and texts of its translations, English first.
    """
    known: defaultdict[str, dict[tuple[str, str], None]] = defaultdict(dict)  # a dict keeps the order and no duplicates
    for path in paths:
        if path.exists():
            for entry in memory_files.read_file(path):
                known[entry.text][entry.target, entry.translation] = None
                known[normalise(entry.translation)][entry.source, entry.text] = None
    return {text: sorted(translations, key=lambda pair: (pair[0] != "en", pair)) for text, translations in known.items()}


def live_translator(settings: TranslateSettings, target: str, memory: Memory) -> Callable[[str, str], str | None]:
    """Return a function that translates a query with the engines of the chain that run on this machine.

    Raises
    ------
    UserError
        If the chain has no such engine.
    """
    sources = []
    for name in settings.chain:
        engine = engines.build(name, settings.engines[name], SCRATCH, settings.network.timeout, settings.local_model)
        if not engine.network:
            sources.append(Source(name, engine.version, engine))
    if not sources:
        chain = ", ".join(settings.chain) or "empty"
        raise UserError(
            f"params.yaml: no engine of translate.chain ({chain}) runs on this machine, and queries are not sent to "
            "other machines. Add an engine of the kind neural, seq2seq or llm, or leave out --translate-to"
        )
    translator = Translator(memory, sources, settings)

    def translate(source: str, query: str) -> str | None:
        if source == target:
            return None
        (answer,) = translator.translate((source, target), [query]).values()
        return answer.translation if isinstance(answer, Answer) else None

    return translate


def nearest_training_queries(path: Path) -> Callable[[str], list[schemas.TrainingQuery]]:
    """Return a function that finds the labelled training queries nearest to a query, by the encoder of ``negatives.encoder``.

    Raises
    ------
    UserError
        If the file of training rows does not exist, or the encoder cannot be loaded.
    """
    import numpy as np

    if not path.exists():
        raise UserError(f"{path} does not exist, so that no training rows can be shown; run `dvc repro`, or `dvc pull {path}`")
    rows = read_table(path, "origin", labelled=True)
    rows = rows[rows["origin"] == "native"]
    settings = config.load("negatives.encoder", EncoderSettings)
    groups = {str(group["origin_query"].iloc[0]): group for _, group in rows.groupby(rows["origin_query"].map(normalise), sort=False)}
    encoder = build_encoder(settings, SCRATCH, lambda: list(groups), config.load("negatives.local_model", str))
    queries, vectors = embed_texts(
        groups, encoder, SCRATCH / "vectors.sqlite", batch_size=settings.batch_size, prefix=settings.query_prefix
    )  # (queries, dimensions)

    def nearest(query: str) -> list[schemas.TrainingQuery]:
        similarity: np.ndarray = vectors @ encoder.encode([settings.query_prefix + query])[0]  # (queries,)
        best = np.argsort(-similarity, kind="stable")[:TRAINING_QUERIES].tolist()
        return [
            schemas.TrainingQuery(
                query=queries[index],
                similarity=float(similarity[index]),
                rows=[
                    schemas.TrainingRow(candidate=row.candidate, language=row.language, label=int(row.label))
                    for row in groups[queries[index]].head(ROWS_OF_QUERY).itertuples()
                ],
            )
            for index in best
        ]

    return nearest
