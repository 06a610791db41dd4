"""What a request may ask for, and who may send it: checks before the application sees the request, and the form of errors."""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Attributes
    ----------
    candidates : int
        Candidates of a request, of all its queries together.
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


class Guard:
    """ASGI middleware: requires the key, and reads the body within limits of size and time before the application sees the request.

    Parameters
    ----------
    app : ASGI application
    limits : Limits
    key : str, optional
        The paths of health checks need none. Without a key, requests for other hosts, and those of web pages of other hosts, are refused.
    """

    OPEN = ("/healthz", "/readyz")

    def __init__(self, app: ASGIApp, limits: Limits, key: str | None) -> None:
        self.app, self.limits, self.key = app, limits, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not self.key and not all(_is_loopback(headers.get(name)) for name in (b"host", b"origin")):
            await error_response(403, "without a key, only programs of this machine are answered")(scope, receive, send)
            return
        if self.key and scope["path"] not in self.OPEN and not self._has_key(headers.get(b"authorization", b"")):
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
                        await error_response(413, text)(scope, receive, send)
                        return
        except TimeoutError:
            await error_response(408, f"the body did not arrive within {self.limits.body_seconds:g} seconds")(scope, receive, send)
            return
        try:
            body.decode("utf-8")
        except UnicodeDecodeError as error:
            await error_response(400, f"the body is not UTF-8 text: {error}")(scope, receive, send)
            return
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()  # waits for the end of the connection
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)

    def _has_key(self, header: bytes) -> bool:
        return hmac.compare_digest(header, f"Bearer {self.key}".encode())


def _is_loopback(value: bytes | None) -> bool:
    """Return whether a Host or Origin header is missing or names this machine, which the pages of other hosts cannot pretend."""
    if value is None:
        return True
    text = value.decode("latin-1")
    try:
        return urlsplit(text if "://" in text else f"//{text}").hostname in ("127.0.0.1", "localhost", "::1")
    except ValueError:
        return False
