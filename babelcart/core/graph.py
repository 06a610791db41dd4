"""Facts that dvc.yaml defines: which stages, sections of params.yaml and folders exist. They are not listed anywhere else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from babelcart.core.files import parse_yaml

GRAPH = Path("dvc.yaml")
_OUTPUTS = ("outs", "metrics", "plots")
_TEMPLATE = re.compile(r"\$\{(?!item\b)(\w+)")


def read_stages() -> dict[str, Any]:
    """Return the stages of dvc.yaml by name; empty if the working directory has no dvc.yaml."""
    if not GRAPH.exists():
        return {}
    content = parse_yaml(GRAPH.read_text(encoding="utf-8"), str(GRAPH))
    stages = content.get("stages") if isinstance(content, dict) else None
    return stages or {}


def read_sections() -> list[str]:
    """Return the sections of params.yaml that dvc.yaml uses, as ``params`` of a stage or in a template such as ``${data.path}``; sorted."""
    text = GRAPH.read_text(encoding="utf-8") if GRAPH.exists() else ""
    params = {param.partition(".")[0] for stage in read_stages().values() for param in stage.get("params", [])}
    return sorted(params | set(_TEMPLATE.findall(re.sub(r"(?m)^\s*#.*", "", text))))


def _paths(stage: dict[str, Any], *kinds: str) -> list[str]:
    """Return the paths of a stage's entries; an entry with options is a mapping with the path as its key."""
    return [path for kind in kinds for entry in stage.get(kind, []) for path in ([entry] if isinstance(entry, str) else entry)]


def metrics_folders() -> set[str]:
    """Return the folders of metrics/ that do not belong to a model, such as ``prepare`` and ``ngram``."""
    paths = [path.split("/") for stage in read_stages().values() for path in _paths(stage, "metrics")]
    return {parts[1] for parts in paths if parts[0] == "metrics" and "$" not in parts[1]}


def code_folders() -> list[str]:
    """Return top-level folders that stages depend on and no stage writes: those with the code; sorted."""
    stages = read_stages().values()
    written = {path.partition("/")[0] for stage in stages for path in _paths(stage, *_OUTPUTS)}
    read = {path.partition("/")[0] for stage in stages for path in _paths(stage, "deps") if not path.startswith("$")}
    return sorted(read - written)
