"""The prefix cache: rows whose prefixes are cached get the logits of rows that run separately, and fewer tokens are computed."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from babelcart.model import decoder, layers, loading, scoring
from babelcart.model.batching import scoring_packs
from babelcart.model.packing import pack_rows
from babelcart.model.prefix_cache import PrefixTree, fill_cache, recurring_prefixes, token_bytes
from tests.support.tiny import TEXTS, TOKEN_LISTS, TinyModel, build, separate_logits, token_row

# Prefixes of rows like those of TOKEN_LISTS, and of none of them.
PREFIXES = st.lists(st.lists(st.integers(10, 13), min_size=1, max_size=20).map(tuple), max_size=6)


@pytest.fixture(scope="module", params=decoder.FAMILIES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return build(tmp_path_factory.mktemp(request.param), request.param)


def tree_of(prefixes: list[tuple[int, ...]]) -> PrefixTree:
    tree = PrefixTree()
    for prefix in prefixes:
        tree.add(prefix)
    return tree


def cached_logits(model: TinyModel, rows: list[tuple[int, ...]], prefixes: list[tuple[int, ...]]) -> tuple[torch.Tensor, int]:
    """Label logits with a cache of `prefixes`, and the number of computed tokens."""
    tree = tree_of(prefixes)
    cache = fill_cache(model[0], tree, max_tokens=25)
    pack = pack_rows([token_row((), row) for row in rows], tree)
    with torch.inference_mode():
        logits = loading.label_logits(model[0], pack, model[1].labels, cache)
    return logits, len(pack.cached.computed) if pack.cached else pack.input_ids.shape[1]


@settings(max_examples=40, deadline=None)
@given(TOKEN_LISTS, PREFIXES)
def test_rows_with_cached_prefixes_have_the_logits_of_separate_rows(
    tiny: TinyModel, rows: list[tuple[int, ...]], prefixes: list[tuple[int, ...]]
) -> None:
    logits, computed = cached_logits(tiny, rows, prefixes)
    with torch.inference_mode():
        expected = separate_logits(tiny[0], [token_row((), row) for row in rows], tiny[1].labels)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    row_prefixes = {row[: length + 1] for row in rows for length in range(len(row))}
    cached = {prefix[: length + 1] for prefix in prefixes for length in range(len(prefix))}
    assert computed == len(row_prefixes - cached | set(rows))


@pytest.mark.parametrize("family", ["gemma3_text", "qwen2"])
def test_the_kernels_for_gpus_use_the_cache(tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("on a GPU, the other tests of this file run the kernels")
    model = build(tmp_path, family, adapter=False)
    generator = random.Random(0)
    rows = [tuple(generator.choices(range(10, 12), k=generator.randrange(1, 20))) for _ in range(30)]
    prefixes = [row[: len(row) // 2] for row in rows[::2]]
    expected, computed = cached_logits(model, rows, prefixes)
    monkeypatch.setattr(layers, "runs_kernels", lambda x: True)
    logits, computed_with_kernels = cached_logits(model, rows, prefixes)
    assert computed == computed_with_kernels < len({row[: length + 1] for row in rows for length in range(len(row))})
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cached_tokens", [0, 3, 20, 10_000])
def test_scores_do_not_depend_on_the_cache(tiny: TinyModel, cached_tokens: int) -> None:
    model, tokenizer = tiny
    texts = [*TEXTS, *((language, f"{query} neu", candidate) for language, query, candidate in TEXTS)]
    rows = [tokenizer.encode(*text) for text in texts]
    expected = scoring.score(model, rows, tokenizer.labels, scoring.Predict())
    gib = cached_tokens * token_bytes(model.config, 4) / 2**30  # type: ignore[attr-defined]
    predict = scoring.Predict(chunk_rows=3, prefix_cache_gib=gib)
    scores = scoring.score(model, rows, tokenizer.labels, predict)
    torch.testing.assert_close(torch.tensor(scores), torch.tensor(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk_rows", [1, 2])
def test_chunks_of_a_part_can_be_scored_one_by_one(tiny: TinyModel, chunk_rows: int) -> None:
    model, tokenizer = tiny
    rows = [tokenizer.encode(language, f"{query} {number}", candidate) for number in range(7) for language, query, candidate in TEXTS]
    predict = scoring.Predict(chunk_rows=chunk_rows)
    assert len(rows) > predict.part_rows
    expected = scoring.score(model, rows, tokenizer.labels, predict)
    for start in range(0, len(rows), predict.part_rows):
        part = rows[start : start + predict.part_rows]
        cache = scoring.part_prefixes(model, part, predict)
        for first in range(0, len(part), chunk_rows):
            scores = scoring.score_chunks(model, part[first : first + chunk_rows], tokenizer.labels, predict, cache)
            assert scores.tobytes() == expected[start + first : start + first + chunk_rows].tobytes()


def chunk_counts(tokens: list[tuple[int, ...]], chunk_rows: int) -> dict[tuple[int, ...], int]:
    """Number of chunks of each prefix that can be cached, which does not contain the last token of its row."""
    chunks: dict[tuple[int, ...], set[int]] = {}
    for index, row in enumerate(tokens):
        for length in range(1, len(row)):
            chunks.setdefault(row[:length], set()).add(index // chunk_rows)
    return {prefix: len(numbers) for prefix, numbers in chunks.items()}


def prefixes_of(tree: PrefixTree) -> set[tuple[int, ...]]:
    return {prefix[:length] for prefix in tree.prefixes() for length in range(1, len(prefix) + 1)}


@given(TOKEN_LISTS, st.integers(1, 12))
def test_the_prefixes_of_several_chunks_recur(tokens: list[tuple[int, ...]], chunk_rows: int) -> None:
    rows = [token_row((), row) for row in tokens]
    tree = recurring_prefixes(rows, chunk_rows, 10_000)
    assert prefixes_of(tree) == {prefix for prefix, count in chunk_counts(tokens, chunk_rows).items() if count > 1}
    assert len(tree) == len(prefixes_of(tree))


@given(TOKEN_LISTS, st.integers(1, 4), st.integers(0, 30))
def test_a_small_cache_holds_the_prefixes_of_the_most_chunks(tokens: list[tuple[int, ...]], chunk_rows: int, max_tokens: int) -> None:
    rows = [token_row((), row) for row in tokens]
    everything, tree = (recurring_prefixes(rows, chunk_rows, limit) for limit in (10_000, max_tokens))
    counts, kept = chunk_counts(tokens, chunk_rows), prefixes_of(tree)
    assert len(tree) == min(max_tokens, len(everything))
    left_out = prefixes_of(everything) - kept
    assert max((counts[prefix] for prefix in left_out), default=0) <= min((counts[prefix] for prefix in kept), default=len(rows))


@given(TOKEN_LISTS, PREFIXES, st.integers(1, 60))
def test_the_token_budget_counts_computed_tokens(tokens: list[tuple[int, ...]], prefixes: list[tuple[int, ...]], budget: int) -> None:
    rows, tree = [token_row((), row) for row in tokens], tree_of(prefixes)
    packs = list(scoring_packs(rows, budget, cache=tree))
    assert sorted(itertools.chain(*packs)) == list(range(len(rows)))
    for row_indices in packs:
        pack = pack_rows([rows[index] for index in row_indices], tree)
        computed = len(pack.cached.computed) if pack.cached else pack.input_ids.shape[1]
        assert computed <= budget or len({rows[index].tokens for index in row_indices}) == 1
