"""Sharing results between clones through a remote: push, pull, and the refusal of damaged or malicious files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babelcart.commands import checks
from babelcart.core.errors import UserError
from babelcart.translation import memory_files, translation_memory
from tests.support.processes import Repository
from tests.support.project import Graph, Project, run
from tests.support.servers import SECRET, SERVERS, Options

needs_detect_secrets = pytest.mark.skipif(not find_spec("detect_secrets"), reason="needs detect-secrets: pip install -e '.[verify]'")
PIPELINE = """
stages:
  copy:
    cmd: mkdir -p base && cp data/words.txt result.txt && cp data/words.txt base
    deps: [data/words.txt]
    outs:
      - result.txt
      - base:
          push: false
"""


class Clone(Repository):
    """A repository that can be cloned and has a remote."""

    def clone(self, folder: Path) -> Clone:
        self("git", "clone", "--quiet", str(self.folder), str(folder))
        return Clone(folder)

    def add_remote(self, options: Options) -> None:
        """Configure a remote as in docs/sharing.md: its address in git, its credentials in config.local."""
        self("dvc", "remote", "add", "--quiet", "--force", "--default", "team", options["url"])
        for where in ("--project", "--local"):
            for key, value in options.items():
                if key != "url" and (key in SECRET) == (where == "--local"):
                    self("dvc", "remote", "modify", where, "team", key, value)
        self("dvc", "remote", "modify", "team", "verify", "true")

    def listing(self) -> str:
        """Return the hash of the listing of data/."""
        match = re.search(r"md5: (\w+)\.dir", (self.folder / "data.dvc").read_text())
        assert match
        return match[1]

    def object(self, oid: str, ending: str = "") -> Path:
        return self.folder / ".dvc/cache/files/md5" / oid[:2] / (oid[2:] + ending)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project in author/, committed and run once, and its remote in store/, to which everything has been pushed."""
    folder = tmp_path_factory.mktemp("template")
    (folder / "author/data/more").mkdir(parents=True)
    author = Clone(folder / "author")
    author("git", "init", "--quiet", "--initial-branch=main")
    author("git", "config", "user.email", "test@localhost")
    author("git", "config", "user.name", "test")
    author("dvc", "init", "--quiet")
    (author.folder / "data/words.txt").write_text("garden hose\n")
    (author.folder / "data/more/words.txt").write_text("dog bed\n")
    author("dvc", "add", "--quiet", "data")
    (author.folder / "dvc.yaml").write_text(PIPELINE)
    author("dvc", "repro", "--quiet")
    author.commit()
    author.add_remote({"url": "../store"})
    author.commit()
    author("dvc", "push", "--quiet")
    return folder


def enter(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> Clone:
    """Make a clone the working directory of this process."""
    monkeypatch.chdir(clone.folder)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", clone.environment["DVC_SITE_CACHE_DIR"])
    shutil.rmtree(clone.environment["DVC_SITE_CACHE_DIR"], ignore_errors=True)
    Path(clone.environment["DVC_SITE_CACHE_DIR"]).mkdir(parents=True, mode=0o700)
    return clone


@pytest.fixture
def shared(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    """The author's clone after a push to a folder."""
    shutil.copytree(template, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    return enter(Clone(tmp_path / "author"), monkeypatch)


@pytest.fixture
def author(shared: Clone, tmp_path: Path) -> Clone:
    """The author's clone before the push, without a remote."""
    shutil.rmtree(tmp_path / "store")
    shared("git", "reset", "--quiet", "--hard", "HEAD~1")
    return shared


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty HOME, so that no key, configuration or known host of the user is read or changed."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@needs_detect_secrets
@pytest.mark.parametrize("kind", ["folder", "webdav", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("s3", "ssh"))])
def test_a_clone_pulls_pushed_files(kind: str, home: Path, author: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SERVERS[kind](tmp_path / "server") as options:
        author.environment["HOME"] = str(home)
        author.add_remote(options)
        author.commit()
        # Credentials are in config.local, which git ignores.
        tracked = author("git", "show", "HEAD:.dvc/config")
        assert not [key for key in SECRET if f"{key} =" in tracked]
        printed = author("dvc", "push")
        assert "3 files pushed" in printed
        run("verify", "--contents")

        colleague = author.clone(tmp_path / "colleague")
        if (author.folder / ".dvc/config.local").exists():
            shutil.copy(author.folder / ".dvc/config.local", colleague.folder / ".dvc")
        enter(colleague, monkeypatch)
        run("pull")
        assert (colleague.folder / "data/more/words.txt").read_text() == "dog bed\n"
        assert (colleague.folder / "result.txt").read_text() == "garden hose\n"
        assert not (colleague.folder / "base").exists()
        printed = run("verify").output
        assert "missing (`make pull`" in printed


@pytest.fixture
def http(tmp_path: Path) -> Iterator[str]:
    """A read-only web server for the folder of the remote."""

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path / "store"))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def colleague(shared: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    """A clone of the author's repository, before any pull."""
    return enter(shared.clone(tmp_path / "colleague"), monkeypatch)


@needs_detect_secrets
def test_files_can_be_pulled_through_a_web_server(colleague: Clone, http: str) -> None:
    colleague("dvc", "remote", "add", "--local", "--force", "team", http)
    run("pull", "data")
    assert (colleague.folder / "data/words.txt").read_text() == "garden hose\n"
    run("verify", "--contents")


def replace(path: Path, content: bytes) -> None:
    """Change the content of a file, but neither its size nor its modification time."""
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(content.ljust(before.st_size, b"!")[: before.st_size])
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@needs_detect_secrets
def test_verify_detects_changes_that_keep_size_and_modification_time(shared: Clone) -> None:
    clean = run("verify", "--contents").output
    assert clean.count("ok ") == 7
    assert "FAILED" not in clean

    word = hashlib.md5(b"dog bed\n", usedforsecurity=False).hexdigest()
    replace(shared.object(word), b"cat bed\n")
    printed = run("verify", fails=True).output
    assert "FAILED  cached files match their hashes\n  data/more/words.txt: " in printed
    assert "in the cache does not match its hash" in printed
    replace(shared.object(word), b"dog bed\n")

    replace(shared.folder / "data/words.txt", b"garden rose\n")
    printed = run("verify", fails=True).output
    assert "FAILED  the workspace matches dvc.lock\n  data.dvc: changed outs data modified" in printed
    replace(shared.folder / "data/words.txt", b"garden hose\n")
    run("verify")


@needs_detect_secrets
@pytest.mark.parametrize("name", ["dvc.yaml", "result.txt"])
def test_verify_detects_a_changed_file(shared: Clone, name: str) -> None:
    with (shared.folder / name).open("a") as handle:
        handle.write("    desc: other\n    frozen: false\n    always_changed: true\n" if name == "dvc.yaml" else "more\n")
    printed = run("verify", fails=True).output
    assert "FAILED  the workspace matches dvc.lock\n  copy: " in printed


@needs_detect_secrets
def test_verify_detects_missing_and_changed_files_on_the_remote(shared: Clone, tmp_path: Path) -> None:
    word = hashlib.md5(b"dog bed\n", usedforsecurity=False).hexdigest()
    stored = tmp_path / "store/files/md5" / word[:2] / word[2:]
    replace(stored, b"cat bed\n")
    run("verify")
    printed = run("verify", "--contents", fails=True).output
    assert "data/more/words.txt does not match its hash on" in printed
    # DVC considers a folder complete if its listing exists.
    stored.unlink()
    printed = run("verify", fails=True).output
    assert "data/more/words.txt is not on" in printed
    shutil.rmtree(tmp_path / "store")
    printed = run("verify", fails=True).output
    assert printed.count("is not on") == 3
    run("verify", "--offline")


@needs_detect_secrets
def test_pull_refuses_a_changed_object(colleague: Clone, tmp_path: Path) -> None:
    word = hashlib.md5(b"dog bed\n", usedforsecurity=False).hexdigest()
    replace(tmp_path / "store/files/md5" / word[:2] / word[2:], b"cat bed\n")
    printed = run("pull", "data", fails=True).output
    assert "verify --contents` names" in printed
    printed = run("verify", "--contents", fails=True).output
    assert "data/more/words.txt does not match its hash" in printed
    # With `verify: true` in .dvc/config, DVC refuses it too.
    printed = colleague("dvc", "pull", "data", fails=True)
    assert "failed" in printed.lower()
    assert not (colleague.folder / "data/more/words.txt").exists()


@needs_detect_secrets
@pytest.mark.parametrize("known", [False, True], ids=["changed on the remote", "named by git"])
def test_a_listing_with_a_path_out_of_the_workspace_is_refused_before_it_is_used(
    shared: Clone, tmp_path: Path, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, oid = tmp_path / "store/files/md5", shared.listing()
    stored = store / oid[:2] / f"{oid[2:]}.dir"
    listing = json.loads(stored.read_bytes())
    listing[0]["relpath"] = "../../escaped"
    content = json.dumps(listing).encode()
    if known:  # the attacker can commit, so the hash in git matches
        new = hashlib.md5(content, usedforsecurity=False).hexdigest()
        stored = store / new[:2] / f"{new[2:]}.dir"
        stored.parent.mkdir(exist_ok=True)
        described = shared.folder / "data.dvc"
        described.write_text(described.read_text().replace(oid, new))
        shared.commit()
    stored.unlink(missing_ok=True)
    stored.write_bytes(content)

    colleague = enter(shared.clone(tmp_path / "colleague"), monkeypatch)
    message = run("pull", fails=True).output
    assert ("leads out of its folder" if known else "does not match its hash") in message
    assert not (tmp_path / "escaped").exists()
    assert not (colleague.folder / "data").exists()
    # DVC itself writes to the path; `verify` reports it afterwards.
    colleague("dvc", "pull", "data")
    assert (tmp_path / "escaped").exists()
    printed = run("verify", "--offline", fails=True).output
    assert "FAILED" in printed


def test_dvc_uses_the_verified_listings_that_were_fetched_before(colleague: Clone, tmp_path: Path) -> None:
    run("pull", "--listings")
    assert not (colleague.folder / "data").exists()
    oid = colleague.listing()
    stored = tmp_path / "store/files/md5" / oid[:2] / f"{oid[2:]}.dir"
    content = stored.read_text().replace("more/words.txt", "../../escaped1")
    stored.chmod(0o644)
    stored.write_text(content)
    colleague("dvc", "pull", "data")
    assert not (tmp_path / "escaped1").exists()
    assert (colleague.folder / "data/more/words.txt").read_text() == "dog bed\n"


@pytest.mark.parametrize(
    "path", ["../escaped", "more/../../escaped", "/tmp/escaped", "..", "", "a//b", "a\\..\\escaped", "c:escaped", "nul\0", 1]
)
def test_a_path_that_may_lead_out_of_the_folder_is_refused(path: object) -> None:
    content = json.dumps([{"md5": "0" * 32, "relpath": path}]).encode()
    oid = hashlib.md5(content, usedforsecurity=False).hexdigest() + ".dir"
    with pytest.raises(UserError, match="leads out of its folder"):
        checks.read_listing(content, oid)


@given(st.lists(st.text(st.sampled_from("a./\\:\0é ") | st.characters(), min_size=0, max_size=12), max_size=4))
def test_every_listing_that_is_accepted_stays_in_its_folder(paths: list[str]) -> None:
    content = json.dumps([{"md5": "0" * 32, "relpath": path} for path in paths]).encode()
    oid = hashlib.md5(content, usedforsecurity=False).hexdigest() + ".dir"
    try:
        accepted = checks.read_listing(content, oid)
    except UserError:
        return
    assert all(os.path.normpath(f"/w/out/{path}").startswith("/w/out/") for path in accepted)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[1]", b"[{}]", b'[{"relpath": "a"}]', b'[{"relpath": "a", "md5": "../../x"}]', b'[{"relpath": 1, "md5": ""}]', b"\xff"],
)
def test_content_that_is_not_a_listing_is_refused(content: bytes) -> None:
    oid = hashlib.md5(content, usedforsecurity=False).hexdigest() + ".dir"
    with pytest.raises(UserError, match=oid):
        checks.read_listing(content, oid)


@needs_detect_secrets
def test_no_file_is_written_through_a_link_out_of_the_workspace(colleague: Clone, tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (colleague.folder / "data").symlink_to(tmp_path / "victim")
    printed = run("pull", fails=True).output
    assert "leads out of the workspace" in printed
    assert list((tmp_path / "victim").iterdir()) == []
    (colleague.folder / "data").unlink()
    (colleague.folder / "notes").symlink_to("/etc/passwd")
    colleague("git", "add", "notes")
    printed = run("verify", "--offline", fails=True).output
    assert "notes leads to /etc/passwd" in printed


# Split in two, because this file is in git and is searched for secrets too.
PLANTED = {
    "a key": "-----BEGIN OPENSSH PRIVATE" + " KEY-----",
    "aws": "key = AKIA" + "IOSFODNN7EXAMPLQ",
    "github": "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
    "hub": "login(hf_" + "abcdefghijklmnopqrstuvwxyzABCDEFGH)",
    "password in an address": "https://jo:s3cr3tw0rd" + "@example.org/x",
    "password": 'password = "hunter2' + 'correcthorse"',
    "slack": "xoxb" + "-123456789012-1234567890123-abcdefghijklmnopqrstuvwx",
}


@needs_detect_secrets
@pytest.mark.parametrize("kind", PLANTED)
def test_a_secret_is_detected(tmp_path: Path, kind: str) -> None:
    notes = tmp_path / "notes.py"
    notes.write_text("first line\n" + PLANTED[kind] + "\n")
    assert {(path, line) for path, line, _ in checks.secrets([notes])} == {(notes, 2)}
    notes.write_text(
        "md5: "
        + "0f" * 16
        + "\napi_key = os.environ['DEEPL_API_KEY']\npassword: ${PASSWORD}\n"
        + PLANTED["aws"]
        + "  # pragma: allowlist secret\n"
    )
    assert list(checks.secrets([notes])) == []


@needs_detect_secrets
def test_verify_detects_a_secret_in_git(author: Clone) -> None:
    (author.folder / "notes.py").write_text(PLANTED["aws"] + "\n")
    printed = run("verify", "--offline").output
    assert "ok      git contains no secrets" in printed
    author("git", "add", "notes.py")
    printed = run("verify", "--offline", fails=True).output
    assert "FAILED  git contains no secrets\n  notes.py:1: AWS Access Key" in printed


@needs_detect_secrets
def test_verify_detects_credentials_in_the_shared_configuration(author: Clone) -> None:
    author("dvc", "remote", "add", "team", "s3://bucket/x")
    author("dvc", "remote", "modify", "--local", "team", "secret_access_key", "x")
    printed = run("verify", "--offline").output
    assert "ok      git contains no secrets" in printed
    author("dvc", "remote", "modify", "team", "secret_access_key", "x")
    printed = run("verify", "--offline", fails=True).output
    assert ": secret_access_key of a remote" in printed


@needs_detect_secrets
def test_verify_detects_a_cache_that_other_users_can_write(shared: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # other users cannot enter the folders of pytest
        site = Path(folder, "site")
        site.mkdir()
        monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(site))
        site.chmod(0o777)
        printed = run("verify", "--offline").output
        assert "ok      other users cannot write to DVC's cache" in printed
        Path(folder).chmod(0o755)
        printed = run("verify", "--offline", fails=True).output
        assert f"any user can write to {site}" in printed
        site.chmod(0o700)
        run("verify", "--offline")


def test_the_memories_of_two_people_merge_without_loss(shared: Clone, colleague: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two people exchange exports of their memories through the remote; both then have all entries, in equal bytes."""
    entries_of = {}
    for person, texts in ((shared, ["garden hose", "dog bed"]), (colleague, ["evening dress", "dog bed"])):
        monkeypatch.chdir(person.folder)
        Path(".scratch").mkdir()
        entries_of[person] = [memory_files.Entry("libre", "1", "en", "de", text, text[::-1]) for text in texts]
        with translation_memory.Memory(Path(".scratch/memory.sqlite")) as store:
            store.add(entries_of[person])
        run("memory", "export", f"memory-{person.folder.name}.csv")
        person("dvc", "add", "--quiet", f"memory-{person.folder.name}.csv")
        person("dvc", "push", "--quiet", f"memory-{person.folder.name}.csv")
    merged = []
    for person, other in ((shared, colleague), (colleague, shared)):
        monkeypatch.chdir(person.folder)
        name = f"memory-{other.folder.name}.csv"
        shutil.copy(other.folder / f"{name}.dvc", person.folder)
        run("pull", name)
        run("memory", "import", name)
        run("memory", "export", "all.csv")
        merged.append((person.folder / "all.csv").read_bytes())
    assert merged[0] == merged[1]
    assert set(memory_files.read_csv(Path("all.csv"))) == {entry for entries in entries_of.values() for entry in entries}


def with_credentials(author: Clone, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    clone = author.clone(folder)
    shutil.copy(author.folder / ".dvc/config.local", clone.folder / ".dvc")
    clone("git", "config", "user.email", "other@localhost")
    clone("git", "config", "user.name", "other")
    return enter(clone, monkeypatch)


def repro(clone: Clone, *options: str) -> list[str]:
    """Return the stages that ran."""
    return re.findall(r"Running stage '([^']+)'", clone("dvc", "repro", *options))


@needs_detect_secrets
@pytest.mark.slow
def test_colleagues_continue_from_shared_results(home: Path, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pipeline, shared through S3: one colleague evaluates again, another predicts again with the shared adapter."""
    project.change(train={"epochs": 1}, tasks=["qc"])
    Graph(project)
    author = Clone(project.folder)
    with SERVERS["s3"](tmp_path / "server") as options:
        author("dvc", "repro", "--quiet")
        author.add_remote(options)
        author.commit()
        author("dvc", "push", "--quiet")

        # Evaluation needs neither the base model, which is not shared, nor the adapter.
        scorer = with_credentials(author, tmp_path / "scorer", monkeypatch)
        run("pull", "--listings")
        ran = repro(scorer, "--pull", "--allow-missing", "evaluate")
        assert ran == []
        Project(scorer.folder).change(evaluate={"threshold": 0.25})
        ran = repro(scorer, "--pull", "--allow-missing", "evaluate")
        assert ran == ["evaluate@qc-tiny"]
        assert json.loads((scorer.folder / "metrics/tiny/qc.json").read_text())["test"]["threshold"] == 0.25
        assert not (scorer.folder / "models/tiny/base/model.safetensors").exists()
        assert not (scorer.folder / "models/tiny/qc").exists()

        # The adapter comes from the remote and the base model from its source; train does not run.
        other = with_credentials(author, tmp_path / "other", monkeypatch)
        run("pull", "models/tiny/qc")
        adapter = Path("models/tiny/qc/adapter_model.safetensors")
        assert (other.folder / adapter).read_bytes() == (author.folder / adapter).read_bytes()
        ran = repro(other, "base")
        assert ran == ["base@tiny"]
        Project(other.folder).change(predict={"max_tokens": 2048})
        ran = repro(other, "--pull", "--allow-missing", "evaluate", "resist")
        assert "predict@qc-tiny" in ran
        assert not any(stage.startswith(("train", "negatives", "translate")) for stage in ran)
        other.commit()
        other("dvc", "push", "--quiet")

        enter(author, monkeypatch)
        author("git", "pull", "--quiet", str(other.folder), "main")
        run("pull")
        ran = repro(author)
        assert ran == []
        run("verify", "--contents")


def test_a_registered_version_of_an_adapter_is_fetched_from_the_remote(project: Project, tmp_path: Path) -> None:
    """With the artifacts of the shipped dvc.yaml, whose paths are changed to the model of the test, as docs/sharing.md says."""
    project.change(train={"epochs": 1}, tasks=["qc"])
    Graph(project)
    author = Clone(project.folder)
    printed = author("python", "-m", "babelcart", "check")
    assert "change its path to models/tiny/qc" in printed
    path = author.folder / "dvc.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("models/gemma3-270m/q", "models/tiny/q"), encoding="utf-8")
    printed = author("python", "-m", "babelcart", "check")
    assert "the artifact" not in printed
    author("dvc", "repro", "--quiet", "train@qc-tiny")
    author.add_remote({"url": str(tmp_path / "store")})
    adapters = []
    for version in ("v0.1.0", "v0.2.0"):
        printed = author("dvc", "status", "train@qc-tiny")
        assert "up to date" in printed
        adapters.append((author.folder / "models/tiny/qc/adapter_model.safetensors").read_bytes())
        author.commit()
        author("dvc", "push", "--quiet")
        author("python", "-m", "gto.cli", "register", "qc", "--version", version)
        project.change(train={"epochs": 2})
        author("dvc", "repro", "--quiet", "train@qc-tiny")
    author("python", "-m", "gto.cli", "assign", "qc", "--version", "v0.1.0", "--stage", "prod")
    shown = author("python", "-m", "gto.cli", "show")
    assert re.search(r"qc\s.*v0\.2\.0.*v0\.1\.0", shown)

    author("git", "clone", "--quiet", "--bare", ".", str(tmp_path / "server.git"))
    shutil.rmtree(author.folder / ".dvc/cache")  # what is fetched comes from the remote
    (tmp_path / "elsewhere").mkdir()
    other = Repository(tmp_path / "elsewhere")
    for out, options, expected in (
        ("version", ["--rev", "v0.2.0"], adapters[1]),
        ("stage", ["--stage", "prod"], adapters[0]),
        ("latest", [], adapters[1]),
    ):
        other("dvc", "artifacts", "get", "../server.git", "qc", *options, "--out", out)
        assert (other.folder / out / "adapter_model.safetensors").read_bytes() == expected
    assert adapters[0] != adapters[1]
    printed = other("dvc", "artifacts", "get", "../server.git", "qc", "--rev", "v0.3.0", fails=True)
    assert "Unable to find artifact 'qc @ v0.3.0'" in printed


def test_rows_of_your_own_on_the_remote_of_the_sample_are_reported(author: Clone) -> None:
    sample = author.folder / "samples/remote"
    author("dvc", "remote", "add", "--quiet", "sample", str(sample))
    tracked = author.folder / "data.dvc"
    tracked.write_text(tracked.read_text() + "  remote: sample\n")
    author("dvc", "push", "--quiet", "data.dvc")
    author.commit()
    assert not list(checks.rows_on_shipped_remotes(author.folder))
    (author.folder / "data/words.txt").write_text("my own rows\n")
    author("dvc", "add", "--quiet", "data")
    (message,) = checks.rows_on_shipped_remotes(author.folder)
    assert message.startswith("data.dvc: data has changed, but its remote is still 'sample', a folder of this repository")
    printed = run("verify", "--offline", fails=True).output
    assert "FAILED  no data of your own belongs to the sample's remote\n  data.dvc: data has changed" in printed
    for command in message.partition("`remote: sample`: ")[2].split(" && "):
        author(*command.split())
    assert not list(checks.rows_on_shipped_remotes(author.folder))
    assert "remote" not in tracked.read_text()
    assert (author.folder / "data/words.txt").read_text() == "my own rows\n"
