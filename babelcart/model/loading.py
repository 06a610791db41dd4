"""Load a base model and an adapter, and compute the logits of the two labels for packed rows."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from babelcart.core.config import bounded
from babelcart.core.errors import UserError, readable_folder
from babelcart.core.files import read_json
from babelcart.core.tasks import TASKS
from babelcart.model.packing import Pack
from babelcart.model.prompts import Prompt
from babelcart.model.quantized import is_intact, keep, kept_folder
from babelcart.weights.fetching import SOURCE_RECORD, SOURCE_RECORD_SHAPE, Weights
from babelcart.weights.hub import folder_of
from babelcart.weights.quiet import silence_libraries

if TYPE_CHECKING:
    import torch

    from babelcart.model.prefix_cache import PrefixCache
    from babelcart.model.prompts import LabelTokens


# Suffixes of files that torch.load or pickle.load would read.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
MAX_RANK = 4096  # of an adapter
MANY_PARAMETERS = 2_000_000_000
ADAPTER_SHAPE = {"peft_type": object, "r": int, "rank_pattern?": ({...: int}, None)}


@dataclass(frozen=True)
class ModelSettings:
    """A block under ``models:`` in params.yaml. Settings of LoRA have the names of ``peft.LoraConfig``."""

    SECTION: ClassVar[str] = "models.*"

    weights: Weights
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    quantization: Literal["none", "nf4"] = "none"
    r: int = bounded(1, MAX_RANK, default=16)
    lora_alpha: int = bounded(1, 65536, default=32)
    lora_dropout: float = bounded(0, 0.99, default=0.0)
    use_rslora: bool = False
    use_dora: bool = False
    loraplus_lr_ratio: float = bounded(1, 1000, default=1.0)
    gradient_checkpointing: bool = False
    learning_rate: float | None = bounded(0, 1, default=None)
    prompts: dict[str, Prompt] | None = None  # by task, in the place of those of the section prompts

    def __post_init__(self) -> None:
        if unknown := [task for task in self.prompts or {} if task not in TASKS]:
            raise ValueError(f"prompts has the key {unknown[0]!r}; accepted: {', '.join(TASKS)}")


def device() -> str:
    """``"cuda"`` if a GPU is available, else ``"cpu"``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def for_this_machine(settings: ModelSettings) -> ModelSettings:
    """Replace bfloat16 by float32 on a CPU or a GPU without bfloat16 instructions.

    Without these instructions, a matrix product in bfloat16 takes ten times as long as in float32, which also rounds less. GPUs have
    them since the Ampere generation (2020); a T4 or V100 does not.

    Returns
    -------
    ModelSettings
        `settings` unchanged if the device has bfloat16 instructions, or if `dtype` is float32.
    """
    import torch

    if settings.dtype == "float32":
        return settings
    if device() == "cuda":
        supported = torch.cuda.get_device_capability() >= (8, 0)
    else:
        # avx512_bf16, amx_bf16, and the names for CPUs of other manufacturers
        supported = any(available for name, available in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
    return settings if supported else replace(settings, dtype="float32")


def idle_gpus() -> str | None:
    """Return a notice if this machine has GPUs that are not used, else None."""
    import torch

    if torch.cuda.device_count() < 2:
        return None
    others = torch.cuda.device_count() - 1
    return f"{torch.cuda.get_device_name(0)} is used; {others} other GPUs are idle. CUDA_VISIBLE_DEVICES chooses another one"


def cpu_warning(parameters: int) -> str | None:
    """Return a warning if a model is so large that nobody means to run it on a CPU, and this process has no GPU; else None.

    Parameters
    ----------
    parameters : int
        Number of parameters of the model.
    """
    import torch

    if device() == "cuda" or parameters < MANY_PARAMETERS:
        return None
    if torch.version.hip:
        reason = "torch is built for AMD GPUs (ROCm) and finds none"
    elif torch.version.cuda:
        reason = f"torch is built for CUDA {torch.version.cuda} and finds no NVIDIA GPU, or the driver is too old for it; see `nvidia-smi`"
    elif torch.backends.mps.is_available():
        reason = "the GPUs of Apple (MPS) are not supported"
    else:
        reason = f"torch {torch.__version__} is built for CPUs only; for an NVIDIA GPU, install the build for your CUDA (pytorch.org)"
    return f"a model of {parameters / 1e9:.1f} billion parameters runs on the CPU, which takes hours: {reason}"


def files_folder(folder: Path) -> Path:
    """Return the folder that holds the files of a base model: `folder` itself, a snapshot in the cache of the hub, or a local folder.

    Parameters
    ----------
    folder : pathlib.Path
        Written by the `base` stage.

    Raises
    ------
    UserError
        If the folder has no source record, or an invalid one, or if a file of a model from the hub or a local folder is missing.
    """
    if not (folder / SOURCE_RECORD).exists():
        raise UserError(f"{folder} holds no base model; run `dvc repro base`")
    record = read_json(folder / SOURCE_RECORD, SOURCE_RECORD_SHAPE)
    return folder_of(record, folder.parent.name) if "files" in record else folder


def refuse_pickles(folder: Path) -> None:
    """Require that the weights in a folder are safetensors files. Loading a pickle can run any code that it contains.

    Raises
    ------
    UserError
        If the folder contains a pickle file, or no safetensors file.
    """
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise UserError(
            f"{folder} holds {', '.join(pickles)}: pickles, which can run code when they are loaded; accepted: safetensors files. "
            "Ask the author to save the weights as safetensors (the default of save_pretrained in peft and transformers), "
            "then delete the pickles"
        )
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder} holds no weights (*.safetensors); run `dvc repro`, or `dvc pull` to download them")


def load_config(folder: Path) -> Any:
    """Load the configuration of a base model, a ``transformers.PretrainedConfig``.

    Raises
    ------
    UserError
        If the folder contains no base model (see `files_folder`), or its files cannot be read.
    """
    from transformers import AutoConfig

    with readable_folder(folder):
        return AutoConfig.from_pretrained(files_folder(folder), trust_remote_code=False)


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a base model.

    Raises
    ------
    UserError
        If the folder contains no base model (see `files_folder`), or its files cannot be read.
    """
    from transformers import AutoTokenizer

    silence_libraries()
    with readable_folder(folder):
        return AutoTokenizer.from_pretrained(files_folder(folder), trust_remote_code=False)


def load_base(folder: Path, settings: ModelSettings, on_cpu: bool = False) -> Any:
    """Load a base model onto the GPU if one is available, in the dtype and quantization of `settings`.

    The NF4 form of a model from the hub is kept in ``.scratch`` and loaded from there the next time (`babelcart.model.quantized`).

    Parameters
    ----------
    folder : pathlib.Path
        Written by the `base` stage.
    settings : ModelSettings
        Only `dtype` and `quantization` are used.
    on_cpu : bool
        Load it onto the CPU, for work that computes nothing with it.

    Returns
    -------
    transformers.PreTrainedModel
        With frozen parameters.

    Raises
    ------
    UserError
        If the folder contains no base model, a pickle file, or files that cannot be read.
    """
    import torch
    from tqdm import tqdm
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    source, dtype = files_folder(folder), getattr(torch, settings.dtype)
    if source == folder:
        refuse_pickles(folder)
    device_name = "cpu" if on_cpu else device()
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False, "device_map": {"": device_name}}
    kept = _kept_folder(folder, settings, device_name)
    is_kept = kept is not None and is_intact(kept)
    if kept and is_kept:
        source = kept
    elif settings.quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    with readable_folder(folder):
        if not on_cpu and (notice := idle_gpus() or cpu_warning(count_parameters(source))):
            tqdm.write(notice, file=sys.stderr)
        base = AutoModelForCausalLM.from_pretrained(source, **options)
    base.requires_grad_(False)
    if settings.quantization == "nf4":
        for module in base.modules():
            # On CPUs with AVX512-BF16, bitsandbytes would otherwise repack the weights during scoring. The repacked weights pass no
            # gradient, and the model cannot be trained afterwards.
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    if kept and not is_kept:
        keep(base, kept)
    return base


def _kept_folder(folder: Path, settings: ModelSettings, device_name: str) -> Path | None:
    """Return the folder in which the NF4 form of a base model from the hub or a local folder is kept; None for other models."""
    record = read_json(folder / SOURCE_RECORD, SOURCE_RECORD_SHAPE)
    if settings.quantization != "nf4" or "files" not in record:
        return None
    return kept_folder(folder.parent.name, record, settings.dtype, device_name)


def count_parameters(folder: Path) -> int:
    """Number of parameters in the safetensors files of a folder, also of an NF4 model. Only the headers of the files are read."""
    from safetensors import safe_open

    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                if ".weight." not in name:  # the names of the scales of an NF4 weight begin with that of the weight
                    tensor = tensors.get_slice(name)
                    count += math.prod(tensor.get_shape()) * (2 if tensor.get_dtype() == "U8" else 1)  # NF4 has two weights in a byte
    return count


def add_adapter(base: Any, settings: ModelSettings, seed: int) -> Any:
    """Add a LoRA adapter to every linear layer of the text decoder.

    Parameters
    ----------
    base : transformers.PreTrainedModel
    settings : ModelSettings
        The settings of LoRA and `gradient_checkpointing`.
    seed : int
        Random seed of the initial weights.

    Returns
    -------
    peft.PeftModel
        The adapter has the dtype of the base model.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    targets, excluded = adapter_targets(base)
    torch.manual_seed(seed)  # get_peft_model draws the initial weights
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
        target_modules=targets,
        exclude_modules=excluded,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(base, config, autocast_adapter_dtype=False)
    for layer in text_decoder(adapted).layers:
        layer.gradient_checkpointing = settings.gradient_checkpointing  # read by babelcart.model.decoder
    return adapted


def check_adapter(folder: Path) -> None:
    """Require that a folder contains a LoRA adapter in safetensors.

    Raises
    ------
    UserError
        If the folder contains no adapter, a pickle file, an adapter of another type, which could name more files to load, or a rank above
        `MAX_RANK`, for which the allocation of memory would fail.
    """
    path = folder / "adapter_config.json"
    adapter = read_json(path, ADAPTER_SHAPE)
    refuse_pickles(folder)
    if adapter["peft_type"] != "LORA":
        raise UserError(f"{folder} holds an adapter of the kind {adapter['peft_type']!r}; accepted: 'LORA', as `train` writes it")
    ranks = [adapter["r"], *(adapter.get("rank_pattern") or {}).values()]
    if outside := [rank for rank in ranks if not 1 <= rank <= MAX_RANK]:
        raise UserError(f"{path}: the rank is {outside[0]}; accepted: 1 to {MAX_RANK}")


def load_adapter(base: Any, folder: Path) -> Any:
    """Add the trained adapter in a folder to a base model.

    Returns
    -------
    peft.PeftModel

    Raises
    ------
    UserError
        If `check_adapter` rejects the folder, or its files cannot be read.
    """
    from peft import PeftModel

    check_adapter(folder)
    with readable_folder(folder):
        return PeftModel.from_pretrained(base, folder, autocast_adapter_dtype=False)


def text_linears(base: Any) -> list[str]:
    """Full names of the linear layers of the text decoder, sorted. The head and a vision tower are not included."""
    import torch

    decoder_modules = {id(module) for module in base.get_decoder().modules()}
    return sorted(name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear) and id(module) in decoder_modules)


def adapter_targets(base: Any) -> tuple[list[str], str | None]:
    """Return `target_modules` and `exclude_modules` of ``peft.LoraConfig`` for the layers of `text_linears`.

    The targets are the last parts of the names, such as ``q_proj``, which are the same in other programs that load the adapter. Modules
    outside of the text decoder with such names, as in a vision tower, are excluded by a regular expression for the full name.
    """
    names = set(text_linears(base))
    targets = sorted({name.rpartition(".")[2] for name in names})
    parents = {name[:end] for name in names for end, letter in enumerate(name) if letter == "."}
    towers = set()
    for name, _ in base.named_modules():
        if name.rpartition(".")[2] in targets and name not in names:
            parts = name.split(".")
            towers.add(next(part for depth, part in enumerate(parts) if ".".join(parts[: depth + 1]) not in parents))
    return targets, rf"(.*\.)?({'|'.join(sorted(towers))})\..*" if towers else None


def text_decoder(model: Any) -> Any:
    """Return the text decoder of a transformers or peft model."""
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).get_decoder()


def label_logits(model: Any, pack: Pack, labels: LabelTokens, cache: PrefixCache | None = None) -> torch.Tensor:
    """Compute the logits of the two label tokens after the last token of each row.

    The output matrix is multiplied only at these positions, and only its two rows for the labels, not the complete vocabulary. The
    product is computed in float32: in bfloat16, the difference of two logits takes only some hundred values, and many rows would get
    the same probability.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
    pack : Pack
        Rows ``N``, of which ``R`` are different, in one sequence of ``T`` tokens, on any device.
    labels : LabelTokens
    cache : PrefixCache, optional
        The cache whose tree `pack_rows` was given.

    Returns
    -------
    torch.Tensor
        ``(N, 2)`` float32: column 0 is "not relevant", column 1 is "relevant".
    """
    import torch

    from babelcart.model.decoder import last_hidden
    from babelcart.model.layers import gather

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = base.get_output_embeddings().weight  # (vocabulary, hidden_size)
    pack = pack.to(head.device)
    hidden = last_hidden(text_decoder(model), pack, cache)  # (R, hidden_size)
    answers = torch.stack((head[labels.negative], head[labels.positive])).float()  # (2, hidden_size)
    logits = gather(hidden.float() @ answers.T, pack.row_index)  # (N, 2)
    cap = getattr(base.config.get_text_config(), "final_logit_softcapping", None)
    return torch.tanh(logits / cap) * cap if cap else logits


def save_adapter(model: Any, folder: Path, base: Path | None = None) -> None:
    """Write an adapter in the format of peft. Equal adapters give identical bytes.

    Parameters
    ----------
    model : peft.PeftModel
    folder : pathlib.Path
        Created if it does not exist.
    base : pathlib.Path, optional
        Folder of the base model. If its weights are from the hub, the adapter names their repository and commit, so that peft loads the
        same weights anywhere.
    """
    config = model.peft_config["default"]
    # peft stores the targets as a set, whose order differs between processes.
    config.target_modules = sorted(config.target_modules)
    config.base_model_name_or_path = Path(config.base_model_name_or_path or "").as_posix()
    record = read_json(base / SOURCE_RECORD, SOURCE_RECORD_SHAPE) if base else {}
    if "repo" in record:
        config.base_model_name_or_path, config.revision = record["repo"], record["revision"]
    # No embedding is trained. Without this argument, peft asks the hub whether the vocabulary changed.
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's template of a model card, without content
