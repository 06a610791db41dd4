"""Base models from the Hugging Face hub, which is a server on loopback here: download, verification, and work without network after it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from huggingface_hub import constants
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from babelcart.core.errors import UserError
from babelcart.model import loading, prompts, quantized, scoring
from babelcart.model.prompts import RowTexts
from babelcart.model.task_model import read_task_model
from babelcart.weights import hub
from tests.support import hub_server
from tests.support.hub_server import Hub
from tests.support.imports import ROOT
from tests.support.project import Project, run, run_to
from tests.support.tiny import plain

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
    server.fault = ""
    shutil.copytree(f"models/{name}/qc", "elsewhere")  # plain peft finds the base model by its name on the hub
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
    )
    loaded = AutoPeftModelForCausalLM.from_pretrained("elsewhere", dtype=torch.float32, quantization_config=nf4).eval()
    tokenizer = read_task_model(Path("models") / name, "qc").load_tokenizer()
    rows = tokenizer.encode_table(pd.read_parquet("build/translate/qc/test.parquet"))
    probability = scoring.score(loaded, rows, tokenizer.labels, scoring.Predict())
    predicted = pd.read_parquet(f"predictions/{name}/qc/test.parquet")["probability"]
    assert probability == pytest.approx(predicted, abs=1e-5)


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
    if fault == "503" and name != "gemma3-12b":
        pytest.skip("the client retries for 45 seconds; the other model is enough")
    server.fault = fault
    output = run("base", "--model", name, fails=True).output
    assert message in " ".join(output.split())
    assert not Path(f"models/{name}/base/base.json").exists()
    server.fault = ""
    run("base", "--model", name)
    assert Path(f"models/{name}/base/base.json").exists()


@pytest.mark.parametrize("damage", ["empty", "incomplete"])
def test_without_network_the_cache_has_to_be_complete(server: Hub, name: str, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if damage == "incomplete":
        run("base", "--model", name)
        weight_files()[0].resolve().unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    output = run("base", "--model", name, fails=True).output
    assert "HF_HUB_OFFLINE is set: unset it for the download" in " ".join(output.split())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    run("base", "--model", name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    requests = len(server.requests)
    run("base", "--model", name)
    assert len(server.requests) == requests


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write to each folder")
def test_a_shared_cache_that_is_read_only(server: Hub, name: str, project: Project) -> None:
    def base_of_another_user(cache: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stages.base", "--model", name]
        if os.geteuid() == 0:
            command = ["setpriv", "--bounding-set=-dac_override", *command]
        variables = {"HF_ENDPOINT": server.url, "HF_HUB_CACHE": str(cache.absolute()), "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)

    run("base", "--model", name)
    Path("empty").mkdir()
    writable = [path for path in (Path("empty"), Path("hub"), *Path("hub").rglob("*")) if not path.is_symlink()]
    for path in writable:
        path.chmod(0o555 if path.is_dir() else 0o444)
    Path(f"models/{name}/base/base.json").unlink()
    done, refused = base_of_another_user(Path("hub")), base_of_another_user(Path("empty"))
    for path in writable:
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert done.returncode == 0, done.stderr
    assert "%|" not in done.stderr  # no progress bar, because standard error is not a terminal
    assert Path(f"models/{name}/base/base.json").exists()
    assert refused.returncode == 1
    assert "where you may not write: ask its owner to run the same command" in " ".join(refused.stderr.split())


def test_a_full_disk_is_named() -> None:
    assert "no space is left in" in hub._explanation(OSError(errno.ENOSPC, "No space left on device"), "google/gemma-3-12b-it")


def test_a_model_that_does_not_fit_onto_the_disk_is_not_downloaded(server: Hub, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10**12, free=1000))
    output = run("base", "--model", name, fails=True).output
    assert "0.0 GB are free" in output
    assert "HF_HOME" in output
    assert not list(Path("hub").rglob("*.safetensors"))


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


def test_a_model_is_quantised_once(server: Hub, name: str, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    run("base", "--model", name)
    task_model = read_task_model(Path("models") / name, "qc")
    rows = task_model.load_tokenizer().encode_many([RowTexts("de", f"abendkleid {number}", "dresses") for number in range(5)])
    labels = prompts.LabelTokens(5, 6)
    expected = scoring.score(task_model.load_base(), rows, labels, scoring.Predict())
    (kept,) = quantized.KEPT.iterdir()
    (snapshot,) = {blob.parent for blob in weight_files()}
    published = AutoModelForCausalLM.from_pretrained(snapshot).num_parameters()
    assert loading.count_parameters(kept) == loading.count_parameters(snapshot) == published
    blobs = {blob: blob.resolve().read_bytes() for blob in weight_files()}
    for blob, content in blobs.items():
        blob.resolve().write_bytes(bytes(len(content)))  # not read any more
    assert scoring.score(task_model.load_base(), rows, labels, scoring.Predict()).tobytes() == expected.tobytes()
    for blob, content in blobs.items():
        blob.resolve().write_bytes(content)
    weights = next(kept.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert scoring.score(task_model.load_base(), rows, labels, scoring.Predict()).tobytes() == expected.tobytes()
    assert quantized.is_intact(kept)
    monkeypatch.setattr(quantized, "version", lambda library: "another")
    task_model.load_base()
    assert len(list(quantized.KEPT.iterdir())) == 1
    assert not kept.exists()


def test_a_full_disk_leaves_no_part_of_a_quantised_model(
    server: Hub, name: str, project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("base", "--model", name)
    task_model = read_task_model(Path("models") / name, "qc")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10**12, free=1000))
    task_model.load_base()
    assert not list(quantized.KEPT.iterdir())
    assert "would fill the disk" in capsys.readouterr().err


def test_a_local_folder_is_a_source_too(name: str, stand_in: Path, project: Project) -> None:
    shutil.copytree(stand_in, "weights")
    block = {"weights": {"licence": "none", "folder": "weights"}, "dtype": "float32", "quantization": "nf4"}
    project.change(models={name: block})
    run("base", "--model", name)
    record = json.loads(Path(f"models/{name}/base/base.json").read_text())
    assert record["folder"] == "weights"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(record["files"])
    task_model = read_task_model(Path("models") / name, "qc")
    assert task_model.load_base().get_decoder().layers
    assert len(list(quantized.KEPT.iterdir())) == 1
    Path("weights/model.safetensors").unlink()
    with pytest.raises(UserError, match=rf"weights/model.safetensors is missing; run `python -m stages.base --model {name}`"):
        task_model.load_base()
    output = run("base", "--model", name, fails=True).output
    assert "weights has no safetensors" in output


def test_the_adapter_covers_the_text_decoder_and_is_named_for_any_program(stand_in: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(stand_in)
    names = set(loading.text_linears(base))
    adapted = loading.add_adapter(base, plain(), 0)
    config = adapted.peft_config["default"]
    assert sorted(config.target_modules) == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    layers = {module_name.removesuffix(".lora_A") for module_name, _ in adapted.named_modules() if module_name.endswith(".lora_A")}
    assert layers == {f"base_model.model.{linear}" for linear in names}
    has_tower = any("vision_tower" in module_name for module_name, _ in base.named_modules())
    assert bool(config.exclude_modules) == has_tower
