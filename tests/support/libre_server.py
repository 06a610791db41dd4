"""A translation server on loopback that speaks LibreTranslate's protocol, and fails in every way that servers fail."""

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
    """The right answer: every text has another one. A number may follow the words."""
    colour, noun, number = re.fullmatch(r"(\w+) (\D+?)( \d+)?", text).groups(default="")  # type: ignore[union-attr]
    return f"{COLOURS[colour]} {NOUNS[noun]}{number}"


class Server(ThreadingHTTPServer):
    """Counts the right answers that left it (`told`), and the requests (`requests`)."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, delay: float, faults: Sequence[str], share: float, per_second: float, seed: int, victims: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.delay, self.faults, self.share, self.per_second = delay, faults, share, per_second
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.victims = victims
        self.told: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self.requests = 0
        self.refused = 0
        self.window: list[float] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no error of the server."""


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
        asked = parse_qs(urlsplit(self.path).query)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        text = asked["q"][0]
        with server.lock:
            server.requests += 1
            fault = server.random.choice(server.faults) if server.faults and server.random.random() < server.share else ""
            other = server.random.choice(TEXTS[server.victims :])
            if server.victims and (text not in TEXTS[: server.victims] or server.met[text]):
                fault = ""
            server.met[text] += 1
            now = time.monotonic()
            server.window = [moment for moment in server.window if now - moment < 1]
            if server.per_second and len(server.window) >= server.per_second:
                fault = "429"
                server.refused += 1
            else:
                server.window.append(now)
        time.sleep(server.delay)
        if fault == "hang":
            time.sleep(1.5)
            self.close_connection = True
            return
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        if fault in ("429", "429 wait", "500"):
            self.answer(int(fault[:3]), b"{}", {"Retry-After": "0"} if "wait" in fault else {})
            return
        right = german(text)
        body = {
            "translatedText": {"other": german(other), "empty": "", "entities": right.replace("ü", "&uuml;").replace(" ", "&#32;")}.get(
                fault, right
            )
        }
        if fault == "no field":
            body = {"error": "?"}  # status 200
        content = json.dumps(body).encode()
        if fault == "not json":
            content = b"<html>busy</html>"
        if fault in ("", "entities"):
            with server.lock:
                server.told[text] += 1
        self.answer(200, content, {}, cut=fault == "cut")

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
    delay: float = 0.0, faults: Sequence[str] = (), share: float = 0.0, per_second: float = 0.0, seed: int = 0, victims: int = 0
) -> Iterator[Server]:
    """A server that ends with the block; with `victims`, only the first so many texts meet faults, at their first request."""
    server = Server(delay, faults, share, per_second, seed, victims)
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
    """The project's English train rows are 200 texts, translated by the server at `url`."""
    rows = [
        {
            "id": str(number),
            "task": "QC",
            "language": "en",
            "origin_query": text,
            "category_path": f"a,b{number % 7}",
            "label": str(number % 2),
        }
        for number, text in enumerate(TEXTS)
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
