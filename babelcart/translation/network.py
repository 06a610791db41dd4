"""Manners towards a server that many share: bounded concurrency and rate, patience, and knowing when to stop.

A client is made for each thread: one that threads share gives a text another text's answer. Failures that may pass (429, 5xx,
time-outs, resets, answers that cannot be read) are tried again after an exponential back-off with full jitter (Brooker,
"Exponential Backoff And Jitter", AWS Architecture Blog, 2015), or when the server says so; too many in a row open a circuit
breaker (Nygard, "Release It!", 2007), and the rest is left for the next run.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from babelcart.core.config import bounded

STOPPED = "stopped"


class TemporaryFailure(Exception):
    """A failure that may pass; `retry_after` is what the server asked for, in seconds."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class TextRefused(Exception):
    """The server will not answer this text; another text may do."""


class EngineUnavailable(Exception):
    """The server will answer no text: a wrong key, an unknown address."""


@dataclass(frozen=True)
class RateLimits:
    """How to ask an engine on the network."""

    concurrency: int = bounded(1, 256, default=8)
    # Requests a second, over all threads; 0 for no limit.
    per_second: float = bounded(0, 1e6, default=5.0)
    # Seconds until an answer.
    timeout: float = bounded(0.01, 3600, default=20.0)
    retries: int = bounded(0, 100, default=5)
    # Seconds: the first pause, the longest pause. A server that asks for more than the longest is left alone.
    pause: float = bounded(0, 3600, default=0.5)
    max_pause: float = bounded(0, 86400, default=60.0)
    # Failures in a row, over all threads, that open the circuit breaker.
    max_failures: int = bounded(1, 10_000, default=20)


class TokenBucket:
    """Lets `per_second` requests pass, none in a burst; a server's Retry-After holds back every thread."""

    def __init__(self, per_second: float) -> None:
        self._gap = 1 / per_second if per_second else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self, stop: threading.Event) -> None:
        """Return when it is this thread's turn, or at once when `stop` is set."""
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._gap
        stop.wait(max(0.0, turn - time.monotonic()))

    def hold(self, seconds: float) -> None:
        """Let nobody pass for `seconds`."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


def ask(
    make_client: Callable[[], Callable[[str], str]], texts: Sequence[str], manners: RateLimits, seed: int = 0
) -> Iterator[tuple[str, str | None, str]]:
    """Ask for every text once, many at a time.

    Parameters
    ----------
    make_client : callable
        Gives a client for one thread; a client answers one text or raises `Temporary`, `Refused` or `Broken`.
    texts : sequence of str
        Distinct.

    Yields
    ------
    tuple
        Text, answer (None if there is none), and why not; each text once, as answers come in. A text that was not asked
        because the breaker opened has a reason that begins with `STOPPED`.
    """
    bucket, stop, closed = TokenBucket(manners.per_second), threading.Event(), threading.Event()
    waiting = iter(texts)
    answers: queue.SimpleQueue[tuple[tuple[str, str | None, str] | BaseException, threading.Event]] = queue.SimpleQueue()
    lock = threading.Lock()
    failures, last = 0, ""

    def failed(reason: str, *, give_up: bool = False) -> None:
        nonlocal failures, last
        with lock:
            failures += 1
            if give_up or failures >= manners.max_failures:
                last = last or reason
                stop.set()

    def answer(client: Callable[[str], str], text: str, jitter: random.Random) -> tuple[str, str | None, str]:
        nonlocal failures
        reason = ""
        for attempt in range(manners.retries + 1):
            bucket.wait(stop)
            if stop.is_set():
                break
            try:
                found = client(text)
            except TextRefused as error:
                return text, None, str(error)
            except EngineUnavailable as error:
                failed(str(error), give_up=True)
                break
            except TemporaryFailure as error:
                reason, asked = str(error), error.retry_after
                failed(reason, give_up=asked is not None and asked > manners.max_pause)
                if asked is not None:
                    bucket.hold(min(asked, manners.max_pause))
                elif attempt < manners.retries:
                    stop.wait(jitter.uniform(0, min(manners.max_pause, manners.pause * 2**attempt)))
            else:
                with lock:
                    failures = 0
                return text, found, ""
        if stop.is_set():
            return text, None, f"{STOPPED}: {last}"
        return text, None, reason

    def work(number: int, taken: threading.Event) -> None:
        try:
            client, jitter = make_client(), random.Random(f"{seed} {number}")
            while True:
                with lock:
                    text = next(waiting, None)
                if text is None:
                    return
                answers.put((answer(client, text, jitter), taken))
                # No next request before the caller has kept this answer: a killed process loses what is in flight, no more.
                taken.wait()
                taken.clear()
                if closed.is_set():
                    return
        except BaseException as error:  # shown where the answers are read, not lost in a thread
            answers.put((error, taken))

    events = [threading.Event() for _ in range(min(manners.concurrency, len(texts)))]
    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in enumerate(events)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(len(texts)):
            got, taken = answers.get()
            if isinstance(got, BaseException):
                raise got
            yield got
            taken.set()
    finally:
        stop.set()
        closed.set()
        for event in events:
            event.set()
        for thread in threads:
            thread.join(timeout=manners.timeout)
