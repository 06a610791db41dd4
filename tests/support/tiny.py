"""A tiny model with random weights, a prompt and a few rows, and training runs with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

from babelcart.model import loading, prompts
from babelcart.model.loading import ModelSettings
from babelcart.model.packing import TokenRow
from babelcart.model.prompts import Prompt
from babelcart.training import loop
from babelcart.training.loop import LabelledRows, TrainSettings
from babelcart.weights.fetching import Weights, from_random

PROMPT = Prompt(template="Relevant?\n{query}\n{candidate}\n:", positive=" yes", negative=" no")
TEXTS = [
    ("fr", "robe de soirée", "women's clothing,dresses,evening dresses"),
    ("fr", "robe de soirée", "toys & hobbies,dolls,doll clothes"),
    ("ja", "iphone 14 ケース 透明", "phones,phone cases"),
    ("ja", "iphone 14 ケース 透明", "phones,screen protectors"),
    ("ja", "iphone 14 ケース 透明", "automobiles, parts & accessories,exterior parts,aerials"),
    ("ar", "فستان", "women's clothing,dresses"),
    ("en", "a", "b"),
]
LABELS = [1, 0, 1, 0, 0, 1, 0]
SETTINGS = TrainSettings(epochs=6, batch_size=3, group_by="query", learning_rate=1e-2, save_steps=2)
MODEL_SETTINGS = ModelSettings(weights=Weights(licence="", random="gemma3_text"), dtype="float32", r=4, lora_dropout=0.1)

TinyModel = tuple[object, prompts.PromptTokenizer]
# Rows of tokens of which many have a common start, are a prefix of another, or are equal.
TOKEN_LISTS = st.lists(st.lists(st.integers(10, 12), min_size=1, max_size=30).map(tuple), min_size=1, max_size=12)


def token_row(query: tuple[int, ...], candidate: tuple[int, ...]) -> TokenRow:
    """Return a row whose prompt is the query, then the candidate."""
    return TokenRow(query + candidate, query, candidate)


def build(folder: Path, family: str, adapter: bool = True, quantization: Any = "none") -> tuple[object, prompts.PromptTokenizer]:
    """Write a base model to a folder and load it, with an adapter of random values if `adapter`; and its tokenizer."""
    weights = Weights(licence="none", random=family)  # type: ignore[arg-type]
    from_random(weights, folder)
    model_settings = ModelSettings(weights=weights, dtype="float32", quantization=quantization, r=4, lora_alpha=8)
    model = loading.load_base(folder, model_settings)
    if adapter:
        model = loading.add_adapter(model, model_settings, seed=0)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():  # LoRA initialises B with zeros, with which the adapter has no effect
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model, prompts.PromptTokenizer(loading.load_tokenizer(folder), PROMPT)


def plain(**changes: Any) -> ModelSettings:
    """`MODEL_SETTINGS` without dropout, with changes."""
    return dataclasses.replace(MODEL_SETTINGS, lora_dropout=0.0, **changes)


def fit(
    folder: Path, settings: TrainSettings = SETTINGS, model_settings: ModelSettings = MODEL_SETTINGS, **options: Any
) -> tuple[loop.History, list[torch.Tensor]]:
    """Train on `TEXTS`, which are also the validation rows. Returns the history and the trained tensors."""
    adapted = loading.add_adapter(loading.load_base(folder, model_settings), model_settings, settings.seed)
    tokenizer = prompts.PromptTokenizer(loading.load_tokenizer(folder), PROMPT)
    data = LabelledRows([tokenizer.encode(*text) for text in TEXTS], LABELS)
    history = loop.Trainer(adapted, model_settings, data, tokenizer.labels, settings, validation=data).train(**options)
    return history, [parameter.detach().clone() for parameter in adapted.parameters() if parameter.requires_grad]


def separate_logits(model: object, rows: list[TokenRow], labels: prompts.LabelTokens) -> torch.Tensor:
    """Label logits ``(rows, 2)`` of one forward pass of transformers per row, with its own mask and the complete vocabulary."""
    base = model.get_base_model()  # type: ignore[attr-defined]
    implementation = base.config._attn_implementation
    base.set_attn_implementation("eager")
    base.eval()
    logits = torch.cat([base(input_ids=torch.tensor([row.tokens], device=base.device)).logits[:, -1] for row in rows])  # (rows, vocabulary)
    base.set_attn_implementation(implementation)
    return logits[:, [labels.negative, labels.positive]]
