"""Send texts to a translation server: bounded concurrency and rate, retries, and a circuit breaker.

Each thread has a client of its own, because a shared client returns answers to other texts. Temporary failures (status
429 or 5xx, timeouts, connection resets, unreadable answers) are retried after an exponential backoff with full jitter (Brooker,
"Exponential Backoff And Jitter", AWS Architecture Blog, 2015), or at the time that the server names. Too many consecutive failures open
a circuit breaker (Nygard, "Release It!", 2007): no more requests are sent, and the remaining texts are left for the next run.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from babelcart.core.config import bounded


class TemporaryFailure(Exception):
    """A failure that a retry may fix; `retry_after` is the delay in seconds that the server requests, if any."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class TextRefused(Exception):
    """The server cannot translate this text; it may translate others.

    `is_failure` is False if the answer shows that the server works, as when a dictionary lacks a word. Otherwise, the answer counts as a
    failure for the circuit breaker, because a server that works refuses few texts.
    """

    def __init__(self, reason: str, *, is_failure: bool = True) -> None:
        super().__init__(reason)
        self.is_failure = is_failure


class EngineUnavailable(Exception):
    """The server cannot translate any text, for example because the key is wrong or the address unknown."""


@dataclass(frozen=True)
class RateLimits:
    """Limits on the requests to an engine on the network."""

    concurrency: int = bounded(1, 256, default=8)
    # Requests per second of all threads together; 0 for no limit.
    per_second: float = bounded(0, 1e6, default=5.0)
    # Seconds to wait for an answer.
    timeout: float = bounded(0.01, 3600, default=20.0)
    retries: int = bounded(0, 100, default=5)
    # Seconds: the first and the longest pause before a retry. A server that requests a longer pause is not asked again in this run.
    pause: float = bounded(0, 3600, default=0.5)
    max_pause: float = bounded(0, 86400, default=60.0)
    # Consecutive failures of all threads together that open the circuit breaker.
    max_failures: int = bounded(1, 10_000, default=20)


class RateLimiter:
    """Space requests evenly, without bursts.

    Parameters
    ----------
    per_second : float
        Requests per second; 0 for no limit.
    """

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second if per_second else 0.0  # seconds
        self._next_time = 0.0  # of time.monotonic()
        self._lock = threading.Lock()

    def wait(self, stop: threading.Event) -> None:
        """Block until the calling thread may send a request, or until `stop` is set."""
        with self._lock:
            send_time = max(self._next_time, time.monotonic())
            self._next_time = send_time + self._interval
        stop.wait(max(0.0, send_time - time.monotonic()))

    def hold(self, seconds: float) -> None:
        """Block all threads for `seconds`, from now on."""
        with self._lock:
            self._next_time = max(self._next_time, time.monotonic() + seconds)


class CircuitBreaker:
    """Count consecutive failures of all threads, and set `stop` after `max_failures` of them.

    Parameters
    ----------
    max_failures : int
    failures : int
        Consecutive failures before the first request.
    """

    def __init__(self, max_failures: int, failures: int = 0) -> None:
        self.stop = threading.Event()
        self.reason = ""
        self.failures = failures
        self._max_failures = max_failures
        self._lock = threading.Lock()

    def record_success(self) -> None:
        """Reset the count of failures."""
        with self._lock:
            self.failures = 0

    def record_failure(self, reason: str, *, fatal: bool = False) -> None:
        """Count a failure. A fatal failure opens the breaker at once; the failure that opens it sets `reason`."""
        with self._lock:
            self.failures += 1
            if fatal or self.failures >= self._max_failures:
                self.reason = self.reason or reason
                self.stop.set()


class Failure(NamedTuple):
    """The reason why a text has no translation; `stopped` if the circuit breaker was open."""

    reason: str
    stopped: bool = False


Response = str | Failure


@dataclass
class _Worker:
    """State of a thread: its source of jitter, and the event that lets it continue after the caller has stored its last response."""

    jitter: random.Random
    stored: threading.Event = field(default_factory=threading.Event)


class RequestPool:
    """Translate many texts concurrently, with one request per text.

    Parameters
    ----------
    make_client : callable
        Makes the client of one thread. A client translates one text, or raises `TemporaryFailure`, `TextRefused` or
        `EngineUnavailable`.
    texts : sequence of str
        Distinct texts.
    limits : RateLimits
    seed : int
        Seed of the jitter.
    failures : int
        Consecutive failures of the same server before this pool; see the attribute `failures`.
    """

    def __init__(
        self, make_client: Callable[[], Callable[[str], str]], texts: Sequence[str], limits: RateLimits, seed: int = 0, failures: int = 0
    ) -> None:
        self._make_client, self._texts, self._limits, self._seed = make_client, texts, limits, seed
        self._limiter = RateLimiter(limits.per_second)
        self._breaker = CircuitBreaker(limits.max_failures, failures)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._remaining = iter(texts)
        self._responses: queue.SimpleQueue[tuple[_Worker, str, Response | BaseException]] = queue.SimpleQueue()

    @property
    def failures(self) -> int:
        """Consecutive failures up to now."""
        return self._breaker.failures

    def responses(self) -> Iterator[tuple[str, Response]]:
        """Send every text once. A pool can be used only once.

        A thread sends its next request only after the caller has taken the next response. A caller that stores each response before it
        takes the next one therefore loses, if it is killed, only the requests in flight.

        Yields
        ------
        tuple
            A text and its translation or failure, in the order in which responses arrive.

        Raises
        ------
        EngineUnavailable
            Or another exception of `make_client`.
        """
        worker_count = min(self._limits.concurrency, len(self._texts))
        workers = [_Worker(random.Random(f"{self._seed} {worker_index}")) for worker_index in range(worker_count)]
        threads = [threading.Thread(target=self._work, args=(worker,), daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        try:
            for _ in self._texts:
                worker, text, response = self._responses.get()
                if isinstance(response, BaseException):
                    raise response
                yield text, response
                worker.stored.set()
        finally:
            self._breaker.stop.set()
            self._closed.set()
            for worker in workers:
                worker.stored.set()
            for thread in threads:
                thread.join(timeout=self._limits.timeout)

    def _work(self, worker: _Worker) -> None:
        """Process texts in one thread, until none remains or the caller stops."""
        try:
            client = self._make_client()
            while not self._closed.is_set():
                with self._lock:
                    text = next(self._remaining, None)
                if text is None:
                    return
                self._responses.put((worker, text, self._request(client, text, worker.jitter)))
                worker.stored.wait()
                worker.stored.clear()
        except BaseException as error:  # raised by `responses`, in the thread of the caller
            self._responses.put((worker, "", error))

    def _request(self, client: Callable[[str], str], text: str, jitter: random.Random) -> Response:
        """Send one text, with retries."""
        reason = ""
        for attempt in range(self._limits.retries + 1):
            self._limiter.wait(self._breaker.stop)
            if self._breaker.stop.is_set():
                break
            try:
                translation = client(text)
            except TextRefused as error:
                if error.is_failure:
                    self._breaker.record_failure(str(error))
                return Failure(str(error))
            except EngineUnavailable as error:
                self._breaker.record_failure(str(error), fatal=True)
                break
            except TemporaryFailure as error:
                reason = str(error)
                self._back_off(error, attempt, jitter)
            else:
                self._breaker.record_success()
                return translation
        if self._breaker.stop.is_set():
            return Failure(f"stopped: {self._breaker.reason}", stopped=True)
        return Failure(reason)

    def _back_off(self, failure: TemporaryFailure, attempt: int, jitter: random.Random) -> None:
        """Record a temporary failure and wait before the next attempt."""
        max_pause = self._limits.max_pause
        delay = failure.retry_after
        self._breaker.record_failure(str(failure), fatal=delay is not None and delay > max_pause)
        if delay is not None:
            self._limiter.hold(min(delay, max_pause))
        elif attempt < self._limits.retries:
            self._breaker.stop.wait(jitter.uniform(0, min(max_pause, self._limits.pause * 2**attempt)))
