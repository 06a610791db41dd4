"""The Hugging Face hub on loopback: one commit of one repository, with the faults that a download can meet."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from babelcart.weights.fetching import Weights, from_random

LARGE_FILE = 10_000  # bytes; the hub names larger files by their SHA-256, others by their git hash


class Hub:
    """State of the server: the files of the commit, the fault to produce, and the requests so far.

    Attributes
    ----------
    fault : str
        ``""``, a status such as ``"401"``, ``gated``, ``no revision``, ``flipped`` (one bit of the weights) or ``cut`` (half of them).
    """

    def __init__(self, folder: Path, repo: str, revision: str) -> None:
        self.files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.repo, self.revision, self.fault = repo, revision, ""
        self.requests: list[str] = []
        self.url = ""

    def digest(self, name: str) -> str:
        """Return the hash by which the hub knows a file."""
        content = self.files[name]
        if len(content) > LARGE_FILE:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

    def tree(self) -> list[dict[str, object]]:
        """Return the files in the form of the hub's API."""
        entries: list[dict[str, object]] = []
        for name, content in self.files.items():
            entry: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": self.digest(name)[:40]}
            if len(content) > LARGE_FILE:
                entry["lfs"] = {"oid": self.digest(name), "size": len(content), "pointerSize": 130}
            entries.append(entry)
        return entries

    def content(self, name: str) -> bytes:
        """Return the bytes that are sent for a file."""
        content = self.files[name]
        if self.fault == "flipped" and name.endswith(".safetensors"):
            return content[:-1] + bytes([content[-1] ^ 1])
        return content


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(send_body=False)

    def do_GET(self) -> None:
        self._answer(send_body=True)

    def _answer(self, send_body: bool) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.requests.append(path)
        if hub.fault.isdigit() or hub.fault in ("gated", "no revision"):
            status = int(hub.fault) if hub.fault.isdigit() else {"gated": 403, "no revision": 404}[hub.fault]
            code = {"gated": "GatedRepo", "no revision": "RevisionNotFound"}.get(hub.fault)
            self._send(status, b"{}", {"X-Error-Code": code} if code else {}, send_body)
            return
        if path == f"/api/models/{hub.repo}/tree/{hub.revision}":
            self._send(200, json.dumps(hub.tree()).encode(), {"Content-Type": "application/json"}, send_body)
            return
        name = path.removeprefix(f"/{hub.repo}/resolve/{hub.revision}/")
        if name not in hub.files:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, send_body)
            return
        headers = {"X-Repo-Commit": hub.revision, "ETag": f'"{hub.digest(name)}"', "X-Linked-Size": str(len(hub.files[name]))}
        self._send(200, hub.content(name), headers, send_body, cut=hub.fault == "cut" and name.endswith(".safetensors"))

    def _send(self, status: int, body: bytes, headers: dict[str, str], send_body: bool, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if send_body:
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = cut


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve a hub on a free port of the loopback interface; its `url` is the value of ``HF_ENDPOINT``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_stand_in(family: str, folder: Path) -> None:
    """Write a tiny model of the architecture of a published one: Gemma-3 with its vision tower, or Qwen-2.5 with an untied head."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    text_family = {"gemma3": "gemma3_text", "qwen2": "qwen2"}[family]
    from_random(Weights(licence="none", random=text_family), folder)  # type: ignore[arg-type]
    (folder / "base.json").unlink()
    config = AutoConfig.from_pretrained(folder)
    torch.manual_seed(0)
    if family == "gemma3":
        vision = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, image_size=28, patch_size=14)
        rope = {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }
        text = {**config.to_dict(), "rope_parameters": rope}
        config = AutoConfig.for_model("gemma3", text_config=text, vision_config=vision, mm_tokens_per_image=4)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    else:
        config.tie_word_embeddings = False
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    (folder / "LICENSE").write_text("Licence of the stand-in\n", encoding="utf-8")
