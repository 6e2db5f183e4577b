"""CPU kernels of inference beside PyTorch's own operations, as shares of a measured copy.

219M Falcon-H1's shapes, bfloat16, two threads, both sides in turns in one process. Weights and
states rotate through more memory than the caches hold.

Legend: M rows, N outputs, K inputs, S sequences.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from falcon_h1r import ops

Record = Callable[[dict[str, Any]], None]
HEADS, HEAD_DIM, D_STATE = 24, 64, 128


def in_turns(*sides: Callable[[], Any], repeats: int = 5) -> list[float]:
    """Median seconds of each side; the first round warms up and is dropped."""

    def seconds(side: Callable[[], Any]) -> float:
        start = time.perf_counter()
        side()
        return time.perf_counter() - start

    rounds = [[seconds(side) for side in sides] for _ in range(repeats + 1)][1:]
    return [statistics.median(times) for times in zip(*rounds, strict=True)]


def copy_side() -> tuple[Callable[[], Any], int]:
    """Return a copy of 128 MB and the bytes it moves."""
    source = torch.ones(32 << 20)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), 2 * source.nbytes


@torch.inference_mode()
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("rows", [1, 16, 64, 2048])
@pytest.mark.parametrize(("n", "k"), [(3352, 1024), (2048, 1024), (1024, 2048), (32784, 1024)])
def bench_linear(rows: int, n: int, k: int, record: Record) -> None:
    num = max(2, 150_000_000 // (2 * n * k)) if rows <= 64 else 2
    weights = [torch.randn(n, k).bfloat16() for _ in range(num)]
    x = torch.randn(rows, k).bfloat16()
    copy, copied = copy_side()
    mine, peer, plain = in_turns(
        lambda: [ops.linear(x, w) for w in weights],
        lambda: [F.linear(x, w) for w in weights],
        copy,
    )
    bandwidth = 2 * n * k * num / mine
    record(
        {
            "what": "linear",
            "M": rows,
            "N": n,
            "K": k,
            "GB_per_s": bandwidth / 1e9,
            "share_of_copy": bandwidth / (copied / plain),
            "GFLOP_per_s": 2 * rows * n * k * num / mine / 1e9,
            "ratio_to_torch": peer / mine,
        }
    )


@torch.inference_mode()
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("seqs", [1, 16, 64])
def bench_ssd_step(seqs: int, record: Record) -> None:
    layers = max(1, 256 // seqs)
    state = torch.zeros(layers, seqs, HEADS, HEAD_DIM, D_STATE)
    x = torch.randn(seqs, HEADS, HEAD_DIM).bfloat16()
    B, C = torch.randn(2, seqs, 1, D_STATE).bfloat16().unbind()
    dt, A, D = torch.rand(seqs, HEADS) / 10, -torch.ones(HEADS), torch.ones(HEADS)
    slots = torch.arange(seqs)

    def theirs() -> None:
        for h in state:
            decay = torch.exp(dt * A)[:, :, None, None]
            update = (dt[:, :, None] * x).unsqueeze(-1) * B.float()[:, :, None]
            h.mul_(decay).add_(update)
            torch.einsum("shpn,sn->shp", h, C[:, 0].float()).add_(x * D[:, None])

    copy, copied = copy_side()
    mine, peer, plain = in_turns(
        lambda: [ops.ssd_step(x, dt, A, B, C, D, h, slots) for h in state], theirs, copy
    )
    bandwidth = 2 * state.nbytes / mine
    record(
        {
            "what": "ssd_step",
            "S": seqs,
            "GB_per_s": bandwidth / 1e9,
            "share_of_copy": bandwidth / (copied / plain),
            "ratio_to_torch": peer / mine,
        }
    )


@torch.inference_mode()
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("seqs", "context"), [(64, 256), (1, 4096)])
def bench_paged_attention(seqs: int, context: int, record: Record) -> None:
    heads, kv_heads, head_dim, size = 8, 2, 64, 16
    blocks = seqs * context // size
    k_cache, v_cache = torch.randn(2, blocks, size, kv_heads, head_dim).bfloat16().unbind()
    tables = torch.arange(blocks, dtype=torch.int32).view(seqs, -1)
    q = torch.randn(seqs, heads, head_dim).bfloat16()
    k, v = (
        c.view(seqs, context, kv_heads, head_dim).transpose(1, 2).contiguous()
        for c in (k_cache, v_cache)
    )
    cu_seqlens, seq_lens = torch.arange(seqs + 1).int(), torch.full((seqs,), context).int()
    mine, peer = in_turns(
        lambda: ops.paged_attention(q, k_cache, v_cache, tables, cu_seqlens, seq_lens, 0.125),
        lambda: F.scaled_dot_product_attention(q[:, :, None], k, v, enable_gqa=True),
    )
    record(
        {
            "what": "paged_attention, one token each",
            "S": seqs,
            "context": context,
            "GB_per_s": 2 * k_cache.nbytes / mine / 1e9,
            "ratio_to_torch": peer / mine,
        }
    )


@torch.inference_mode()
@pytest.mark.usefixtures("two_threads")
def bench_sampling(record: Record) -> None:
    rows, vocab = 64, 32784
    logits = (2 * torch.randn(rows, vocab)).bfloat16()
    full = torch.full((rows,), 0.6, dtype=torch.float64)
    top_p, min_p = full + 0.35, full * 0
    zeros = torch.zeros(rows, dtype=torch.int64)
    (mine,) = in_turns(
        lambda: ops.sample_with_confidence(logits, full, zeros, top_p, min_p, zeros, zeros)
    )
    record({"what": "sample_with_confidence", "R": rows, "V": vocab, "ms": 1e3 * mine})
