"""Keep the keys and values of prompt prefixes that return, so that their tokens are computed once for many packs.

Within a pack, a shared prefix is computed once in any case (`babelcart.model.packing`). A prefix that is in several packs, such as the
category paths of a shop in a long log or in every search, is computed again in each. A prefix cache computes it once. Its keys
and values are those that the packs would compute, up to rounding in the dtype, because a token depends only on the tokens before it.

``P`` is the number of tokens in the cache, each of which is a node of a tree; ``T``, ``C``, ``K`` and ``D`` are those of
`babelcart.model.packing`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from babelcart.model.batching import run_packs, sort_by_tokens
from babelcart.model.packing import Pack, TokenRow, pack_rows, shared_length

if TYPE_CHECKING:
    import torch


@dataclass
class PrefixTree:
    """A set of prefixes as a tree of tokens. Node 0 is the root, which has no token; a parent has a lower number than its children.

    Attributes
    ----------
    children : list of dict
        For each node, its children by their tokens.
    """

    children: list[dict[int, int]] = field(default_factory=lambda: [{}])

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.children) - 1

    def add(self, prefix: Iterable[int]) -> None:
        """Add a prefix."""
        node = 0
        for token in prefix:
            if token not in self.children[node]:
                self.children[node][token] = len(self.children)
                self.children.append({})
            node = self.children[node][token]

    def path(self, tokens: Iterable[int]) -> list[int]:
        """Return the nodes of the leading tokens that are in the tree."""
        nodes = [0]
        for token in tokens:
            if token not in self.children[nodes[-1]]:
                break
            nodes.append(self.children[nodes[-1]][token])
        return nodes[1:]

    def nodes_of(self, tokens: Sequence[int], positions: Sequence[int]) -> list[int]:
        """Return the node of each token of a sequence in depth-first order, -1 for tokens that are not in the tree.

        Parameters
        ----------
        tokens, positions : sequence of int
            ``(T,)``: the tokens of a `Pack` and their positions. The parent of a token is the last one before it at the position before.
        """
        nodes: list[int] = []
        branch = [0]  # node of the parent of each position
        for token, position in zip(tokens, positions, strict=True):
            parent = branch[position]
            nodes.append(self.children[parent].get(token, -1) if parent >= 0 else -1)
            branch[position + 1 :] = [nodes[-1]]
        return nodes

    def prefixes(self) -> Iterator[tuple[int, ...]]:
        """Yield the longest prefixes of the tree."""
        stack: list[tuple[int, tuple[int, ...]]] = [(0, ())]
        while stack:
            node, prefix = stack.pop()
            stack.extend((child, (*prefix, token)) for token, child in self.children[node].items())
            if prefix and not self.children[node]:
                yield prefix


@dataclass
class PrefixCache:
    """The keys and values of the tokens of a tree, for each layer.

    Attributes
    ----------
    tree : PrefixTree
    keys, values : list of torch.Tensor
        ``(P + 1, K, D)`` for each layer, by node; keys are rotated. The first row, that of the root, is not used.
    """

    tree: PrefixTree
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)

    def extend(self, layer: int, key: torch.Tensor, value: torch.Tensor, pack: Pack) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the keys and values ``(T, K, D)`` of all tokens of a pack, given those of its computed tokens, ``(C, K, D)``."""
        if pack.cached is None:
            return key, value
        computed, reused, node = pack.cached
        extended = []
        for new, kept in ((key, self.keys[layer]), (value, self.values[layer])):
            tensor = new.new_empty(pack.input_ids.shape[1], *new.shape[1:])
            tensor[computed], tensor[reused] = new, kept[node]
            extended.append(tensor)
        return extended[0], extended[1]


@dataclass
class _Recorder:
    """Writes the keys and values of one pack into a cache; `nodes` are those of its tokens, ``(T,)``."""

    cache: PrefixCache
    nodes: torch.Tensor

    def extend(self, layer: int, key: torch.Tensor, value: torch.Tensor, pack: Pack) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the keys and values as they are."""
        for new, kept in ((key, self.cache.keys), (value, self.cache.values)):
            if layer == len(kept):
                kept.append(new.new_zeros(len(self.cache.tree) + 1, *new.shape[1:]))
            kept[layer][self.nodes] = new
        return key, value


def fill_cache(model: Any, tree: PrefixTree, max_tokens: int) -> PrefixCache:
    """Compute the keys and values of the prefixes in a tree.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        In evaluation mode.
    tree : PrefixTree
    max_tokens : int
        Token budget of a pack.

    Returns
    -------
    PrefixCache
        On the device of the model. It depends on the set of prefixes, and not on the order in which they were added.

    Raises
    ------
    UserError
        If memory is too small for a single prefix.
    """
    import torch

    from babelcart.model.decoder import last_hidden
    from babelcart.model.loading import text_decoder

    decoder, cache = text_decoder(model), PrefixCache(tree)
    rows = [TokenRow(prefix, (), ()) for prefix in sorted(tree.prefixes())]

    def record(prefixes: list[TokenRow]) -> None:
        pack = pack_rows(prefixes)
        nodes = torch.tensor(tree.nodes_of(pack.input_ids[0].tolist(), pack.position_ids[0].tolist()))
        device = decoder.embed_tokens.weight.device
        last_hidden(decoder, pack.to(device), _Recorder(cache, nodes.to(device)))

    with torch.inference_mode():
        for _ in run_packs(rows, record, max_tokens, max(1, len(rows))):
            pass
    return cache


def token_bytes(config: Any, number_bytes: int) -> int:
    """Return the memory of a token in a cache, all layers together, in bytes.

    Parameters
    ----------
    config : transformers.PretrainedConfig
        Configuration of the model.
    number_bytes : int
        Bytes of a number in the model's dtype.
    """
    text = config.get_text_config()
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * text.num_key_value_heads * head_dim * number_bytes)


def recurring_prefixes(rows: Sequence[TokenRow], chunk_rows: int, max_tokens: int) -> PrefixTree:
    """Find the prefixes that rows of several chunks share.

    A pack holds rows of one chunk only (`babelcart.model.batching.scoring_packs`), so that such a prefix is computed in several packs.

    Parameters
    ----------
    rows : sequence of TokenRow
        All rows to score with the same cache.
    chunk_rows : int
        Rows of a chunk.
    max_tokens : int
        Tokens of the tree. If there are more, those that are in the most chunks are kept.

    Returns
    -------
    PrefixTree
        It has no prefixes if all rows are in one chunk.
    """
    tree = PrefixTree()
    if len(rows) <= chunk_rows or max_tokens < 1:
        return tree
    # A prefix of rows in two chunks is also a prefix of two neighbours in the sorted order that are in different chunks.
    for previous, current in itertools.pairwise(sort_by_tokens(range(len(rows)), rows)):
        if previous // chunk_rows != current // chunk_rows:
            tokens, other_tokens = rows[current].tokens[:-1], rows[previous].tokens[:-1]  # the last token of a row is always computed
            tree.add(tokens[: shared_length(tokens, other_tokens)])
    return tree if len(tree) <= max_tokens else _most_frequent(tree, rows, chunk_rows, max_tokens)


def _most_frequent(tree: PrefixTree, rows: Sequence[TokenRow], chunk_rows: int, max_tokens: int) -> PrefixTree:
    """Return the part of a tree that is in the most chunks. Parents are in no fewer chunks than their children, and come first."""
    chunks = [0] * len(tree.children)
    for start in range(0, len(rows), chunk_rows):
        for node in {node for row in rows[start : start + chunk_rows] for node in tree.path(row.tokens[:-1])}:
            chunks[node] += 1
    kept = {0, *sorted(range(1, len(chunks)), key=lambda node: (-chunks[node], node))[:max_tokens]}
    smaller = PrefixTree()
    for prefix in tree.prefixes():
        smaller.add(token for token, node in zip(prefix, tree.path(prefix), strict=True) if node in kept)
    return smaller
