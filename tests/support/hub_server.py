"""The Hugging Face hub on loopback: one commit of a repository to download, repositories to upload to, and the faults of both."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from babelcart.weights.fetching import Weights, from_random

LARGE_FILE = 10_000  # bytes; the hub names larger files by their SHA-256, others by their git hash


@dataclass
class Uploaded:
    """A repository that a client has created."""

    visibility: str = "public"
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
    commits: list[dict[str, str]] = field(default_factory=list)  # the headers of the commits: summary and description

    @property
    def revision(self) -> str:
        return f"{len(self.commits):040d}"


class Hub:
    """State of the server: the files of the commit, the uploaded repositories, the fault to produce, and the requests so far.

    Attributes
    ----------
    fault : str
        ``""``, a status such as ``"401"``, ``gated``, ``no revision``, ``flipped`` (one bit of the weights) or ``cut`` (half of them);
        ``put 403`` for a status of the upload of a large file, ``commit 500`` for one of the commit.
    uploaded : dict of str to Uploaded
    """

    def __init__(self, folder: Path, repo: str, revision: str) -> None:
        self.files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.repo, self.revision, self.fault = repo, revision, ""
        self.requests: list[str] = []
        self.uploaded: dict[str, Uploaded] = {}
        self.large: dict[str, bytes] = {}  # uploaded contents by their SHA-256
        self.url = ""

    def commit(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return hash and files of a commit; None if there is no such commit."""
        if repo == self.repo and revision in (self.revision, "main"):
            return self.revision, self.files
        if (uploaded := self.uploaded.get(repo)) and revision in (uploaded.revision, "main"):
            return uploaded.revision, uploaded.files
        return None

    def content(self, name: str, content: bytes) -> bytes:
        """Return the bytes that are sent for a file."""
        if self.fault == "flipped" and name.endswith(".safetensors"):
            return content[:-1] + bytes([content[-1] ^ 1])
        return content

    def change(self, repo: str, lines: list[bytes]) -> dict[str, object]:
        """Apply a commit in the form of the hub's API."""
        uploaded = self.uploaded[repo]
        files = dict(uploaded.files)
        header, *operations = [json.loads(line) for line in lines]
        for operation in operations:
            kind, value = operation["key"], operation["value"]
            if kind == "deletedFile":
                del files[value["path"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"]) if kind == "file" else self.large[value["oid"]]
        uploaded.files = files
        uploaded.commits.append(header["value"])
        return {"commitUrl": f"{self.url}/{repo}/commit/{uploaded.revision}", "commitOid": uploaded.revision, "pullRequestUrl": None}


def digest(content: bytes) -> str:
    """Return the hash by which the hub knows a file."""
    if len(content) > LARGE_FILE:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def tree(files: dict[str, bytes]) -> list[dict[str, object]]:
    """Return files in the form of the hub's API."""
    entries: list[dict[str, object]] = []
    for name, content in files.items():
        entry: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": digest(content)[:40]}
        if len(content) > LARGE_FILE:
            entry["lfs"] = {"oid": digest(content), "size": len(content), "pointerSize": 130}
        entries.append(entry)
    return entries


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(send_body=False)

    def do_GET(self) -> None:
        self._answer(send_body=True)

    def do_POST(self) -> None:
        self._answer(send_body=True)

    def do_PUT(self) -> None:
        self._answer(send_body=True)

    def _answer(self, send_body: bool) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub.requests.append(path)
        if hub.fault.isdigit() or hub.fault in ("gated", "no revision"):
            status = int(hub.fault) if hub.fault.isdigit() else {"gated": 403, "no revision": 404}[hub.fault]
            code = {"gated": "GatedRepo", "no revision": "RevisionNotFound"}.get(hub.fault)
            self._send(status, b"{}", {"X-Error-Code": code} if code else {}, send_body)
        elif self.command in ("POST", "PUT"):
            status, answer = self._receive(path, body)
            self._send_json(answer, send_body, status)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(tree|revision)/([^/]+))?", path):
            self._describe(match[1], match[2], match[3] or "main", send_body)
        else:
            match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            commit = hub.commit(match[1], match[2]) if match else None
            if not match or not commit or match[3] not in commit[1]:
                self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, send_body)
                return
            content = commit[1][match[3]]
            headers = {"X-Repo-Commit": commit[0], "ETag": f'"{digest(content)}"', "X-Linked-Size": str(len(content))}
            is_cut = hub.fault == "cut" and match[3].endswith(".safetensors")
            self._send(200, hub.content(match[3], content), headers, send_body, cut=is_cut)

    def _describe(self, repo: str, kind: str | None, revision: str, send_body: bool) -> None:
        commit = self.hub.commit(repo, revision)
        if not commit:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, send_body)
        elif kind == "tree":
            self._send_json(tree(commit[1]), send_body)
        else:
            uploaded = self.hub.uploaded.get(repo)
            private = bool(uploaded and uploaded.visibility == "private")
            files = [{"rfilename": name} for name in commit[1]]
            self._send_json({"id": repo, "sha": commit[0], "private": private, "siblings": files}, send_body)

    def _receive(self, path: str, body: bytes) -> tuple[int, object]:
        """Return status and answer of a request of an upload."""
        hub = self.hub
        if path.startswith("/large/"):
            if hub.fault.startswith("put "):
                return int(hub.fault.split()[1]), {"error": "denied"}
            is_intact = hashlib.sha256(body).hexdigest() == path.rpartition("/")[2]
            hub.large |= {path.rpartition("/")[2]: body} if is_intact else {}
            return 200 if is_intact else 400, {}
        if path == "/verify":
            return 200 if json.loads(body)["oid"] in hub.large else 404, {}
        if path == "/api/validate-yaml":
            return 200, {}
        if path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given['organization']}/{given['name']}"
            created = Uploaded(given.get("visibility", "public"))
            return 200 if hub.uploaded.setdefault(name, created) is created else 409, {"url": f"{hub.url}/{name}"}
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            objects = [entry | self._actions(entry["oid"]) for entry in json.loads(body)["objects"]]
            return 200, {"transfer": "basic", "objects": objects}
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", path)
        assert match, path
        if match[2] == "preupload":
            present = hub.uploaded[match[1]].files
            return 200, {"files": [self._mode(file, present) for file in json.loads(body)["files"]]}
        if hub.fault.startswith("commit "):
            return int(hub.fault.split()[1]), {"error": "not now"}
        return 200, hub.change(match[1], body.splitlines())

    def _mode(self, file: dict[str, object], present: dict[str, bytes]) -> dict[str, object]:
        name, mode = str(file["path"]), "lfs" if int(str(file["size"])) > LARGE_FILE else "regular"
        oid = digest(present[name]) if name in present else None
        return {"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def _actions(self, oid: str) -> dict[str, object]:
        if oid in self.hub.large:
            return {}
        return {"actions": {"upload": {"href": f"{self.hub.url}/large/{oid}"}, "verify": {"href": f"{self.hub.url}/verify"}}}

    def _send_json(self, answer: object, send_body: bool, status: int = 200) -> None:
        self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json"}, send_body)

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
