"""Limits of requests, the key, and the form of errors: the checks before the application gets a request."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from fastapi import HTTPException
from fastapi.responses import JSONResponse

from babelcart.core.errors import UserError
from babelcart.rows import languages
from babelcart.serving.engine import Busy

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


Result = TypeVar("Result")
CLOSE = {"Connection": "close"}  # the rest of a body that was not read would be taken for the next request


@dataclass(frozen=True)
class Limits:
    """Limits of a request.

    Attributes
    ----------
    candidates : int
        Maximum number of candidates, of all queries of a request together.
    body_bytes : int
    body_seconds : float
        Time in which the body must arrive.
    seconds : float
        Time in which a request must be answered.
    """

    candidates: int = 1000
    body_bytes: int = 1 << 20
    body_seconds: float = 10
    seconds: float = 30


def error_response(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an error with the fields in which the clients of Cohere (`message`), Jina (`detail`) and vLLM (`error`) look for the text."""
    error = {"message": message, "type": "invalid_request_error" if status < 500 else "server_error", "code": status}
    return JSONResponse({"message": message, "detail": message, "error": error}, status, headers)


def queue_is_full(error: Busy) -> HTTPException:
    """Return the error of a request for which a queue has no room."""
    return HTTPException(429, "the queue is full; try again later", {"Retry-After": str(1 + int(error.seconds))})


async def result_in_time(future: Future[Result], seconds: float, late: str, failed: str) -> Result:
    """Wait for the result of another thread; a time-out or an error of the thread becomes the error of the request.

    Parameters
    ----------
    future : concurrent.futures.Future
        Cancelled after the time-out, and when the client disconnects.
    seconds : float
    late, failed : str
        Messages for a time-out and for an error. A `UserError` has its own message.
    """
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(future)
    except TimeoutError:
        raise HTTPException(504, late) from None
    except UserError as error:
        raise HTTPException(500, str(error)) from error
    except Exception as error:
        logging.getLogger("uvicorn.error").exception(failed)
        raise HTTPException(500, f"{failed} ({type(error).__name__})") from error


def language_code(language: str | None) -> str | None:
    """Return the ISO 639-1 code of the field `language` of a request; None if it has none."""
    if language is None:
        return None
    try:
        return languages.code(language, "language")
    except ValueError as error:
        raise HTTPException(422, str(error)) from None


class Guard:
    """ASGI middleware: requires the key, and reads the body within limits of size and time before the application sees the request.

    Parameters
    ----------
    app : ASGI application
    limits : Limits
    key : str, optional
        The health checks and the files of the page need none. Without a key, requests for other hosts, and those of web pages of other
        hosts, are refused.
    """

    OPEN = ("/healthz", "/readyz", "/", "/page.css", "/page.js")

    def __init__(self, app: ASGIApp, limits: Limits, key: str | None) -> None:
        self.app, self.limits, self.key = app, limits, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if not self.key and not all(_names_loopback(value) for name, value in scope["headers"] if name in (b"host", b"origin")):
            await error_response(
                403, "the server has no key, so it answers only programs of this machine, which address it as 127.0.0.1 or localhost"
            )(scope, receive, send)
            return
        if self.key and scope["path"] not in self.OPEN and not self._has_key(dict(scope["headers"]).get(b"authorization", b"")):
            await error_response(401, "the key is missing or wrong; send it as `Authorization: Bearer KEY`")(scope, receive, send)
            return
        body = b""
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self.limits.body_bytes:
                        text = f"the body is larger than {self.limits.body_bytes:,} bytes; send fewer candidates in a request"
                        await error_response(413, text, CLOSE)(scope, receive, send)
                        return
        except TimeoutError:
            await error_response(408, f"the body did not arrive within {self.limits.body_seconds:g} seconds", CLOSE)(scope, receive, send)
            return
        try:
            body.decode("utf-8")
        except UnicodeDecodeError as error:
            await error_response(400, f"the body is not UTF-8 text: {error}")(scope, receive, send)
            return
        await self._answer(scope, body, receive, send)

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Let the application answer a request whose body has arrived; cancel it when the client disconnects."""
        disconnected = asyncio.ensure_future(receive())
        body_is_read = is_answered = False

        async def replay() -> Message:
            nonlocal body_is_read
            if body_is_read:
                return await asyncio.shield(disconnected)
            body_is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send_noted(message: Message) -> None:
            nonlocal is_answered
            is_answered = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        answer = asyncio.ensure_future(self.app(scope, replay, send_noted))
        try:
            await asyncio.wait((answer, disconnected), return_when=asyncio.FIRST_COMPLETED)
            if not (is_answered or answer.done()):
                answer.cancel()
            with suppress(asyncio.CancelledError):
                await answer
        finally:
            answer.cancel()
            disconnected.cancel()

    def _has_key(self, header: bytes) -> bool:
        scheme, _, key = header.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(key, str(self.key).encode())


def is_loopback(host: str) -> bool:
    """Return whether an address or name of a host is that of the loopback interface."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _names_loopback(value: bytes) -> bool:
    """Return whether a Host or Origin header names this machine, which the pages of other hosts cannot pretend."""
    text = value.decode("latin-1")
    try:
        return is_loopback(urlsplit(text if "://" in text else f"//{text}").hostname or "")
    except ValueError:
        return False
