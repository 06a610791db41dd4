"""Start `dvc` and this project's modules without importing the large libraries each time.

Importing torch, transformers and DVC takes longer than most commands of a test. A server imports them once. `path` returns a PATH whose
`dvc` and `python` are small clients: they send their arguments, environment, working directory and standard streams to the server, which
forks. The forked process runs `dvc`, or `python -m MODULE` for DVC and modules of this project, and imports the code from its own
working directory. Other calls of `python` start the interpreter as usual.

Use real processes where a test kills them or sets options of the interpreter.
"""

from __future__ import annotations

import array
import json
import os
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # the client imports as little as possible
    from subprocess import Popen
    from typing import NoReturn

# No module of this project is preloaded, because its code differs between folders.
LIBRARIES = (
    "dvc.cli.parser", "dvc.repo.reproduce", "dvc.dvcfile", "dvc.stage.run", "dvc_data.index.checkout", "dvclive", "jinja2", "lingua",
    "pandas", "peft.tuners.lora.bnb", "pyarrow.parquet", "ruamel.yaml", "safetensors.torch", "scipy.stats", "scipy.sparse.linalg",
    "sklearn.feature_extraction.text", "sklearn.linear_model", "sklearn.metrics", "sklearn.pipeline", "torch.utils.checkpoint", "tqdm",
    "transformers.models.gemma3.modeling_gemma3", "transformers.models.qwen2.modeling_qwen2", "vl_convert",
)  # fmt: skip
PACKAGES = ("babelcart", "dvc", "stages")

_server: Popen[str] | None = None
_path = ""


def path() -> str:
    """PATH with the clients in front. The first call starts the server, which ends with this process."""
    import atexit
    import shlex
    import subprocess
    import tempfile

    global _server, _path
    if not _server:
        folder = tempfile.mkdtemp(prefix="warm-")
        address = f"{folder}/socket"
        for name in ("dvc", "python"):
            script = f"{folder}/{name}"
            with open(script, "w", encoding="utf-8") as handle:
                client = shlex.join([sys.executable, "-IS", os.path.abspath(__file__), address, name])
                handle.write(f'#!/bin/sh\nexec {client} "$@"\n')
            os.chmod(script, 0o755)
        command = [sys.executable, os.path.abspath(__file__), address]
        _server = subprocess.Popen(command, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert _server.stdout
        if _server.stdout.readline() != "ready\n":
            raise RuntimeError(f"the server did not start: {_server.communicate()[1]}")
        atexit.register(stop)
        _path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return _path


def stop() -> None:
    """Stop the server if one is running."""
    import shutil

    global _server
    if _server:
        _server.communicate()
        shutil.rmtree(_path.split(os.pathsep)[0])
        _server = None


def serve(address: str) -> None:
    """Fork for every connection until standard input ends."""
    import contextlib
    import gc
    import importlib
    import select

    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    importlib.import_module("dvc.cli.parser").get_main_parser()  # imports all commands of DVC
    gc.freeze()  # a collection in a forked process would copy every page
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        if not os.fork():
            listener.close()
            answer(connection)
        connection.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def answer(connection: socket.socket) -> NoReturn:
    """Read a request, fork the requested process, and send back its exit status."""
    (length,) = array.array("I", connection.recv(4))
    message, files, _, _ = socket.recv_fds(connection, length, 3)
    while len(message) < length:
        message += connection.recv(length - len(message))
    if child := os.fork():
        for file in files:
            os.close(file)
        _, status = os.waitpid(child, 0)
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    connection.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    request = json.loads(message)
    os.chdir(request["folder"])
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    end(run(request["arguments"]))


def run(arguments: list[str]) -> int:
    """Run `dvc ...` or `python -m MODULE ...` in this process and return its exit status."""
    import runpy
    import traceback

    added = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[0:1] = added if arguments[0] == "dvc" else [os.getcwd(), *added]  # the first is the folder of this script
    try:
        if arguments[0] == "dvc":
            from dvc.cli import main

            sys.argv[:] = arguments
            return int(main(arguments[1:]) or 0)
        sys.argv[:] = arguments[2:]
        runpy.run_module(arguments[2], run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def end(status: int) -> NoReturn:
    """End this process without clearing its modules, which takes two seconds."""
    import atexit
    import threading

    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def ask(address: str, arguments: list[str]) -> int:
    """Send a command to the server and wait for its exit status."""
    umask = os.umask(0)
    request = {"arguments": arguments, "folder": os.getcwd(), "umask": umask, "environment": dict(os.environ)}
    message = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        connection.sendall(array.array("I", [len(message)]).tobytes())
        socket.send_fds(connection, [message], [0, 1, 2])
        return int(connection.recv(16) or b"1")


if __name__ == "__main__":
    socket_address, *given = sys.argv[1:]
    if not given:
        serve(socket_address)
    elif given[0] == "python" and not (given[1:2] == ["-m"] and given[2].split(".")[0] in PACKAGES):
        os.execv(sys.executable, [sys.executable, *given[1:]])
    else:
        sys.exit(ask(socket_address, given))
