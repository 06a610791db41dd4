"""`babelcart publish`: what goes out to a hub on loopback, what is refused, and a published model that scores rows without Babelcart."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
from huggingface_hub import constants

from babelcart import publish
from babelcart.card import BODY
from babelcart.core.errors import UserError
from babelcart.core.files import write_json
from babelcart.export import CONTRACT, EXAMPLE, EXAMPLE_ARGUMENTS, SCRIPT
from tests.support import hub_server
from tests.support.hub_server import Hub
from tests.support.imports import ROOT
from tests.support.project import Graph, Project, make_project, run, run_to

pytestmark = pytest.mark.skipif(not find_spec("detect_secrets"), reason="needs detect-secrets: pip install -e '.[verify]'")
BASE, COMMIT, REPO = "owner/tiny", "5" * 40, "shop/queries"
STAGES = ("prepare", "split", "translate", "negatives", "leaks", "base", "train", "predict", "evaluate", "card")
PUBLISH = ("publish", "--task", "qc", "--model", "tiny", "--to", f"hf:{REPO}")
# A process in which neither Babelcart nor libraries of its pipeline can be found downloads the repository and runs its example.
OUTSIDE = """
import importlib.machinery, json, sys
find = importlib.machinery.PathFinder.find_spec
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]  # that of an editable installation
hidden = {"babelcart", "stages", "pandas", "sklearn", *sys.argv[2:]}
importlib.machinery.PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in hidden else find(name, *rest)
for name in hidden:
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(f"{name} can be imported")
from huggingface_hub import snapshot_download
sys.path.insert(0, snapshot_download(sys.argv[1]))
import example
for query, candidate, language in json.load(sys.stdin):
    example.main([query, candidate, "--language", language])
"""


def connect(hub: Hub, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """Let this process use the hub, with the protocol of git LFS: the server has no Xet storage."""
    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setenv("HF_TOKEN", "tester")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with project/, committed and trained on a base model from the hub, stand-in/, the base model, and cache/."""
    folder = tmp_path_factory.mktemp("trained")
    hub_server.write_stand_in("gemma3", folder / "stand-in")
    config = json.loads((folder / "stand-in/config.json").read_text())
    config["text_config"]["final_logit_softcapping"] = 2.0
    (folder / "stand-in/config.json").write_text(json.dumps(config))
    project = make_project(folder / "project")
    weights = {"licence": "Apache-2.0", "repo": BASE, "revision": COMMIT}
    project.change(
        models={"tiny": {"weights": weights, "dtype": "float32", "r": 8, "lora_alpha": 16}},
        tasks=["qc"], train={"learning_rate": 0.01}, evaluate={"bootstrap_draws": 0},
    )  # fmt: skip
    graph = Graph(project)
    with pytest.MonkeyPatch.context() as patch, hub_server.serve(Hub(folder / "stand-in", BASE, COMMIT)) as hub:
        connect(hub, folder / "cache", patch)
        patch.chdir(project.folder)
        for stage in STAGES:
            options = ["--task", "qc"] if stage != "base" else []
            options += ["--model", "tiny"] if stage in STAGES[5:] else []
            run(stage, *options)
    names = [*(f"{stage}@qc" for stage in STAGES[:5]), "base@tiny", *(f"{stage}@qc-tiny" for stage in STAGES[6:])]
    graph("dvc", "commit", "--quiet", "--force", *names)
    graph.commit()
    return folder


@pytest.fixture
def graph(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Graph:
    """A copy of the trained project, which is the working directory."""
    shutil.copytree(trained / "project", tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    graph = Graph.__new__(Graph)
    super(Graph, graph).__init__(tmp_path / "project")
    graph.project = Project(tmp_path / "project")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", graph.environment["DVC_SITE_CACHE_DIR"])
    return graph


@pytest.fixture
def hub(trained: Path, graph: Graph, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server.serve(Hub(trained / "stand-in", BASE, COMMIT)) as hub:
        connect(hub, trained / "cache", monkeypatch)
        yield hub


def score_outside(hub: Hub, folder: Path, table: pd.DataFrame, *hidden: str) -> list[list[str]]:
    """Return the fields of the lines that the published example prints for rows."""
    folder.mkdir()
    variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder), "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": ""}
    rows = json.dumps(table[["origin_query", "candidate", "language"]].to_numpy().tolist())
    command = [sys.executable, "-c", OUTSIDE, REPO, *hidden]
    done = subprocess.run(command, input=rows, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_a_published_model_scores_rows_without_babelcart(graph: Graph, hub: Hub, tmp_path: Path) -> None:
    table = pd.read_parquet("predictions/tiny/qc/test.parquet").sample(10, random_state=0)
    assert table["probability"].std() > 0.001
    threshold = json.loads(Path("metrics/tiny/qc.json").read_text())["validation"]["threshold"]
    commit = graph("git", "rev-parse", "HEAD").strip()
    weights = {"adapter": "adapter_model.safetensors", "merged": "model.safetensors"}
    for form, options, hidden in (("adapter", (), ()), ("merged", ("--merge",), ("peft", "accelerate"))):
        requests = len(hub.requests)
        printed = run(*PUBLISH, *options).output
        assert len(hub.requests) == requests  # a dry run
        assert "--upload sends the files" in printed
        run(*PUBLISH, *options, "--upload")
        files = hub.uploaded[REPO].files
        listed = {line.split("bytes  ")[1]: int(line.split()[0].replace(",", "")) for line in printed.splitlines() if "bytes  " in line}
        assert {name: len(content) for name, content in files.items() if name != ".gitattributes"}.items() <= listed.items()
        assert {name for name in files if name.endswith(".safetensors")} == {weights[form]}
        assert {"README.md", CONTRACT, EXAMPLE, "LICENSE"} < files.keys()
        assert not files.keys() & {"prompt.json", "training.json"}
        assert f"the commit `{commit}`" in files["README.md"].decode()
        assert commit[:12] in hub.uploaded[REPO].commits[-1]["summary"]

        printed_rows = score_outside(hub, tmp_path / form, table, *hidden)
        assert [float(row[0]) for row in printed_rows] == pytest.approx(table["probability"].tolist(), abs=1e-5)
        expected = ["relevant" if p >= threshold else "not relevant" for p in table["probability"]]
        assert [row[1:] for row in printed_rows] == [list(row) for row in zip(expected, table["candidate"], strict=True)]
    assert hub.uploaded[REPO].visibility == "private"
    assert len(hub.uploaded[REPO].commits) == 2
    config = json.loads(files["config.json"])
    assert config["text_config"]["final_logit_softcapping"] == 2.0
    assert "_name_or_path" not in files["config.json"].decode()  # that of the stand-in is a path


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub without models, and the files of one, in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    Path("adapter_model.safetensors").write_bytes(b"weights" * 10_000)
    with hub_server.serve(Hub(tmp_path / "none", BASE, COMMIT)) as hub:
        connect(hub, tmp_path / "cache", monkeypatch)
        yield hub


def upload(private: bool = True) -> str:
    return publish.upload([Path("README.md"), Path("adapter_model.safetensors")], REPO, private, "message", "description")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("401", "run `hf auth login`, or set HF_TOKEN"),
        ("403", "your token may not write to shop/queries"),
        ("404", "there is no such repository"),
        ("put 403", "your token may not write to shop/queries"),
        ("commit 500", "500"),
        ("commit 409", "another change of the repository is in progress"),
        ("commit 412", "the repository was changed at the same time"),
    ],
)
def test_a_failed_upload_leaves_no_files_and_can_be_repeated(empty: Hub, fault: str, message: str) -> None:
    empty.fault = fault
    with pytest.raises(UserError) as failed:
        upload()
    assert message in str(failed.value)
    assert "no incomplete model is there. Run the command again" in str(failed.value)
    assert all(uploaded.files.keys() == {".gitattributes"} for uploaded in empty.uploaded.values())
    empty.fault = ""
    address = upload()
    assert address.startswith(f"{empty.url}/{REPO}/commit/")
    assert empty.uploaded[REPO].files["adapter_model.safetensors"] == Path("adapter_model.safetensors").read_bytes()
    assert len(empty.uploaded[REPO].commits) == 1


def test_a_hub_that_cannot_be_reached_is_named(empty: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"upload to http://127.0.0.1:9/shop/queries failed: the hub cannot be reached, or the connection"):
        upload()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set; unset it"):
        upload()


def test_a_private_upload_to_a_public_repository_is_refused_and_files_of_others_stay(empty: Hub) -> None:
    public = empty.uploaded[REPO] = hub_server.Uploaded()
    public.files |= {"notes.md": b"by hand", "config.json": b"{}"}
    with pytest.raises(UserError, match=r"exists and is public. Nothing was sent; publish it with --public"):
        upload()
    assert public.commits == []
    upload(private=False)
    assert public.files["notes.md"] == b"by hand"
    assert "config.json" not in public.files  # it would be taken for the base model of the adapter
    assert public.commits == [{"summary": "message", "description": "description", "parentCommit": "0" * 40}]


def edit(path: str, old: str, new: str) -> None:
    text = Path(path).read_text(encoding="utf-8")
    assert old in text
    Path(path).write_text(text.replace(old, new, 1), encoding="utf-8")


def test_a_model_that_is_not_that_of_the_last_commit_is_refused(graph: Graph, hub: Hub) -> None:
    requests = len(hub.requests)
    adapter = Path("models/tiny/qc/adapter_model.safetensors")
    content, times = adapter.read_bytes(), adapter.stat()
    adapter.chmod(0o644)
    adapter.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(adapter, ns=(times.st_atime_ns, times.st_mtime_ns))
    printed = run(*PUBLISH, "--upload", fails=True).output
    assert "models/tiny/qc is not the adapter of dvc.lock" in printed
    adapter.write_bytes(content)

    edit("params.yaml", "# All settings", "# The settings")
    printed = run(*PUBLISH, "--upload", fails=True).output
    assert "these files are not committed; commit them first\n M params.yaml" in printed
    graph("git", "checkout", "--quiet", "params.yaml")
    graph("git", "config", "status.showUntrackedFiles", "no")
    Path("babelcart/new.py").write_text("")
    printed = run(*PUBLISH, "--upload", fails=True).output
    assert "these files are not committed; commit them first\n?? babelcart/new.py" in printed
    Path("babelcart/new.py").unlink()
    graph.project.change(train={"epochs": 3})
    graph.commit()
    printed = run(*PUBLISH, "--upload", fails=True).output
    assert "the model is not up to date; run `dvc repro` and commit the changes\n  train@qc-tiny: params.yaml: train changed" in printed
    graph("git", "checkout", "--quiet", "HEAD~1", "params.yaml")
    graph.commit()
    for name in ("models/tiny/qc.md", "metrics/tiny/qc.json"):
        Path(name).rename("kept")
        printed = run(*PUBLISH, "--upload", fails=True).output
        assert f"{name} does not exist; run `dvc repro`" in printed
        Path("kept").rename(name)
    Path("dvc.lock").unlink()
    printed = run(*PUBLISH, "--upload", fails=True).output
    assert "models/tiny/qc is not in dvc.lock; run `dvc repro`" in printed
    assert hub.requests[requests:] == []


def test_texts_that_must_not_go_out_are_refused(graph: Graph, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = len(hub.requests)
    key = "AKIA" + "IOSFODNN7EXAMPLQ"  # in two parts, because this file is searched for secrets too
    edit("models/tiny/qc.md", "## Limits", f"GARTENSCHLAUCH  dev, /home/jo/rows/all.csv, key {key}\n\n## Limits")
    graph("dvc", "commit", "--quiet", "--force", "card@qc-tiny")
    graph.commit()
    printed = run(*PUBLISH, "--upload", fails=True).output
    assert "README.md contains a text of the data: 'gartenschlauch dev'" in printed
    assert "README.md contains a path of this machine: '/home/jo/rows/all.csv'" in printed
    assert ": AWS Access Key" in printed
    Path("LICENSE-2").write_text(f"key = {key}\n")
    printed = run(*PUBLISH, "--licence", "LICENSE-2", fails=True).output
    assert "LICENSE-2:1: AWS Access Key" in printed
    monkeypatch.setitem(sys.modules, "detect_secrets.core.scan", None)
    printed = run(*PUBLISH, "--upload", fails=True).output
    assert "pip install 'babelcart[verify]'" in printed
    assert hub.requests[requests:] == []


def test_only_long_texts_of_rows_are_searched_and_only_as_whole_words(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    rows = ["red", "led lampe für innen", "folding chair", "intended use", "trained on"]
    text = "It was trained on red lamps.\nAn unled lampe für innenräume\n" + EXAMPLE_ARGUMENTS["qc"] + BODY
    card.write_text(text, encoding="utf-8")
    assert list(publish.problems([card], rows)) == []
    contract = tmp_path / CONTRACT
    write_json(contract, {"prompt": {"template": "For example:\nLED Lampe für innen\nyes"}, "threshold": 0.5})
    assert list(publish.problems([card, contract], rows)) == ["babelcart.json contains a text of the data: 'led lampe für innen'"]


@pytest.mark.parametrize("target", ["shop/queries", "s3:shop/queries", "hf:queries", "hf:shop/../x", "hf:a/b/c", "hf:"])
def test_a_target_of_another_form_is_refused(project: Project, target: str) -> None:
    printed = run("publish", "--task", "qc", "--model", "tiny", "--to", target, fails=True).output
    assert f"--to is {target!r}; accepted: hf:OWNER/NAME" in printed


def test_a_base_model_that_others_cannot_load_or_without_a_licence_is_refused(project: Project) -> None:
    run_to("base")
    printed = " ".join(run(*PUBLISH, fails=True).output.split())
    assert "Publish the merged model: add --merge" in printed
    printed = " ".join(run(*PUBLISH, "--merge", fails=True).output.split())
    assert "has no file with the licence of the base model (none (random weights))" in printed
    Path("terms.txt").write_text("terms")
    printed = run(*PUBLISH, "--merge", "--licence", "terms.txt", fails=True).output
    assert "--licence is terms.txt; accepted: files with a name such as" in printed
    Path("terms.txt").rename("LICENSE")
    printed = run(*PUBLISH, "--merge", "--licence", "LICENSE", fails=True).output
    assert "models/tiny/qc is not in dvc.lock" in printed
    Path("other").mkdir()
    Path("other/LICENSE").write_text("other terms")
    printed = " ".join(run(*PUBLISH, "--merge", "--licence", "LICENSE", "--licence", "other/LICENSE", fails=True).output.split())
    assert "--licence is other/LICENSE, but the model has another licence file named LICENSE; give the file another name" in printed


@pytest.mark.parametrize(
    ("text", "is_path"),
    [
        ("at /home/jo/rows.csv", True), ("file:///home/jo/rows.csv", True), ("path:/home/jo/rows.csv", True),
        ("C:/Users/jo/rows.csv", True), ("~/data/rows.csv", True), ("https://huggingface.co/org/name", False),
        ("google/gemma-3/x", False), ("</a/b>", False),
    ],
)  # fmt: skip
def test_paths_of_a_machine_are_distinguished_from_addresses(tmp_path: Path, text: str, is_path: bool) -> None:
    card = tmp_path / "README.md"
    card.write_text(f"{text}\n", encoding="utf-8")
    assert bool(list(publish.problems([card], []))) == is_path


def test_the_example_shows_no_row_of_the_sample_and_imports_nothing_of_babelcart() -> None:
    files = [path.read_text(encoding="utf-8").lower() for path in ROOT.joinpath("samples/remote").rglob("*") if path.is_file()]
    assert sum("origin_query" in file for file in files) == 6  # train, dev and test of both tasks
    texts = [text for arguments in EXAMPLE_ARGUMENTS.values() for text in arguments.strip('"').split('" "')]
    assert [text for text in texts if any(text.lower() in file for file in files)] == []
    queries = {row for file in files for row in re.findall(r'"origin_query": "([^"]{4,})"', file)}
    assert [query for query in queries if any(re.search(rf"\b{re.escape(query)}\b", text.lower()) for text in texts)] == []
    assert "import babelcart" not in SCRIPT.read_text(encoding="utf-8")
    assert "from babelcart" not in SCRIPT.read_text(encoding="utf-8")
