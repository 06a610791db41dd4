"""Servers on loopback for DVC remotes. A test starts and stops them; each context manager yields the options of its remote."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

Options = dict[str, str]  # of `dvc remote modify`; the names in SECRET belong in config.local
SECRET = {"access_key_id", "secret_access_key", "keyfile", "user", "password"}


@contextmanager
def folder(scratch: Path) -> Iterator[Options]:
    """A folder, without a server."""
    yield {"url": str(scratch / "store")}


@contextmanager
def s3(scratch: Path) -> Iterator[Options]:
    """The server of moto: an S3 API over HTTP that stores objects in memory."""
    _need("boto3", "moto", "dvc_s3")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        keys = {"aws_access_key_id": "tester", "aws_secret_access_key": "tester"}
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys).create_bucket(Bucket="team")
        yield {
            "url": "s3://team/babelcart", "endpointurl": endpoint, "region": "us-east-1",
            "access_key_id": "tester", "secret_access_key": "tester",
        }  # fmt: skip
    finally:
        server.stop()


@contextmanager
def ssh(scratch: Path) -> Iterator[Options]:
    """sshd of OpenSSH, run as the current user, with a new host key and a new user key."""
    _need("dvc_ssh")
    program = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not program:
        pytest.skip("sshd is not installed (Debian: apt-get install openssh-server)")
    scratch.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", scratch / name], check=True)
    (scratch / "authorized").write_text((scratch / "user.pub").read_text())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "ListenAddress": "127.0.0.1", "Port": port, "HostKey": scratch / "host", "AuthorizedKeysFile": scratch / "authorized",
        "PidFile": "none", "StrictModes": "no", "UsePAM": "no", "PasswordAuthentication": "no", "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password", "Subsystem": "sftp internal-sftp",
    }  # fmt: skip
    (scratch / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    checked = subprocess.run([program, "-t", "-f", scratch / "sshd_config"], capture_output=True, text=True)
    if checked.returncode:
        pytest.skip(f"sshd does not start here: {checked.stderr.strip()}")
    with subprocess.Popen([program, "-D", "-e", "-f", scratch / "sshd_config"], stderr=(scratch / "log").open("w")) as server:
        try:
            _wait(port)
            yield {
                "url": f"ssh://127.0.0.1{scratch}/store", "port": str(port), "user": getpass.getuser(), "keyfile": str(scratch / "user"),
                "allow_agent": "false",
            }  # fmt: skip
        finally:
            server.terminate()


@contextmanager
def webdav(scratch: Path) -> Iterator[Options]:
    """WsgiDAV with a user and a password."""
    _need("cheroot", "wsgidav", "dvc_webdav")
    from cheroot.wsgi import Server
    from wsgidav.wsgidav_app import WsgiDAVApp

    (scratch / "babelcart").mkdir(parents=True)
    application = WsgiDAVApp(
        {
            "provider_mapping": {"/": str(scratch)},
            "simple_dc": {"user_mapping": {"*": {"tester": {"password": "tester"}}}},  # pragma: allowlist secret
            "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
            "logging": {"enable": False},
            "verbose": 0,
        }
    )
    server = Server(("127.0.0.1", 0), application)
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield {
            "url": f"webdav://127.0.0.1:{server.bind_addr[1]}/babelcart",
            "user": "tester",
            "password": "tester",  # pragma: allowlist secret
        }
    finally:
        server.stop()
        thread.join()


def _need(*modules: str) -> None:
    """Skip the test if a module that the server or the remote of DVC needs is not installed."""
    for module in modules:
        pytest.importorskip(module, reason=f"needs {module}: pip install -e '.[dev]'")


def _wait(port: int) -> None:
    """Wait up to ten seconds for a server on the port."""
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"no server listens on port {port}")


SERVERS = {"folder": folder, "s3": s3, "ssh": ssh, "webdav": webdav}
