"""Loading a base model and its adapter, ready for packed rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from babelcart.core.config import bounded
from babelcart.core.errors import UserError, readable_folder
from babelcart.core.files import read_json
from babelcart.model.packing import Pack
from babelcart.weights.fetching import SOURCE_RECORD, SOURCE_RECORD_SHAPE, Weights
from babelcart.weights.quiet import silence_libraries

if TYPE_CHECKING:
    import torch

    from babelcart.model.prompts import LabelTokens


# How files are named that torch.load or pickle.load would read.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")


@dataclass(frozen=True)
class ModelSettings:
    """A block under ``models:``. LoRA settings have peft's names."""

    SECTION: ClassVar[str] = "models.*"

    weights: Weights
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    quantization: Literal["none", "nf4"] = "none"
    r: int = bounded(1, 4096, default=16)
    lora_alpha: int = bounded(1, 65536, default=32)
    lora_dropout: float = bounded(0, 0.99, default=0.0)
    use_rslora: bool = False
    use_dora: bool = False
    loraplus_lr_ratio: float = bounded(1, 1000, default=1.0)
    gradient_checkpointing: bool = False
    learning_rate: float | None = bounded(0, 1, default=None)


def device() -> str:
    """``cuda`` where there is one, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def for_this_cpu(model: ModelSettings) -> ModelSettings:
    """The model as it is computed here: in float32 if `dtype` is bfloat16 and the CPU has no instructions for it.

    Without them a product in bfloat16 takes ten times as long as one in float32, which rounds less.
    """
    import torch

    if model.dtype == "float32" or device() == "cuda":
        return model
    # avx512_bf16, amx_bf16, and those of other makers.
    found = any(there for name, there in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
    return model if found else replace(model, dtype="float32")


def base_source(folder: Path) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` for a folder that the `base` stage wrote."""
    if not (folder / SOURCE_RECORD).exists():
        raise UserError(f"{folder} holds no base model; run `dvc repro base`")
    pin = read_json(folder / SOURCE_RECORD, SOURCE_RECORD_SHAPE)
    if "repo" in pin:
        return {"pretrained_model_name_or_path": pin["repo"], "revision": pin["revision"], "trust_remote_code": False}
    return {"pretrained_model_name_or_path": str(folder), "trust_remote_code": False}


def refuse_pickles(folder: Path) -> None:
    """Weights are read from safetensors alone: a pickle runs whatever code stands in it when it is read.

    Raises
    ------
    UserError
        If the folder holds a pickle, or no safetensors.
    """
    found = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if found:
        raise UserError(
            f"{folder} holds {', '.join(found)}: pickles, which run code when they are read. Only safetensors are read: have whoever made "
            "them save as safetensors (save_pretrained of peft and transformers does), and remove these"
        )
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder} holds no weights (*.safetensors); run `dvc repro`, or `dvc pull` to fetch them")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a base model."""
    from transformers import AutoTokenizer

    silence_libraries()
    with readable_folder(folder):
        return AutoTokenizer.from_pretrained(**base_source(folder))


def load_base(folder: Path, model: ModelSettings) -> Any:
    """The frozen base model in its dtype and quantization, on the best device."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    where, dtype = base_source(folder), getattr(torch, model.dtype)
    if where["pretrained_model_name_or_path"] == str(folder):
        refuse_pickles(folder)
    settings: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "device_map": {"": device()}}
    if model.quantization == "nf4":
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    with readable_folder(folder):
        base = AutoModelForCausalLM.from_pretrained(**where, **settings)
    base.requires_grad_(False)
    if model.quantization == "nf4":
        for module in base.modules():
            # On a CPU with AVX512-BF16, scoring would repack the weights into a form that lets no gradient through, for good.
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    return base


def add_adapter(base: Any, model: ModelSettings, seed: int) -> Any:
    """LoRA on every linear layer of the text model, its first values fixed by `seed`."""
    import torch
    from peft import LoraConfig, get_peft_model

    targets = text_linears(base)
    torch.manual_seed(seed)  # before the adapter is built: its init is random
    config = LoraConfig(
        r=model.r,
        lora_alpha=model.lora_alpha,
        lora_dropout=model.lora_dropout,
        use_rslora=model.use_rslora,
        use_dora=model.use_dora,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(base, config, autocast_adapter_dtype=False)
    if model.gradient_checkpointing:
        adapted.gradient_checkpointing_enable({"use_reentrant": False})
    return adapted


def check_adapter(folder: Path) -> None:
    """See that a folder holds a LoRA adapter in safetensors.

    Raises
    ------
    UserError
        If there is no adapter, a pickle, or an adapter of another kind, which may name further files to load.
    """
    kind = read_json(folder / "adapter_config.json", {"peft_type": object})["peft_type"]
    refuse_pickles(folder)
    if kind != "LORA":
        raise UserError(f"{folder} holds an adapter of the kind {kind!r}; accepted: 'LORA', as `train` writes it")


def load_adapter(base: Any, folder: Path) -> Any:
    """A base model with a trained adapter that passes `check_adapter`."""
    from peft import PeftModel

    check_adapter(folder)
    with readable_folder(folder):
        return PeftModel.from_pretrained(base, folder, autocast_adapter_dtype=False)


def text_linears(base: Any) -> list[str]:
    """Full names of the linear layers of the decoder: never the head, never a vision tower."""
    import torch

    decoder = base.get_decoder()
    inside = {id(module) for module in decoder.modules()}
    return sorted(name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear) and id(module) in inside)


def label_logits(model: Any, pack: Pack, labels: LabelTokens) -> torch.Tensor:
    """Logits of "not relevant" and "relevant" after the last token of each row.

    Only the supervised positions and only the two label rows of the output matrix are computed, never the vocabulary.

    Returns
    -------
    torch.Tensor
        ``(rows, 2)`` float32; column 1 is "relevant".
    """
    import torch

    from babelcart.model.decoder import last_hidden

    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = whole.get_output_embeddings().weight
    hidden = last_hidden(whole.get_decoder(), pack.to(head.device))
    logits = (hidden @ head[[labels.negative, labels.positive]].T).float()
    cap = getattr(whole.config.get_text_config(), "final_logit_softcapping", None)
    return torch.tanh(logits / cap) * cap if cap else logits


def save_adapter(model: Any, folder: Path) -> None:
    """Write an adapter in peft's format; equal adapters give equal bytes."""
    config = model.peft_config["default"]
    # peft turns the target list into a set, whose order differs from process to process.
    config.target_modules = sorted(config.target_modules)
    config.base_model_name_or_path = Path(config.base_model_name_or_path or "").as_posix()
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # a template that says nothing of this adapter
