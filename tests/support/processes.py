"""Run git, DVC and this project's commands as processes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support import warm


def environment(folder: Path, real: bool = False) -> dict[str, str]:
    """Environment of processes in a repository at `folder`. Unless `real`, `dvc` and `python` are those of `tests.support.warm`."""
    added = {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site")}
    return {**os.environ, **added, **({} if real else {"PATH": warm.path()})}


def call(*command: str, folder: Path | None = None, fails: bool = False, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`, by default the working directory, and check whether it fails. `variables` extend the environment."""
    folder = folder or Path.cwd()
    done = subprocess.run(command, cwd=folder, env={**environment(folder), **variables}, capture_output=True, text=True)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done


class Repository:
    """A folder with git and DVC. Calling it runs a command there and returns what the command prints."""

    def __init__(self, folder: Path, real: bool = False) -> None:
        self.folder = folder
        self.environment = environment(folder, real)

    def __call__(self, *command: str, fails: bool = False) -> str:
        done = call(*command, folder=self.folder, fails=fails, **self.environment)
        return done.stdout + done.stderr

    def commit(self, message: str = "more") -> None:
        self("git", "add", "--all")
        self("git", "commit", "--quiet", "--message", message)
