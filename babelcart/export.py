"""Taking a trained adapter out of the pipeline, for programs that know peft or plain transformers."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path

from babelcart.core.errors import UserError
from babelcart.core.files import write_json
from babelcart.model.loading import ModelSettings, check_adapter, load_adapter, load_base, load_tokenizer
from babelcart.model.prompts import Prompt, PromptTokenizer

# What a caller needs beside the weights to ask as `predict` does.
CONTRACT = "babelcart.json"


def export_model(
    base: Path, adapter: Path, block: ModelSettings, prompt: Prompt, threshold: float | None, card: Path | None, out: Path, merge: bool
) -> None:
    """Write an adapter, or the base model with the adapter merged into its weights, to a new folder.

    Beside it stand ``babelcart.json``: the prompt, the ids of the two label tokens and the threshold of "relevant", and the model card.

    Parameters
    ----------
    base, adapter : pathlib.Path
        Folders of the `base` and `train` stages.
    threshold : float, optional
        As `evaluate` chose it.
    card : pathlib.Path, optional
        The adapter's card; becomes ``README.md``, where the hub looks for it.
    out : pathlib.Path
        Must not exist.
    merge : bool
        Merged weights are rounded to the model's dtype; of an NF4 model, the base is loaded whole in that dtype, not in 4 bits.

    Raises
    ------
    UserError
        If `out` exists, or the adapter does not pass `babelcart.model.loading.check_adapter`.
    """
    from huggingface_hub import ModelCard

    if out.exists():
        raise UserError(f"{out} exists; choose another folder or remove it")
    check_adapter(adapter)
    tokenizer = load_tokenizer(base)
    labels = PromptTokenizer(tokenizer, prompt).labels
    half = out.with_name(f".{out.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    if merge:
        model = load_adapter(load_base(base, replace(block, quantization="none")), adapter)
        model.merge_and_unload(safe_merge=True).save_pretrained(half)
        tokenizer.save_pretrained(half)
    else:
        shutil.copytree(adapter, half)
    write_json(half / CONTRACT, {"prompt": asdict(prompt), "label_tokens": asdict(labels), "threshold": threshold})
    if card:
        readme = ModelCard.load(card)
        if merge:
            readme.data.library_name, readme.data.base_model_relation = "transformers", "finetune"
        readme.save(half / "README.md")
    half.rename(out)
