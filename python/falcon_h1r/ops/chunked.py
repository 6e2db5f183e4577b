"""Differentiable torch paths for training and prefill without a cache: batched, still readable.

Legend: T packed tokens, S sequences, H heads, K kv heads, P head width, G groups, N state width,
C conv channels, W conv width, Q chunk length, n chunks, L padded length. Oracles: `reference.py`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from falcon_h1r.ops.reference import compute_dtype

CHUNK_SIZE = 64
"""Tokens a chunk of the scan; the grid starts at each sequence's first token."""


class ChunkGrid:
    """Where each token sits when every sequence is cut into chunks of Q tokens.

    Chunks are ordered by (chunk of the sequence, sequence), sequences by falling length, so that
    the sequences still alive at chunk c are a prefix and the state recurrence needs no scatter.
    """

    def __init__(self, cu_seqlens: Tensor, chunk_size: int) -> None:
        lens = cu_seqlens.diff().long()
        self.order = torch.argsort(lens, descending=True, stable=True)  # [S]
        self.restore = torch.argsort(self.order)
        counts = (lens[self.order] + chunk_size - 1) // chunk_size
        self.alive = [int((counts > c).sum()) for c in range(int(counts.max()))]
        starts = cu_seqlens[:-1].long()[self.order]
        offsets = torch.arange(chunk_size, device=cu_seqlens.device)
        rows, valid = [], []
        for c, num_alive in enumerate(self.alive):
            local = c * chunk_size + offsets[None, :]  # [1, Q]
            rows.append(starts[:num_alive, None] + local)
            valid.append(local < lens[self.order][:num_alive, None])
        self.valid = torch.cat(valid)  # [n, Q]
        total = int(cu_seqlens[-1])
        self.index = torch.cat(rows).masked_fill(~self.valid, total)  # [n, Q], pad -> row `total`
        flat = self.index.flatten()
        self.inverse = torch.empty(total + 1, dtype=torch.long, device=flat.device)
        self.inverse[flat] = torch.arange(flat.numel(), device=flat.device)
        self.inverse = self.inverse[:total]

    def gather(self, x: Tensor) -> Tensor:
        """Lay x [T, ...] out as [n, Q, ...] with zeros in the padding."""
        padded = torch.cat([x, x.new_zeros(1, *x.shape[1:])])
        return padded[self.index]


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    cu_seqlens: Tensor,
    initial_state: Tensor | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> tuple[Tensor, Tensor]:
    """Chunked state space duality (Dao & Gu 2024, section 6); signature of `reference.ssd_scan`."""
    dtype = compute_dtype(x)
    heads, width = x.shape[1:]
    groups, d_state = B.shape[1:]
    repeat = heads // groups
    grid = ChunkGrid(cu_seqlens, chunk_size)
    x_, dt_ = x.to(dtype), dt.to(dtype)
    xdt = grid.gather(x_ * dt_[..., None]).transpose(1, 2)  # [n, H, Q, P]
    B_ = grid.gather(B.to(dtype)).transpose(1, 2)  # [n, G, Q, N]
    C_ = grid.gather(C.to(dtype)).transpose(1, 2)
    decay = grid.gather(dt_ * A.to(dtype)).transpose(1, 2).cumsum(-1)  # [n, H, Q], <= 0

    # Inside a chunk: M_ij = (C_i . B_j) exp(decay_i - decay_j) for j <= i; masked before exp.
    gap = decay[..., :, None] - decay[..., None, :]
    future = torch.ones(chunk_size, chunk_size, dtype=torch.bool, device=x.device).triu(1)
    mixing = gap.masked_fill(future, -torch.inf).exp()
    mixing = mixing * (C_ @ B_.mT).repeat_interleave(repeat, dim=1)
    y = mixing @ xdt  # [n, H, Q, P]

    # What each chunk adds to the state, then the recurrence over chunks of all sequences at once.
    to_end = (decay[..., -1:] - decay).exp()[..., None]  # [n, H, Q, 1]
    B_heads = B_.repeat_interleave(repeat, dim=1)
    added = (xdt * to_end).mT @ B_heads  # [n, H, P, N]
    kept = decay[..., -1].exp()[..., None, None]  # [n, H, 1, 1]
    num_seqs = cu_seqlens.numel() - 1
    if initial_state is None:
        h = x_.new_zeros(num_seqs, heads, width, d_state)
    else:
        h = initial_state.to(dtype)[grid.order]
    before, ended, first = [], [], 0
    for num_alive in grid.alive:
        ended.append(h[num_alive:])
        h = h[:num_alive]
        before.append(h)
        h = h * kept[first : first + num_alive] + added[first : first + num_alive]
        first += num_alive
    ended.append(h)
    final = torch.cat(ended[::-1])[grid.restore]

    state = torch.cat(before)  # [n, H, P, N], the state each chunk starts from
    C_heads = C_.repeat_interleave(repeat, dim=1)
    y = y + (C_heads @ state.mT) * decay.exp()[..., None]
    y = y.transpose(1, 2).flatten(0, 1)[grid.inverse] + D.to(dtype)[:, None] * x_
    return y.to(x.dtype), final


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cu_seqlens: Tensor,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Depthwise causal convolution as W shifted products; signature of the reference."""
    total, channels = x.shape
    width = weight.shape[1]
    lens = cu_seqlens.diff().long()
    num_seqs = lens.numel()
    starts = cu_seqlens[:-1].long()
    seq = torch.repeat_interleave(torch.arange(num_seqs, device=x.device), lens)
    position = torch.arange(total, device=x.device) - starts[seq]
    if initial_state is None:
        past = x.new_zeros(num_seqs, width - 1, channels)
    else:
        past = initial_state.to(x.dtype).transpose(1, 2)
    y = x * weight[:, -1]
    for back in range(1, width):
        shifted = torch.cat([x.new_zeros(back, channels), x])[:total]
        inside = (position >= back)[:, None]
        if initial_state is None:
            shifted = shifted * inside
        else:
            early = past[seq, (width - 1 + position - back).clamp(0, width - 2)]
            shifted = torch.where(inside, shifted, early)
        y = y + shifted * weight[:, width - 1 - back]
    if bias is not None:
        y = y + bias
    # Final state: the last W-1 inputs of each sequence, reaching into `past` for short ones.
    offset = lens[:, None] - (width - 1) + torch.arange(width - 1, device=x.device)  # [S, W-1]
    own = torch.cat([x, x.new_zeros(1, channels)])[
        torch.where(offset >= 0, starts[:, None] + offset, total)
    ]
    older = past.gather(
        1, (offset + width - 1).clamp(0, width - 2)[..., None].expand(-1, -1, channels)
    )
    final = torch.where((offset >= 0)[..., None], own, older).transpose(1, 2)
    return F.silu(y), final


def varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    scale: float,
    cu_keys: Tensor | None = None,
) -> Tensor:
    """Causal attention per sequence on right-padded rows; signature of the reference.

    Padding sits after every real key, so the causal mask alone hides it.
    """
    if cu_keys is not None:  # zeros stand where a key has no query
        lens = cu_seqlens.diff().long()
        shift = cu_keys[1:].long() - cu_seqlens[1:].long()
        rows = torch.arange(q.shape[0], device=q.device) + torch.repeat_interleave(shift, lens)
        full = q.new_zeros(k.shape[0], *q.shape[1:]).index_copy(0, rows, q)
        return varlen_attention(full, k, v, cu_keys, scale)[rows]
    lens = cu_seqlens.diff().long()
    num_seqs, longest = lens.numel(), int(lens.max())
    repeat = q.shape[1] // k.shape[1]
    offsets = torch.arange(longest, device=q.device)
    valid = offsets[None, :] < lens[:, None]  # [S, L]
    index = torch.where(valid, cu_seqlens[:-1].long()[:, None] + offsets, q.shape[0])

    def pad(x: Tensor, times: int) -> Tensor:
        x = torch.cat([x, x.new_zeros(1, *x.shape[1:])])[index].transpose(1, 2)  # [S, H, L, P]
        return x if times == 1 else x.repeat_interleave(times, dim=1)

    if num_seqs == 1:
        query, key, value = (x.transpose(0, 1)[None] for x in (q, k, v))
        key, value = (x.repeat_interleave(repeat, dim=1) for x in (key, value))
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
        return out[0].transpose(0, 1)
    out = F.scaled_dot_product_attention(
        pad(q, 1), pad(k, repeat), pad(v, repeat), is_causal=True, scale=scale
    )
    return out.transpose(1, 2)[valid]


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, scale: float = 1.0, rows: int = 4096
) -> Tensor:
    """Per-token cross entropy [T] without ever holding more than `rows` x V logits."""

    def part(h: Tensor, t: Tensor) -> Tensor:
        logits = F.linear(h, weight) * scale
        return F.cross_entropy(logits.to(compute_dtype(logits)), t, reduction="none")

    if hidden.shape[0] <= rows:
        return part(hidden, targets)
    losses = [
        checkpoint(part, h, t, use_reentrant=False)
        for h, t in zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
    ]
    return torch.cat(losses)
