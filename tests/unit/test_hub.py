"""Base models from the Hugging Face hub, which is a server on loopback here: download, verification, and work without network after it."""

from __future__ import annotations

import errno
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from babelcart.core.errors import UserError
from babelcart.model import loading
from babelcart.model.task_model import read_task_model
from babelcart.weights import hub
from tests.support import hub_server
from tests.support.hub_server import Hub
from tests.support.project import Project, run, run_to

# The blocks of params.yaml with the architecture of their published models.
MODELS = {"gemma3-12b": "gemma3", "qwen25-14b": "qwen2"}


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def stand_in(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(name)
    hub_server.write_stand_in(MODELS[name], folder)
    return folder


@pytest.fixture
def server(name: str, stand_in: Path, project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that serves the stand-in under the name and the commit in params.yaml, with an empty cache."""
    weights = read_task_model(Path("models") / name, "qc").settings.weights
    with hub_server.serve(Hub(stand_in, str(weights.repo), str(weights.revision))) as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(Path("hub").absolute()))
        yield served


def weight_files() -> list[Path]:
    return [path for path in Path("hub").rglob("*.safetensors") if path.is_symlink()]


def test_every_stage_works_without_the_hub_after_base(server: Hub, project: Project, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    project.change(run=[name], attack={"rows": 4}, train={"max_rows": 8}, evaluate={"bootstrap_draws": 0})
    run_to("leaks")
    run("base", "--model", name)
    record = json.loads(Path(f"models/{name}/base/base.json").read_text())
    assert {"config.json", "model.safetensors", "LICENSE"} <= set(record["files"])
    requests, hosts, resolve = len(server.requests), [], socket.getaddrinfo

    def recorded(host: str, *rest: object, **options: object) -> object:
        hosts.append(host)
        return resolve(host, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", recorded)
    server.fault = "401"
    run("plan", "--task", "qc")
    for stage in ("train", "predict", "attack", "evaluate", "resist", "card"):
        run(stage, "--task", "qc", "--model", name)
    run("export", "--task", "qc", "--model", name, "--merge", "--out", "exported")
    assert (Path("exported") / "LICENSE").exists()
    assert (server.requests[requests:], hosts) == ([], [])
    adapter = json.loads(Path(f"models/{name}/qc/adapter_config.json").read_text())
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == (server.repo, server.revision)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("401", "hf auth login"),
        ("403", "hf auth login"),
        ("gated", "its licence must be accepted first, on https://huggingface.co/"),
        ("no revision", "correct `revision` in params.yaml"),
        ("503", "the hub cannot be reached"),
        ("cut", "run the command again, which continues the download"),
        ("flipped", "is damaged: its hash is"),
    ],
)
def test_a_failed_download_says_what_to_do_and_can_be_repeated(server: Hub, name: str, fault: str, message: str) -> None:
    server.fault = fault
    output = run("base", "--model", name, fails=True).output
    assert message in " ".join(output.split())
    assert not Path(f"models/{name}/base/base.json").exists()
    server.fault = ""
    run("base", "--model", name)
    assert Path(f"models/{name}/base/base.json").exists()


def test_a_full_disk_is_named() -> None:
    assert "no space is left in" in hub._explanation(OSError(errno.ENOSPC, "No space left on device"), "google/gemma-3-12b-it")


@pytest.mark.parametrize("damage", ["cache deleted", "file deleted", "file cut"])
def test_a_missing_or_cut_file_names_the_stage_to_run(server: Hub, name: str, damage: str) -> None:
    run("base", "--model", name)
    base = Path(f"models/{name}/base")
    loading.load_tokenizer(base)
    blob = weight_files()[0].resolve()
    if damage == "cache deleted":
        shutil.rmtree("hub")
    elif damage == "file deleted":
        blob.unlink()
    else:
        blob.write_bytes(blob.read_bytes()[:-1])
    for load in (loading.load_tokenizer, lambda folder: loading.load_base(folder, read_task_model(Path("models") / name, "qc").settings)):
        with pytest.raises(UserError, match=f"run `python -m stages.base --model {name}`"):
            load(base)


def test_a_damaged_file_in_the_cache_is_downloaded_again(server: Hub, name: str) -> None:
    run("base", "--model", name)
    blob = weight_files()[0].resolve()
    content = blob.read_bytes()
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    output = run("base", "--model", name, fails=True).output
    assert "is damaged" in output
    run("base", "--model", name)
    assert weight_files()[0].read_bytes() == content
