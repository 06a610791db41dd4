"""Packing: packed rows get the logits and gradients of rows that run separately, for Gemma and Qwen; prompts become tokens."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from babelcart.model import decoder, loading, prompts, scoring
from babelcart.model.batching import scoring_packs
from babelcart.model.packing import TokenRow, pack_rows
from babelcart.model.prompts import Prompt
from tests.support.tiny import PROMPT, TEXTS, build

TinyModel = tuple[object, prompts.PromptTokenizer]


@pytest.fixture(scope="module", params=["gemma3_text", "qwen2"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return build(tmp_path_factory.mktemp(request.param), request.param)


def separate_logits(model: object, rows: list[TokenRow], labels: prompts.LabelTokens) -> torch.Tensor:
    """Label logits ``(rows, 2)`` of one forward pass of transformers per row, with its own mask and the complete vocabulary."""
    base = model.get_base_model()  # type: ignore[attr-defined]
    implementation = base.config._attn_implementation
    base.set_attn_implementation("eager")
    base.eval()
    logits = torch.cat([base(input_ids=torch.tensor([row.query + row.candidate])).logits[:, -1] for row in rows])  # (rows, vocabulary)
    base.set_attn_implementation(implementation)
    return logits[:, [labels.negative, labels.positive]]


def test_packed_rows_have_the_logits_of_separate_rows(tiny: TinyModel) -> None:
    model, tokenizer = tiny
    rows = [tokenizer.encode(*texts) for texts in TEXTS]
    assert max(len(row.query) + len(row.candidate) for row in rows) > 12, "no row is longer than the sliding window"
    with torch.inference_mode():
        packed = loading.label_logits(model, pack_rows(rows), tokenizer.labels)
        expected = separate_logits(model, rows, tokenizer.labels)
    assert expected.std() > 0.01
    torch.testing.assert_close(packed, expected, rtol=1e-4, atol=1e-5)


def test_label_logits_of_a_bfloat16_model_are_computed_in_float32(tiny: TinyModel, tmp_path: Path) -> None:
    """In bfloat16, some of these rows would share their probability with another row."""
    model, tokenizer = build(tmp_path, tiny[0].config.model_type)  # type: ignore[attr-defined]
    model = model.to(torch.bfloat16)  # type: ignore[attr-defined]
    rows = [tokenizer.encode("en", f"query {number}", f"candidate {number * 7}") for number in range(300)]
    pack = pack_rows(rows)
    with torch.inference_mode():
        logits = loading.label_logits(model, pack, tokenizer.labels)
        base = model.get_base_model()
        hidden, head = decoder.last_hidden(base.get_decoder(), pack), base.get_output_embeddings().weight
    label_rows = head[[tokenizer.labels.negative, tokenizer.labels.positive]]
    assert (logits.dtype, hidden.dtype, head.dtype) == (torch.float32, torch.bfloat16, torch.bfloat16)
    torch.testing.assert_close(logits.double(), hidden.double() @ label_rows.double().T, rtol=1e-6, atol=1e-6)
    probability = scoring.score(model, rows, tokenizer.labels, 10_000)
    assert len(np.unique(probability)) == len(rows)
    rounded = torch.softmax((hidden @ label_rows.T).double(), dim=-1)[:, 1]
    assert len(rounded.unique()) < len(rows), "otherwise this test proves nothing"


def test_packed_rows_have_the_gradients_of_separate_rows(tiny: TinyModel) -> None:
    model, tokenizer = tiny
    rows = [tokenizer.encode(*texts) for texts in TEXTS]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]  # type: ignore[attr-defined]
    weights = torch.randn(len(rows), 2, generator=torch.Generator().manual_seed(0))
    packed = torch.autograd.grad((loading.label_logits(model, pack_rows(rows), tokenizer.labels) * weights).sum(), trainable)
    expected = torch.autograd.grad((separate_logits(model, rows, tokenizer.labels) * weights).sum(), trainable)
    assert max(float(gradient.abs().max()) for gradient in expected) > 0.01
    for packed_gradient, expected_gradient in zip(packed, expected, strict=True):
        torch.testing.assert_close(packed_gradient, expected_gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("max_tokens", [1, 40, 100, 10_000])
def test_scores_do_not_depend_on_order_or_token_budget(tiny: TinyModel, max_tokens: int) -> None:
    model, tokenizer = tiny
    rows = [tokenizer.encode(*texts) for texts in TEXTS]
    expected = scoring.score(model, rows, tokenizer.labels, 10_000)
    order = list(range(len(rows)))
    random.Random(max_tokens).shuffle(order)
    shuffled = scoring.score(model, [rows[row_index] for row_index in order], tokenizer.labels, max_tokens)
    torch.testing.assert_close(torch.tensor(shuffled), torch.tensor(expected[order]), rtol=1e-5, atol=1e-6)


def test_a_shared_prefix_occurs_once_in_the_sequence() -> None:
    rows = [TokenRow((9, 1, 2), (3,)), TokenRow((9, 1, 2), (4, 5)), TokenRow((9, 7), (3,))]
    pack = pack_rows(rows)
    assert pack.input_ids.tolist() == [[9, 1, 2, 3, 4, 5, 7, 3]]
    assert pack.position_ids.tolist() == [[0, 1, 2, 3, 3, 4, 1, 2]]
    assert pack.last_index.tolist() == [3, 5, 7]


def test_the_token_budget_counts_a_shared_query_once() -> None:
    rows = [TokenRow((1, 2, 3), (4,))] * 3 + [TokenRow((1, 5), (6,) * 20)]
    packs = list(scoring_packs(rows, 6))
    assert [sorted(pack) for pack in packs] == [[0, 1, 2], [3]]


@pytest.mark.parametrize("limit", range(1, 30))
def test_truncation_keeps_the_suffix(tiny: TinyModel, limit: int) -> None:
    tokenizer = tiny[1].tokenizer
    prompt = Prompt(**{**vars(PROMPT), "max_candidate_tokens": limit, "max_query_tokens": limit})
    row = prompts.PromptTokenizer(tokenizer, prompt).encode("en", "long query " * 20, "long candidate " * 20)
    suffix = tokenizer(PROMPT.suffix, add_special_tokens=False)["input_ids"]
    assert list(row.candidate[-len(suffix) :]) == suffix
    assert len(row.candidate) == limit + len(suffix)


def test_a_prompt_can_use_the_pivot(tiny: TinyModel) -> None:
    tokenizer = tiny[1].tokenizer
    query_and_pivot = prompts.PromptTokenizer(tokenizer, Prompt(**{**vars(PROMPT), "query": "Relevant?\n{query} = {pivot}\n"}))
    assert "robe = dress\n" in tokenizer.decode(query_and_pivot.encode("fr", "robe", "dresses", "dress").query)
    # Without a translation, the query replaces the pivot.
    assert query_and_pivot.encode("fr", "robe", "dresses", "") == query_and_pivot.encode("fr", "robe", "dresses", "robe")
    pivot_only = prompts.PromptTokenizer(tokenizer, Prompt(**{**vars(PROMPT), "query": "{pivot}\n"}))
    assert pivot_only.encode("fr", "robe", "dresses", "dress") == pivot_only.encode("de", "kleid", "dresses", "dress")
