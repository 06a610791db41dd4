"""Packing: packed rows get the logits and gradients of rows that run separately, for all families, orders of the prompt and tries."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from babelcart.core.errors import UserError
from babelcart.model import decoder, loading, prompts, scoring
from babelcart.model.batching import scoring_packs
from babelcart.model.packing import pack_rows, trie_tokens
from babelcart.model.prompts import Prompt
from tests.support.tiny import PROMPT, TEXTS, TOKEN_LISTS, TinyModel, build, separate_logits, token_row


@pytest.fixture(scope="module", params=decoder.FAMILIES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return build(tmp_path_factory.mktemp(request.param), request.param)


def test_packed_rows_have_the_logits_of_separate_rows(tiny: TinyModel) -> None:
    model, tokenizer = tiny
    rows = [tokenizer.encode(*texts) for texts in TEXTS]
    assert max(len(row.tokens) for row in rows) > 12, "no row is longer than the sliding window"
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
        head = base.get_output_embeddings().weight
        hidden = decoder.last_hidden(base.get_decoder(), pack.to(head.device))[pack.row_index]
    label_rows = head[[tokenizer.labels.negative, tokenizer.labels.positive]]
    assert (logits.dtype, hidden.dtype, head.dtype) == (torch.float32, torch.bfloat16, torch.bfloat16)
    torch.testing.assert_close(logits.double(), hidden.double() @ label_rows.double().T, rtol=1e-6, atol=1e-6)
    probability = scoring.score(model, rows, tokenizer.labels, scoring.Predict(max_tokens=10_000))
    assert len(np.unique(probability)) == len(rows)
    rounded = torch.softmax((hidden @ label_rows.T).double(), dim=-1)[:, 1]
    assert len(rounded.unique()) < len(rows), "otherwise this test proves nothing"


def check_logits_and_gradients(model: object, tokenizer: prompts.PromptTokenizer) -> None:
    """Compare packed rows with one forward pass of transformers and peft per row."""
    rows = [tokenizer.encode(*texts) for texts in TEXTS]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]  # type: ignore[attr-defined]
    weights = torch.randn(len(rows), 2, generator=torch.Generator().manual_seed(0)).to(loading.device())
    packed = torch.autograd.grad((loading.label_logits(model, pack_rows(rows), tokenizer.labels) * weights).sum(), trainable)
    expected = torch.autograd.grad((separate_logits(model, rows, tokenizer.labels) * weights).sum(), trainable)
    assert max(float(gradient.abs().max()) for gradient in expected) > 0.01
    for packed_gradient, expected_gradient in zip(packed, expected, strict=True):
        torch.testing.assert_close(packed_gradient, expected_gradient, rtol=1e-3, atol=1e-5)


def test_packed_rows_have_the_gradients_of_separate_rows(tiny: TinyModel) -> None:
    check_logits_and_gradients(*tiny)


@pytest.mark.parametrize("family", decoder.FAMILIES)
def test_rows_of_a_quantised_model_have_the_gradients_of_separate_rows(tmp_path: Path, family: str) -> None:
    """The linear layers are dequantised here, and multiplied by bitsandbytes in the expected values."""
    check_logits_and_gradients(*build(tmp_path, family, quantization="nf4"))


@pytest.mark.parametrize("chunk_rows", [1, 3, 100])
@pytest.mark.parametrize("max_tokens", [1, 40, 10_000])
def test_scores_do_not_depend_on_order_budget_or_chunks(tiny: TinyModel, max_tokens: int, chunk_rows: int) -> None:
    model, tokenizer = tiny
    rows = [tokenizer.encode(*texts) for texts in TEXTS]
    expected = scoring.score(model, rows, tokenizer.labels, scoring.Predict(max_tokens=10_000))
    order = list(range(len(rows)))
    random.Random(max_tokens).shuffle(order)
    predict = scoring.Predict(max_tokens=max_tokens, chunk_rows=chunk_rows)
    shuffled = scoring.score(model, [rows[row_index] for row_index in order], tokenizer.labels, predict)
    torch.testing.assert_close(torch.tensor(shuffled), torch.tensor(expected[order]), rtol=1e-5, atol=1e-6)


def test_scores_do_not_depend_on_the_parts_of_the_feed_forward_layer(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny
    rows = [tokenizer.encode(*texts) for texts in TEXTS]
    assert 7 < trie_tokens(rows) < decoder.CACHED_TOKENS
    expected = scoring.score(model, rows, tokenizer.labels, scoring.Predict())
    monkeypatch.setattr(decoder, "CACHED_TOKENS", 7)
    parted = scoring.score(model, rows, tokenizer.labels, scoring.Predict())
    torch.testing.assert_close(torch.tensor(parted), torch.tensor(expected), rtol=1e-5, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(TOKEN_LISTS)
def test_rows_of_any_trie_have_the_logits_and_gradients_of_separate_rows(tiny: TinyModel, tokens: list[tuple[int, ...]]) -> None:
    model, tokenizer = tiny
    rows = [token_row((), row) for row in tokens]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]  # type: ignore[attr-defined]
    weights = torch.randn(len(rows), 2, generator=torch.Generator().manual_seed(0)).to(loading.device())
    packed, expected = loading.label_logits(model, pack_rows(rows), tokenizer.labels), separate_logits(model, rows, tokenizer.labels)
    torch.testing.assert_close(packed, expected, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad((logits * weights).sum(), trainable) for logits in (packed, expected)]
    for packed_gradient, expected_gradient in zip(*gradients, strict=True):
        torch.testing.assert_close(packed_gradient, expected_gradient, rtol=1e-3, atol=1e-4)


@settings(max_examples=100, deadline=None)
@given(TOKEN_LISTS, st.randoms())
def test_every_prefix_occurs_once_in_the_sequence(tokens: list[tuple[int, ...]], generator: random.Random) -> None:
    rows = [token_row((), row) for row in tokens]
    pack = pack_rows(rows)
    prefixes = {row[: length + 1] for row in tokens for length in range(len(row))}
    assert pack.input_ids.shape[1] == trie_tokens(rows) == len(prefixes)
    branches: dict[int, tuple[int, ...]] = {}  # index of the last token -> tokens of the branch
    for block in pack.blocks:
        for queries, keys, distances in zip(block.query_index, block.key_index, block.distance, strict=True):
            for query, distance in zip(queries, distances, strict=True):
                if (distance >= 0).any():
                    branches[int(query)] = tuple(pack.input_ids[0, keys[distance >= 0]].tolist())
    assert set(branches.values()) == prefixes
    assert len(branches) == len(prefixes)
    last_tokens = pack.last_index[pack.row_index].tolist()
    assert [branches[index] for index in last_tokens] == tokens
    shuffled = generator.sample(rows, len(rows))
    assert pack_rows(shuffled).input_ids.equal(pack.input_ids)


def test_rows_share_tokens_at_any_depth_and_equal_rows_are_computed_once() -> None:
    rows = [token_row((9, 1, 2), (3,)), token_row((9, 1, 2), (4, 5)), token_row((9, 7), (3,)), token_row((9, 7), (3,))]
    pack = pack_rows(rows)
    assert pack.input_ids.tolist() == [[9, 1, 2, 3, 4, 5, 7, 3]]
    assert pack.position_ids.tolist() == [[0, 1, 2, 3, 3, 4, 1, 2]]
    assert pack.last_index.tolist() == [3, 5, 7]
    assert pack.row_index.tolist() == [0, 1, 2, 2]


def test_the_token_budget_counts_a_shared_prefix_once() -> None:
    rows = [token_row((1, 2, 3), (4,))] * 3 + [token_row((1, 5), (6,) * 20)]
    packs = list(scoring_packs(rows, 6))
    assert [sorted(pack) for pack in packs] == [[0, 1, 2], [3]]


@given(TOKEN_LISTS, st.integers(1, 80), st.integers(1, 12), st.integers(0, 12))
def test_packs_of_chunks_are_those_of_the_whole_file(tokens: list[tuple[int, ...]], budget: int, chunk_rows: int, scored: int) -> None:
    rows = [token_row((), row) for row in tokens]
    packs = list(scoring_packs(rows, budget, chunk_rows))
    parts = [(start, rows[start : start + chunk_rows]) for start in range(0, len(rows), chunk_rows)]
    assert packs == [[start + index for index in pack] for start, part in parts for pack in scoring_packs(part, budget)]
    assert sorted(index for pack in packs for index in pack) == list(range(len(rows)))
    for pack in packs:
        assert trie_tokens([rows[index] for index in pack]) <= max(budget, len(rows[pack[0]].tokens))
    order = [index for pack in packs for index in pack]
    scored = min(scored, len(rows))
    assert [index for pack in scoring_packs(rows, budget, chunk_rows, scored) for index in pack] == order[scored:]


@pytest.mark.parametrize("limit", range(1, 30))
def test_truncation_keeps_the_end_of_the_prompt(tiny: TinyModel, limit: int) -> None:
    tokenizer = tiny[1].tokenizer
    prompt = dataclasses.replace(PROMPT, max_candidate_tokens=limit, max_query_tokens=limit)
    row = prompts.PromptTokenizer(tokenizer, prompt).encode("en", "long query " * 20, "long candidate " * 20)
    ending = tokenizer(PROMPT.ending("en"), add_special_tokens=False)["input_ids"]
    assert list(row.tokens[-len(ending) :]) == ending
    assert len(row.candidate) == limit
    assert row.tokens == row.query[: -len(ending)] + row.candidate + row.query[-len(ending) :]


def test_a_prompt_can_use_the_pivot(tiny: TinyModel) -> None:
    tokenizer = tiny[1].tokenizer
    query_and_pivot = prompts.PromptTokenizer(tokenizer, Prompt("Relevant?\n{query} = {pivot}\n{candidate}\n:", " yes", " no"))
    assert "robe = dress\n" in tokenizer.decode(query_and_pivot.encode("fr", "robe", "dresses", "dress").query)
    # Without a translation, the query replaces the pivot.
    assert query_and_pivot.encode("fr", "robe", "dresses", "") == query_and_pivot.encode("fr", "robe", "dresses", "robe")
    pivot_only = prompts.PromptTokenizer(tokenizer, Prompt("{pivot}\n{candidate}\n:", " yes", " no"))
    assert pivot_only.encode("fr", "robe", "dresses", "dress") == pivot_only.encode("de", "kleid", "dresses", "dress")


def test_the_fields_of_a_template_have_any_order(tiny: TinyModel) -> None:
    tokenizer = tiny[1].tokenizer
    prompt = Prompt("Is {candidate} what {query} ({language}) asks for?\n:", " yes", " no")
    row = prompts.PromptTokenizer(tokenizer, prompt).encode("fr", "robe", "dresses")
    assert tokenizer.decode(row.tokens, skip_special_tokens=True) == "Is dresses what robe (fr) asks for?\n:"
    other = prompts.PromptTokenizer(tokenizer, prompt.other_order()).encode("fr", "robe", "dresses")
    assert tokenizer.decode(other.tokens, skip_special_tokens=True) == "Is robe what dresses (fr) asks for?\n:"
    assert (prompt.query_first(), prompt.other_order().query_first()) == (False, True)
    assert prompt.other_order().other_order() == prompt


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{query}\n{candidate}", "ends with a field"),
        ("{query}\n:", r"must contain \{candidate\}"),
        ("{candidate}\n:", r"must contain \{query\} or \{pivot\}"),
        ("{query} {query}\n{candidate}\n:", r"contains \{query\} more than once"),
        ("{query}\n{candidate}\n{language}", "ends with a field"),
    ],
)
def test_a_template_that_cannot_be_answered_is_refused(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prompt(template, " yes", " no")


def test_an_answer_of_several_tokens_is_refused(tiny: TinyModel) -> None:
    with pytest.raises(UserError, match=r"answer ' entirely unrelated' after '\\n:' is not exactly one token"):
        prompts.PromptTokenizer(tiny[1].tokenizer, dataclasses.replace(PROMPT, negative=" entirely unrelated"))
