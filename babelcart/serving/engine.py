"""Score the rows of concurrent requests: one thread computes, and a pack has rows of several requests.

A pack takes rows of every waiting request in turn, so that a small request does not wait until a large one is complete.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from babelcart.core.errors import UserError
from babelcart.model.batching import scoring_packs, sort_by_tokens
from babelcart.model.packing import TokenRow, new_tokens
from babelcart.model.prefix_cache import PrefixCache, PrefixTree

if TYPE_CHECKING:
    from babelcart.scorer import Scorer
    from babelcart.scores.metrics import Decision

RECENT_PACKS = 16  # the time that waiting rows take is estimated from these


class Busy(Exception):
    """The queue is full. `seconds` is an estimate of the time until it has room."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Stopping(Exception):
    """The engine accepts no further requests."""


@dataclass
class Answer:
    """The result of a request.

    Attributes
    ----------
    probability : list of float
        p(relevant) of each row.
    revision : str
        Revision of the adapter that computed all rows.
    decision : Decision
        The thresholds of this adapter.
    """

    probability: list[float]
    revision: str
    decision: Decision


@dataclass(eq=False)
class ServedModel:
    """A model that answers requests.

    Attributes
    ----------
    name : str
        The name by which requests choose it.
    scorer : Scorer
    cache : PrefixCache
        The computed prefixes of the candidates, for all requests.
    """

    name: str
    scorer: Scorer
    cache: PrefixCache


@dataclass(eq=False)
class _Request:
    model: ServedModel
    rows: Sequence[TokenRow]
    exact: bool
    future: Future[Answer] = field(default_factory=Future)
    order: deque[int] = field(default_factory=deque)  # rows that are not computed, sorted by their tokens
    packs: deque[list[int]] = field(default_factory=deque)  # those of an exact request
    probability: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.order = deque(sort_by_tokens(range(len(self.rows)), self.rows))
        self.probability = [float("nan")] * len(self.rows)

    @property
    def has_begun(self) -> bool:
        return len(self.order) < len(self.rows)


class Engine:
    """A queue of requests and the thread that computes them.

    Parameters
    ----------
    load : callable
        Returns the models, first the one that answers requests that choose none. The thread of the engine calls it: on a CPU, computing
        in another thread than the first one that computed takes 50 % longer (measured with libgomp).
    pack_tokens : int
        Maximum number of tokens of a pack. Larger packs give more rows per second, and a longer wait for each request.
    max_rows : int
        Maximum number of waiting rows. Further requests are refused with `Busy`.
    max_seconds : float
        Requests are also refused if the waiting rows are expected to take longer.

    Attributes
    ----------
    on_pack : callable
        Called with the rows and the seconds of each pack.
    models : sequence of ServedModel
        After `start`.
    """

    models: Sequence[ServedModel]

    def __init__(
        self,
        load: Callable[[], Sequence[ServedModel]],
        pack_tokens: int,
        max_rows: int,
        max_seconds: float = math.inf,
    ) -> None:
        self.pack_tokens, self.max_rows, self.max_seconds = pack_tokens, max_rows, max_seconds
        self.on_pack: Callable[[int, float], object] = lambda rows, seconds: None
        self._load = load
        self._loaded: Future[None] = Future()
        self._requests: deque[_Request] = deque()
        self._change: tuple[Callable[[], object], Future[None]] | None = None
        self._wake = threading.Condition()
        self._stopping = False
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT_PACKS)  # rows and seconds of each pack
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread, and wait until it has loaded the model; raise what `load` raises."""
        self._thread.start()
        self._loaded.result()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def is_ready(self) -> bool:
        """Whether requests are accepted."""
        return self._thread.is_alive() and not self._stopping

    @property
    def waiting_rows(self) -> int:
        """Number of rows that are not computed, without those of cancelled requests."""
        return sum(len(request.order) for request in list(self._requests) if not request.future.cancelled())

    def submit(self, model: ServedModel, rows: Sequence[TokenRow], exact: bool = False) -> Future[Answer]:
        """Add a request to the queue.

        Parameters
        ----------
        model : ServedModel
            One of `models`.
        rows : sequence of TokenRow
            At least one row.
        exact : bool
            Compute the rows in packs of their own, as `predict` computes a file of these rows. In bfloat16, p depends on the other rows
            of a pack by rounding.

        Returns
        -------
        concurrent.futures.Future of Answer
            Cancelling it removes the request.

        Raises
        ------
        Busy
            If rows wait, and more would wait than `max_rows`, or those that wait are expected to take longer than `max_seconds`.
        Stopping
            After `stop`.
        """
        with self._wake:
            if not self.is_ready:
                raise Stopping
            waiting = self.waiting_rows
            seconds = waiting * self._seconds_per_row()
            if waiting and (waiting + len(rows) > self.max_rows or seconds > self.max_seconds):
                raise Busy(seconds)
            request = _Request(model, rows, exact)
            self._requests.append(request)
            self._wake.notify()
        return request.future

    def between_requests(self, change: Callable[[], object]) -> Future[None]:
        """Call a function in the thread of the engine, when every request that has begun is complete. Others wait and are not lost."""
        with self._wake:
            if not self.is_ready:
                raise Stopping
            if self._change is not None:
                raise UserError("another adapter is being loaded; try again when that is done")
            self._change = (change, Future())
            self._wake.notify()
            return self._change[1]

    def stop(self) -> None:
        """Compute the requests in the queue, accept no others, and end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _seconds_per_row(self) -> float:
        packs = list(self._recent)  # the thread adds to it
        return sum(seconds for _, seconds in packs) / sum(rows for rows, _ in packs) if packs else 0.0

    def _run(self) -> None:
        try:
            self.models = self._load()
        except BaseException as error:
            self._loaded.set_exception(error)
            return
        self._loaded.set_result(None)
        while True:
            with self._wake:
                while not (self._requests or self._change or self._stopping):
                    self._wake.wait()
                self._drop_cancelled()
                change = self._change
                may_begin = change is None
                pack = self._next_pack(may_begin)
                if not pack and change is None and self._stopping and not self._requests:
                    return
            if pack:
                self._compute(pack)
            elif change is not None:
                self._apply(*change)

    def _drop_cancelled(self) -> None:
        if any(request.future.cancelled() for request in self._requests):
            self._requests = deque(request for request in self._requests if not request.future.cancelled())

    def _next_pack(self, may_begin: bool) -> list[tuple[_Request, list[int]]]:
        """Take rows of the requests in turn, up to the tokens of a pack; without `may_begin`, only of requests that have begun.

        All rows of a pack are for the same model. A pack of an exact request has no other rows.
        """
        ready = [request for request in self._requests if may_begin or request.has_begun]
        if ready and ready[0].exact:
            pack = [(ready[0], self._exact_pack(ready[0]))]
        else:
            pack = self._shared_pack([request for request in ready if not request.exact and request.model is ready[0].model])
        for request, _ in pack:  # incomplete requests go to the end of the queue
            self._requests.remove(request)
            if request.order:
                self._requests.append(request)
        return pack

    def _shared_pack(self, ready: list[_Request]) -> list[tuple[_Request, list[int]]]:
        """Take rows of requests, up to the tokens of a pack."""
        pack: list[tuple[_Request, list[int]]] = []
        tokens = 0
        for number, request in enumerate(ready):
            share = tokens + (self.pack_tokens - tokens) // (len(ready) - number)
            indices: list[int] = []
            previous: tuple[int, ...] = ()
            while request.order:
                row = request.rows[request.order[0]].tokens
                row_tokens = new_tokens(row, previous, request.model.cache.tree)
                if (indices or pack) and tokens + row_tokens > (share if indices else self.pack_tokens):
                    break
                indices.append(request.order.popleft())
                tokens, previous = tokens + row_tokens, row
            if indices:
                pack.append((request, indices))
        return pack

    def _exact_pack(self, request: _Request) -> list[int]:
        """Take the next pack that `predict` would compute for the rows of a request."""
        settings = request.model.scorer.settings
        if not request.has_begun:
            request.packs = deque(scoring_packs(request.rows, settings.max_tokens, settings.chunk_rows))
        indices = request.packs.popleft()
        for _ in indices:
            request.order.popleft()
        return indices

    def _compute(self, pack: list[tuple[_Request, list[int]]]) -> None:
        model, exact = pack[0][0].model, pack[0][0].exact
        rows = [request.rows[index] for request, indices in pack for index in indices]
        start = time.perf_counter()
        try:
            cache = PrefixCache(PrefixTree()) if exact else model.cache
            probability = iter(model.scorer.chunk_probability(rows, cache).tolist())
        except Exception as error:
            for request, _ in pack:
                with self._wake:
                    if request in self._requests:
                        self._requests.remove(request)
                _finish(request.future, error)
            return
        seconds = time.perf_counter() - start
        self._recent.append((len(rows), seconds))
        self.on_pack(len(rows), seconds)
        for request, indices in pack:
            for index in indices:
                request.probability[index] = next(probability)
            if not request.order:
                _finish(request.future, Answer(request.probability, model.scorer.revision, model.scorer.decision))

    def _apply(self, change: Callable[[], object], future: Future[None]) -> None:
        try:
            change()
            outcome = None
        except Exception as error:
            outcome = error
        with self._wake:
            self._change = None
        _finish(future, outcome)


def _finish(future: Future[Any], outcome: object) -> None:
    """Give a future its result or error, unless it was cancelled."""
    if future.set_running_or_notify_cancel():
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
