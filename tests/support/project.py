"""A small project in its own folder, with twenty labelled rows per task and split, for the tests of stages and of the pipeline."""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from tests.support.imports import ROOT, package
from tests.support.processes import Repository

# query in English, query in German, a relevant category, a relevant item
SHELF = [
    ("garden hose", "gartenschlauch", "home & garden,watering,hoses", "Expandable Water Pipe 15m With Spray Gun"),
    ("evening dress", "abendkleid", "women's clothing,dresses,evening dresses", "Elegant Satin Gown Long Off Shoulder"),
    ("phone case", "handyhülle", "phones, parts & accessories,phone accessories,cases", "Shockproof Silicone Back Cover"),
    ("dog bed", "hundebett", "pet products,dog supplies,beds", "Soft Plush Sleeping Cushion For Puppies"),
    ("led lamp", "led lampe", "lights & lighting,indoor lighting,lamps", "Dimmable Bedside Light USB Rechargeable"),
]
FIELD = {"QC": "category_path", "QI": "item_title"}


def records(task: str, split: str) -> list[dict[str, Any]]:
    """Return each query with its own candidate and with that of another query: ten rows per language.

    The languages are English and French in train, English and German in dev and test.
    """
    column = 2 if task == "QC" else 3
    rows: list[dict[str, Any]] = []
    for language in ["en", "fr"] if split == "train" else ["en", "de"]:
        for shelf_index, entry in enumerate(SHELF):
            query = {"en": entry[0], "fr": entry[0] + " pas cher", "de": entry[1]}[language] + ("" if split == "train" else f" {split}")
            for label, candidate in ((1, entry[column]), (0, SHELF[(shelf_index + 2) % 5][column])):
                fields = {"id": str(len(rows) + 1), "task": task, "language": language, "origin_query": query, FIELD[task]: candidate}
                rows.append({**fields, "label": str(label)})
    return rows


def write_data(folder: Path) -> None:
    """Write the raw files of both tasks and a translation memory."""
    folder.mkdir(parents=True)
    for task in FIELD:
        for split in ("train", "dev", "test"):
            rows = records(task, split)
            if split != "train":
                labels = [f"{record['id']},{record.pop('label')}\n" for record in rows]
                (folder / f"{split}_{task}_labels.csv").write_text("id,label\n" + "".join(labels), encoding="utf-8")
            lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in rows]
            (folder / f"{split}_{task}.txt").write_text("".join(lines), encoding="utf-8")
    lines = [f"en,de,{entry[0]},{entry[1]}\n" for entry in SHELF[:4]]
    (folder / "memory.csv").write_text("source,target,text,translation\n" + "".join(lines), encoding="utf-8")


class Project:
    """A folder with params.yaml, data/ and, for tests of the pipeline, the code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def change(self, **sections: dict[str, Any] | list[Any]) -> None:
        """Change params.yaml: ``change(train={"epochs": 2})``."""
        path = self.folder / "params.yaml"
        yaml = YAML()
        params = yaml.load(path.read_text(encoding="utf-8"))
        for section, values in sections.items():
            if isinstance(values, dict):
                for key, value in values.items():
                    params[section][key] = value
            else:
                params[section] = values
        with path.open("w", encoding="utf-8") as handle:
            yaml.dump(params, handle)


class Graph(Repository):
    """A project with the pipeline, in git and DVC, whose commands run as processes."""

    def __init__(self, project: Project, real: bool = False) -> None:
        super().__init__(project.folder, real)
        self.project = project
        for name in ("babelcart", "stages", "queries"):
            shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in (".gitignore", ".dvcignore"):
            shutil.copy(ROOT / name, self.folder)
        self("git", "init", "--quiet", "--initial-branch=main")
        self("git", "config", "user.email", "test@localhost")
        self("git", "config", "user.name", "test")
        self("dvc", "init", "--quiet")
        self("dvc", "add", "--quiet", "data")
        self.commit("start")

    def copy(self, folder: Path) -> Graph:
        """Return the same project, with its history, cache and outputs, in another folder."""
        shutil.copytree(self.folder, folder, symlinks=True)
        graph = copy.copy(self)
        Repository.__init__(graph, folder)
        graph.project = Project(folder)
        return graph

    def repro(self) -> list[str]:
        """Run `dvc repro`; return the names of the stages that ran, such as ``train@qc-tiny``."""
        return re.findall(r"Running stage '([^']+)'", self("dvc", "repro"))


def make_project(folder: Path) -> Project:
    """Return a project with the shipped settings, changed to the tiny model and short runs, and small data."""
    project = Project(folder)
    folder.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder)
    project.change(
        run=["tiny"],
        translate={"min_coverage": 0.0, "min_similarity": {}},
        negatives={"encoder": {"kind": "lexical", "dimensions": 8}},
        split={"validation_share": 0.3},
        train={"epochs": 2, "max_rows": None},
    )
    write_data(folder / "data")
    return project


def run(name: str, *arguments: str, fails: bool = False) -> Result:
    """Run a stage or a subcommand of `babelcart` in this process."""
    result = CliRunner().invoke(importlib.import_module(f"{package(name)}.{name}").main, list(arguments))
    assert (result.exit_code != 0) == fails, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


built: Path | None = None


def run_to(last: str, task: str = "qc") -> None:
    """Run the stages up to `last` in the working directory, or copy their outputs if this session has run them on the same files."""
    if not built:
        return _run_to(last, task)
    stored_outputs = built / f"{last}-{task}-{_digest(Path())}"
    if stored_outputs.exists():
        shutil.copytree(stored_outputs, Path(), symlinks=True, dirs_exist_ok=True)
        return None
    _run_to(last, task)
    scratch = Path(tempfile.mkdtemp(dir=built))
    shutil.copytree(Path(), scratch, symlinks=True, dirs_exist_ok=True)
    try:
        scratch.rename(stored_outputs)
    except OSError:  # another worker was faster
        shutil.rmtree(scratch)
    return None


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"{path}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _run_to(last: str, task: str) -> None:
    for stage in ("prepare", "split", "translate", "negatives", "leaks", "base", "train", "predict", "evaluate"):
        options = ["--task", task] if stage != "base" else []
        options += ["--model", "tiny"] if stage in ("base", "train", "predict", "evaluate") else []
        run(stage, *options)
        if stage == last:
            return
