"""Publish an export on the Hugging Face hub: which of its files are sent, the checks before that, and the upload."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from babelcart.card import BODY
from babelcart.core.errors import UserError
from babelcart.core.files import write_json
from babelcart.export import CONTRACT, EXAMPLE, EXAMPLE_ARGUMENTS, USAGE, licence_files
from babelcart.model.loading import files_folder
from babelcart.model.task_model import TaskModel
from babelcart.rows.text import normalise
from babelcart.scorer import adapter_revision
from babelcart.weights.hub import LICENCE_FILES, is_named
from babelcart.weights.quiet import silence_libraries

README = "README.md"
# The names of the files that may be sent, in addition to the licences of the base model. All others are not sent.
WEIGHTS = ("adapter_model.safetensors", "model.safetensors", "model-*-of-*.safetensors")
# Files of the base model's tokenizer. They are not searched: almost any text occurs in a vocabulary.
VOCABULARY = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json", "chat_template.jinja",
)  # fmt: skip
DOCUMENTS = (
    README, CONTRACT, EXAMPLE, "adapter_config.json", "config.json", "generation_config.json", "tokenizer_config.json",
    "model.safetensors.index.json",
)  # fmt: skip
# Shorter texts of rows, such as "red", also occur in a card that quotes no row.
MIN_CHARACTERS = 12
# An absolute path, or one in a home folder, with at least two parts, that is not part of an address.
_PATH = re.compile(r"(?:(?<![\w/.:~<-])|(?<=file://)|(?<=\w:)(?!//))~?/(?:[\w.-]+/)+[\w.-]*")


def parse_target(target: str) -> str:
    """Return the name of the repository in a target such as ``hf:owner/name``.

    Raises
    ------
    UserError
        If the target has another form, or the hub does not accept such a name.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    kind, _, repo = target.partition(":")
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"--to is {target!r}; accepted: hf:OWNER/NAME, a repository of the Hugging Face hub ({error})") from error
    if kind != "hf" or repo.count("/") != 1:
        raise UserError(f"--to is {target!r}; accepted: hf:OWNER/NAME, a repository of the Hugging Face hub")
    return repo


def check_form(task_model: TaskModel, merge: bool, licences: Sequence[Path]) -> None:
    """Require that others can load the form that is published, and that the licence of the base model goes with it.

    Parameters
    ----------
    task_model : TaskModel
    merge : bool
        Whether the merged model is published, not the adapter.
    licences : sequence of pathlib.Path
        Files with the licence of the base model that the user adds to those beside its weights.

    Raises
    ------
    UserError
        If the adapter's base model is not on the hub, no file states the licence of the base model, or two such files have the same name.
    """
    name, weights = task_model.base.parent.name, task_model.settings.weights
    if not merge and not weights.repo:
        raise UserError(
            f"the adapter of {name} needs its base model, and peft can load it only from the hub, but "
            f"models.{name}.weights in params.yaml has no `repo`. Publish the merged model: add --merge"
        )
    if unknown := [path for path in licences if not is_named(path, LICENCE_FILES)]:
        raise UserError(f"--licence is {unknown[0]}; accepted: files with a name such as LICENSE, NOTICE.txt or GEMMA_TERMS.html")
    present = [path.name for path in licence_files(task_model.base)]
    for path in licences:
        if path.name in present:
            raise UserError(f"--licence is {path}, but the model has another licence file named {path.name}; give the file another name")
        present.append(path.name)
    if not present:
        raise UserError(
            f"{files_folder(task_model.base)} has no file with the licence of the base model ({weights.licence}), which must be "
            "published with the model. Save its text as a file, for example LICENSE, and pass the file with --licence"
        )


def finish(folder: Path, task_model: TaskModel, commit: str, adapter_md5: str) -> None:
    """Prepare an export for publication.

    Add the revision to the card, and remove the name of a base model that is not on the hub from its metadata. Remove the folders from
    which the base model was loaded, on this machine or that of its author, from the configuration of a merged model.
    """
    from huggingface_hub import ModelCard

    config = folder / "config.json"
    if config.exists():
        write_json(config, _without_names(json.loads(config.read_text(encoding="utf-8"))))
    card = ModelCard.load(folder / README)
    if not task_model.settings.weights.repo:
        card.data.base_model = card.data.base_model_relation = None
    revision = adapter_revision(task_model.adapter)
    card.text = (
        f"{card.text.rstrip()}\n\n### Revision\n\nThe adapter is that of the commit `{commit}` of the project. "
        f"Its MD5 hash in `dvc.lock` is `{adapter_md5}`, and `babelcart serve` and `score` call it revision `{revision}`.\n"
    )
    card.save(folder / README)


def _without_names(config: Any) -> Any:
    """Remove ``_name_or_path`` from a configuration, and from those of its parts."""
    if not isinstance(config, dict):
        return config
    return {key: _without_names(value) for key, value in config.items() if key != "_name_or_path"}


def select(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the files of an export that are sent, and the names of the others; both sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    accepted = (*WEIGHTS, *VOCABULARY, *DOCUMENTS, *LICENCE_FILES)
    sent = [path for path in files if path.parent == folder and is_named(path, accepted)]
    return sent, [path.relative_to(folder).as_posix() for path in files if path not in sent]


def texts(files: Iterable[Path]) -> list[Path]:
    """Return the files that hold text of this project or of the licences: all but the weights and the vocabulary of the base model."""
    return [path for path in files if not is_named(path, (*WEIGHTS, *VOCABULARY))]


def problems(files: Iterable[Path], rows: Iterable[str]) -> Iterator[str]:
    """Yield a message for each text that must not be published: a text of a row in the card or the prompt, or a path of this machine.

    Licences are not searched, and neither is ``example.py``, which is the same for every model.

    Parameters
    ----------
    files : iterable of pathlib.Path
        The files to send.
    rows : iterable of str
        Queries and candidates of the data. Those in the fixed text of the card are not reported.
    """
    fixed = normalise(" ".join((BODY, USAGE, *EXAMPLE_ARGUMENTS.values())))
    long_rows = {row for text in rows if len(row := normalise(text)) >= MIN_CHARACTERS and row not in fixed}
    for path in files:
        if path.name not in DOCUMENTS or path.name == EXAMPLE:
            continue
        text = path.read_text(encoding="utf-8")
        yield from (f"{path.name} contains a path of this machine: {match[0]!r}" for match in _PATH.finditer(text))
        if path.name in (README, CONTRACT):
            parts = [text] if path.name == README else _strings(json.loads(text))  # decoded: a line break in the prompt is written as \\n
            lines = [normalise(line) for part in parts for line in part.splitlines()]
            yield from (f"{path.name} contains a text of the data: {row!r}" for row in sorted(long_rows) if _is_quoted(row, lines))


def _strings(content: Any) -> Iterator[str]:
    """Yield the strings in the values of parsed JSON."""
    if isinstance(content, str):
        yield content
    for value in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from _strings(value)


def _is_quoted(row: str, lines: Sequence[str]) -> bool:
    """Return whether a text occurs in one of the lines, and not as a part of longer words."""
    return any(row in line and re.search(rf"(?<!\w){re.escape(row)}(?!\w)", line) for line in lines)


def address(repo: str) -> str:
    """Return the address of a repository, on the hub that ``HF_ENDPOINT`` names."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repo}"


def upload(files: Sequence[Path], repo: str, private: bool, message: str, description: str) -> str:
    """Create the repository if it does not exist, and replace the model in it in one commit.

    Files with names of a model that are in the repository but not among `files` are deleted: an adapter beside a merged model would be
    loaded together with it. Other files in the repository stay.

    Parameters
    ----------
    files : sequence of pathlib.Path
    repo : str
        Name of the repository, ``owner/name``.
    private : bool
        Whether only its owner may see the repository. The visibility of an existing repository does not change.
    message, description : str
        Text of the commit.

    Returns
    -------
    str
        Address of the commit.

    Raises
    ------
    UserError
        If the repository is public and should be private, or the upload fails.
    """
    silence_libraries()
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    names, api = {path.name for path in files}, HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        current = api.model_info(repo)
        if private and current.private is False:
            raise UserError(
                f"{address(repo)} exists and is public. Nothing was sent; publish it with --public, or make it private in its settings"
            )
        present = [file.rfilename for file in current.siblings or []]
        old = [
            name for name in present if name not in names and any(fnmatchcase(name, model) for model in (*WEIGHTS, *VOCABULARY, *DOCUMENTS))
        ]
        operations = [
            *(CommitOperationAdd(path.name, path) for path in files),
            *(CommitOperationDelete(name, is_folder=False) for name in old),
        ]
        commit = api.create_commit(repo, operations, commit_message=message, commit_description=description, parent_commit=current.sha)
    except UserError:
        raise
    except Exception as error:  # the client raises a dozen types
        raise UserError(
            f"the upload to {address(repo)} failed: {_explanation(error, repo)}.\nThe files become visible together, in one commit, so "
            "that no incomplete model is there. Run the command again: it sends only what the hub lacks"
        ) from error
    return str(commit.commit_url)


def _explanation(error: Exception, repo: str) -> str:
    """Explain an error of the client of the hub and what to do about it."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    chain: list[BaseException] = [error]
    while previous := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(previous)
    if any(isinstance(cause, OfflineModeIsEnabled) for cause in chain):
        return "HF_HUB_OFFLINE is set; unset it"
    statuses = [response.status_code for cause in chain if (response := getattr(cause, "response", None)) is not None]
    explanations = {
        401: "the hub asks for a login; run `hf auth login`, or set HF_TOKEN, with a token that has the permission to write",
        403: f"your token may not write to {repo}; use one with the permission to write to repositories of {repo.partition('/')[0]}",
        404: f"there is no such repository, or your token may not see it; check {repo!r}, and the permissions of your token",
        409: "another change of the repository is in progress",
        412: "the repository was changed at the same time",
    }
    for status in statuses:
        if status in explanations:
            return f"{explanations[status]} ({status})"
    if statuses or isinstance(error, ValueError):
        return str(error).strip().rstrip(".")
    return f"the hub cannot be reached, or the connection broke ({chain[-1]})"
