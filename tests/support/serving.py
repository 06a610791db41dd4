"""The server of `babelcart serve` in a test: in a thread, or as the command in a process of its own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import uvicorn
from safetensors.torch import load_file, save_file

from tests.support.imports import ROOT

KEY = "secret-key"
ADAPTER = Path("models/tiny/qc/adapter_model.safetensors")


@contextmanager
def serve(application: Any) -> Iterator[str]:
    """Serve an application on a free port; yield its address."""
    server = uvicorn.Server(uvicorn.Config(application, log_level="error"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        while httpx.get(f"{address}/healthz").status_code != 200:
            pass
        yield address
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def serve_command(*options: str, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `babelcart serve`; yield the process and its address."""
    command = [sys.executable, "-m", "babelcart", "serve", "--task", "qc", "--model", "tiny", "--port", "0", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            line = next(line for line in process.stderr if "http://" in line)
            yield process, re.findall(r"http://[^/ ]+", line)[0]
        finally:
            process.kill()


def predicted() -> pd.DataFrame:
    return pd.read_parquet("predictions/tiny/qc/test.parquet")


def other_adapter() -> None:
    """Change the weights of the adapter in the workspace."""
    save_file({name: 2 * tensor for name, tensor in load_file(ADAPTER).items()}, ADAPTER)
