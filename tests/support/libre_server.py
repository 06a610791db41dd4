"""A translation server on loopback with LibreTranslate's protocol, which can produce every kind of server fault."""

from __future__ import annotations

import json
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.project import Project

COLOURS = {
    "red": "rot",
    "blue": "blau",
    "green": "grün",
    "black": "schwarz",
    "white": "weiß",
    "grey": "grau",
    "brown": "braun",
    "pink": "rosa",
}
NOUNS = dict(
    pair.split(":")
    for pair in """garden hose:gartenschlauch,evening dress:abendkleid,phone case:handyhülle,dog bed:hundebett,
desk lamp:schreibtischlampe,running shoes:laufschuhe,kitchen knife:küchenmesser,bed linen:bettwäsche,bath towel:badetuch,
winter jacket:winterjacke,rain boots:gummistiefel,office chair:bürostuhl,coffee cup:kaffeetasse,wall clock:wanduhr,
bicycle helmet:fahrradhelm,sleeping bag:schlafsack,flower pot:blumentopf,baking tray:backblech,picture frame:bilderrahmen,
tool box:werkzeugkasten,window film:fensterfolie,cat tree:kratzbaum,school bag:schulranzen,swim suit:badeanzug,
bathroom scale:personenwaage""".replace("\n", "").split(",")
)
TEXTS = [f"{colour} {noun}" for colour in COLOURS for noun in NOUNS]
FAULTS = ("429", "429 wait", "500", "hang", "reset", "not json", "no field", "cut", "other", "entities", "empty")


def german(text: str) -> str:
    """Return the correct translation, different for each text. A number may follow the words."""
    colour, noun, suffix = re.fullmatch(r"(\w+) (\D+?)( \d+)?", text).groups(default="")  # type: ignore[union-attr]
    return f"{COLOURS[colour]} {NOUNS[noun]}{suffix}"


class Server(ThreadingHTTPServer):
    """A server that counts its requests.

    Attributes
    ----------
    requests : int
    rejected : int
        Requests over the limit `per_second`.
    correct_answers : Counter
        Text -> number of correct answers that were sent.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, delay: float, faults: Sequence[str], share: float, per_second: float, seed: int, faulty_texts: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.delay, self.faults, self.share, self.per_second = delay, faults, share, per_second
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.faulty_texts = faulty_texts
        self.correct_answers: Counter[str] = Counter()
        self.requests_by_text: Counter[str] = Counter()
        self.requests = 0
        self.rejected = 0
        self.recent_requests: list[float] = []  # times within the last second

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def choose_fault(self, text: str) -> tuple[str, str]:
        """Count a request; return its fault ("" for none), and the text whose answer the fault "other" returns."""
        self.requests += 1
        fault = self.random.choice(self.faults) if self.faults and self.random.random() < self.share else ""
        other_text = self.random.choice(TEXTS[self.faulty_texts :])
        if self.faulty_texts and (text not in TEXTS[: self.faulty_texts] or self.requests_by_text[text]):
            fault = ""
        self.requests_by_text[text] += 1
        now = time.monotonic()
        self.recent_requests = [moment for moment in self.recent_requests if now - moment < 1]
        if self.per_second and len(self.recent_requests) >= self.per_second:
            self.rejected += 1
            return "429", other_text
        self.recent_requests.append(now)
        return fault, other_text

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of connections, which killed clients cause."""


def _body(text: str, fault: str, other_text: str) -> bytes:
    """Return the body of an answer with status 200."""
    if fault == "not json":
        return b"<html>busy</html>"
    if fault == "no field":
        return json.dumps({"error": "?"}).encode()
    translation = german(text)
    translations = {"other": german(other_text), "empty": "", "entities": translation.replace("ü", "&uuml;").replace(" ", "&#32;")}
    return json.dumps({"translatedText": translations.get(fault, translation)}).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_POST(self) -> None:
        server = self.server
        text = parse_qs(urlsplit(self.path).query)["q"][0]
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with server.lock:
            fault, other_text = server.choose_fault(text)
        time.sleep(server.delay)
        if fault == "hang":
            time.sleep(1.5)
            self.close_connection = True
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        elif fault in ("429", "429 wait", "500"):
            self.answer(int(fault[:3]), b"{}", {"Retry-After": "0"} if "wait" in fault else {})
        else:
            if fault in ("", "entities"):
                with server.lock:
                    server.correct_answers[text] += 1
            self.answer(200, _body(text, fault, other_text), {}, cut=fault == "cut")

    def answer(self, status: int, content: bytes, headers: dict[str, str], cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True


@contextmanager
def running(
    delay: float = 0.0, faults: Sequence[str] = (), share: float = 0.0, per_second: float = 0.0, seed: int = 0, faulty_texts: int = 0
) -> Iterator[Server]:
    """Run a server until the end of the block.

    Parameters
    ----------
    delay : float
        Seconds before each answer.
    faults : sequence of str
        Kinds of faults, from `FAULTS`, that occur in the given `share` of the requests.
    per_second : float
        Rate limit; requests over it get status 429. 0 for no limit.
    seed : int
        Seed of the faults.
    faulty_texts : int
        If not 0, faults occur only for so many texts, the first of `TEXTS`, and only at their first request.
    """
    server = Server(delay, faults, share, per_second, seed, faulty_texts)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


FAST: dict[str, Any] = {
    "concurrency": 16,
    "per_second": 0.0,
    "timeout": 0.5,
    "retries": 8,
    "pause": 0.01,
    "max_pause": 0.1,
    "max_failures": 1000,
}


def online(project: Project, url: str) -> None:
    """Set up a project with 200 English train rows, which the server at `url` translates."""
    rows = [
        {
            "id": str(row_index),
            "task": "QC",
            "language": "en",
            "origin_query": text,
            "category_path": f"a,b{row_index % 7}",
            "label": str(row_index % 2),
        }
        for row_index, text in enumerate(TEXTS)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    Path("data/train_QC.txt").write_text(lines, encoding="utf-8")
    Path("data/memory.csv").write_text("source,target,text,translation\n", encoding="utf-8")
    project.change(
        translate={
            "chain": ["libre"], "engines": {"libre": {"kind": "libre", "base_url": url, "version": "1"}}, "allow_network": True,
            "network": {**FAST, "concurrency": 4}, "min_coverage": 0.9,
        }
    )  # fmt: skip
