"""Packed rows score exactly as rows that run alone, for both model families."""

from __future__ import annotations

import random

import pytest
import torch

from babelcart.model import loading, prompts, scoring
from babelcart.model.batching import scoring_packs
from babelcart.model.packing import TokenRow, pack_rows
from babelcart.model.prompts import Prompt
from tests.support.tiny import PROMPT, TEXTS, build


@pytest.fixture(scope="module", params=["gemma3_text", "qwen2"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[object, prompts.PromptTokenizer]:
    return build(tmp_path_factory.mktemp(request.param), request.param)


def alone(model: object, rows: list[TokenRow], labels: prompts.LabelTokens) -> torch.Tensor:
    """Each row as transformers itself runs it: its own forward, its own mask, the whole vocabulary."""
    whole = model.get_base_model()  # type: ignore[attr-defined]
    implementation = whole.config._attn_implementation
    whole.set_attn_implementation("eager")
    whole.eval()
    logits = torch.cat([whole(input_ids=torch.tensor([row.query + row.candidate])).logits[:, -1] for row in rows])
    whole.set_attn_implementation(implementation)
    return logits[:, [labels.negative, labels.positive]]


def test_packed_logits_equal_rows_run_alone(tiny: tuple[object, prompts.PromptTokenizer]) -> None:
    model, encoder = tiny
    rows = [encoder.encode(*row) for row in TEXTS]
    assert max(len(row.query) + len(row.candidate) for row in rows) > 12, "no row is longer than the sliding window"
    with torch.inference_mode():
        packed = loading.label_logits(model, pack_rows(rows), encoder.labels)
        expected = alone(model, rows, encoder.labels)
    assert expected.std() > 0.01
    torch.testing.assert_close(packed, expected, rtol=1e-4, atol=1e-5)


def test_packed_gradients_equal_those_of_rows_run_alone(tiny: tuple[object, prompts.PromptTokenizer]) -> None:
    model, encoder = tiny
    rows = [encoder.encode(*row) for row in TEXTS]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]  # type: ignore[attr-defined]
    weights = torch.randn(len(rows), 2, generator=torch.Generator().manual_seed(0))
    packed = torch.autograd.grad((loading.label_logits(model, pack_rows(rows), encoder.labels) * weights).sum(), trained)
    expected = torch.autograd.grad((alone(model, rows, encoder.labels) * weights).sum(), trained)
    assert max(float(gradient.abs().max()) for gradient in expected) > 0.01
    for found, wanted in zip(packed, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("max_tokens", [1, 40, 100, 10_000])
def test_scores_do_not_depend_on_order_or_budget(tiny: tuple[object, prompts.PromptTokenizer], max_tokens: int) -> None:
    model, encoder = tiny
    rows = [encoder.encode(*row) for row in TEXTS]
    reference = scoring.score(model, rows, encoder.labels, 10_000)
    order = list(range(len(rows)))
    random.Random(max_tokens).shuffle(order)
    shuffled = scoring.score(model, [rows[n] for n in order], encoder.labels, max_tokens)
    torch.testing.assert_close(torch.tensor(shuffled), torch.tensor(reference[order]), rtol=1e-5, atol=1e-6)


def test_a_prefix_is_laid_out_once() -> None:
    rows = [TokenRow((9, 1, 2), (3,)), TokenRow((9, 1, 2), (4, 5)), TokenRow((9, 7), (3,))]
    pack = pack_rows(rows)
    assert pack.input_ids.tolist() == [[9, 1, 2, 3, 4, 5, 7, 3]]
    assert pack.position_ids.tolist() == [[0, 1, 2, 3, 3, 4, 1, 2]]
    assert pack.last_index.tolist() == [3, 5, 7]


def test_budget_counts_a_shared_query_once() -> None:
    rows = [TokenRow((1, 2, 3), (4,))] * 3 + [TokenRow((1, 5), (6,) * 20)]
    batches = list(scoring_packs(rows, 6))
    assert [sorted(batch) for batch in batches] == [[0, 1, 2], [3]]


@pytest.mark.parametrize("length", range(1, 30))
def test_suffix_survives_truncation(tiny: tuple[object, prompts.PromptTokenizer], length: int) -> None:
    _, encoder = tiny
    prompt = Prompt(**{**vars(PROMPT), "max_candidate_tokens": length, "max_query_tokens": length})
    cut = prompts.PromptTokenizer(encoder.tokenizer, prompt)
    row = cut.encode("en", "long query " * 20, "long candidate " * 20)
    suffix = encoder.tokenizer(PROMPT.suffix, add_special_tokens=False)["input_ids"]
    assert list(row.candidate[-len(suffix) :]) == suffix
    assert len(row.candidate) == length + len(suffix)


def test_a_prompt_may_use_the_pivot(tiny: tuple[object, prompts.PromptTokenizer]) -> None:
    _, encoder = tiny
    both = prompts.PromptTokenizer(encoder.tokenizer, Prompt(**{**vars(PROMPT), "query": "Relevant?\n{query} = {pivot}\n"}))
    words = encoder.tokenizer.decode(both.encode("fr", "robe", "dresses", "dress").query)
    assert "robe = dress\n" in words
    # Without a translation the query stands in.
    assert both.encode("fr", "robe", "dresses", "") == both.encode("fr", "robe", "dresses", "robe")
    alone = prompts.PromptTokenizer(encoder.tokenizer, Prompt(**{**vars(PROMPT), "query": "{pivot}\n"}))
    assert alone.encode("fr", "robe", "dresses", "dress") == alone.encode("de", "kleid", "dresses", "dress")
