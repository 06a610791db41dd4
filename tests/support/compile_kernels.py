"""Compile the attention kernels for GPUs, without a GPU. Prints a JSON list: kernel, GPU, head_dim, bytes of shared memory."""

from __future__ import annotations

import json
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from babelcart.model import kernels

# Attention heads, heads that share a key-value head, and head_dim of Gemma-3 12B and Qwen-2.5 14B.
SHAPES = [(16, 2, 256), (40, 5, 128)]
TYPES = {
    "log_sum": "*fp32", "delta": "*fp32", "query_token": "*i64", "subtree_end": "*i64", "position": "*i64", "tiles": "*i32",
    "tile_counts": "*i32", "queries": "i32", "tokens": "i32", "window": "i32", "scaling": "fp32",
}  # fmt: skip


def main() -> None:
    results = []
    for capability in map(int, sys.argv[1:]):
        for heads, group, head_dim in SHAPES:
            side, width = kernels.tile_side(head_dim, torch.bfloat16), triton.next_power_of_2(head_dim)
            constants = {"H": heads, "G": group, "D": head_dim, "WIDTH": width, "SIDE": side, "PRECISION": "ieee"}
            for kernel in (kernels._attention_kernel, kernels._query_gradient_kernel, kernels._key_gradient_kernel):
                names = kernel.arg_names
                signature = {name: "constexpr" if name in constants else TYPES.get(name, "*bf16") for name in names}
                source = ASTSource(kernel, signature, {(names.index(name),): value for name, value in constants.items()})
                compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 8})
                results.append((kernel.__name__, capability, head_dim, compiled.metadata.shared))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
