"""Oracles: every operation written the way its definition reads, slow and differentiable.

Legend: T packed tokens, S sequences, H heads, K kv heads, P head width, G groups, N state width,
C conv channels, W conv width, D model width, V vocabulary, M blocks a sequence, R sampled rows,
L queries and E keys of one sequence.
Each function computes in the dtype of its inputs, except that reductions of 16-bit inputs run in
float32. Nothing here is fast; everything here is what the fast paths are held against.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

_MASK64 = (1 << 64) - 1
_MASK32 = (1 << 32) - 1


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype reductions over `x` run in: float64 stays, everything else is float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, scale: Tensor | float | None = None
) -> Tensor:
    """Return (x @ weight^T) * scale + bias; x [T, in], weight [out, in], scale scalar or [out]."""
    y = x @ weight.t()
    if scale is not None:
        y = (y * scale).to(y.dtype)
    return y if bias is None else y + bias


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang & Sennrich 2019)."""
    x32 = x.to(compute_dtype(x))
    normed = x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + eps)
    return (weight.to(x32.dtype) * normed).to(x.dtype)


def gated_rms_norm(
    x: Tensor, z: Tensor, weight: Tensor, eps: float, num_groups: int, norm_before_gate: bool
) -> Tensor:
    """Gate x [T, C] by silu(z) and RMS-normalise each of `num_groups` slices of channels.

    `norm_before_gate` False (every published Falcon-H1): norm(x * silu(z)); True: norm(x) *
    silu(z).
    Source: semantics of mamba_ssm's RMSNormGated and of transformers' FalconH1RMSNormGated.
    """
    dtype = compute_dtype(x)
    h, gate = x.to(dtype), F.silu(z.to(dtype))
    if not norm_before_gate:
        h = h * gate
    grouped = h.reshape(*h.shape[:-1], num_groups, -1)
    grouped = grouped * torch.rsqrt(grouped.pow(2).mean(-1, keepdim=True) + eps)
    h = grouped.reshape(h.shape) * weight.to(dtype)
    if norm_before_gate:
        h = h * gate
    return h.to(x.dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) * up."""
    dtype = compute_dtype(gate)
    return (F.silu(gate.to(dtype)) * up.to(dtype)).to(gate.dtype)


def softplus_dt(dt: Tensor, dt_bias: Tensor, limit: tuple[float, float]) -> Tensor:
    """Return clamp(softplus(dt + dt_bias), *limit) [T, H] in float32 (float64 for float64)."""
    dtype = compute_dtype(dt)
    return F.softplus(dt.to(dtype) + dt_bias.to(dtype)).clamp(limit[0], limit[1])


def decay_rate(A_log: Tensor) -> Tensor:
    """Return A = -exp(A_log) [H] in float32 (float64 for float64)."""
    return -torch.exp(A_log.to(compute_dtype(A_log)))


def rope(q: Tensor, k: Tensor, positions: Tensor, theta: float) -> tuple[Tensor, Tensor]:
    """Rotate q [T, H, P] and k [T, K, P] by their positions [T] (half-split, as Llama does)."""
    dtype = compute_dtype(q)
    width = q.shape[-1]
    exponent = torch.arange(0, width, 2, dtype=dtype, device=q.device) / width
    angle = positions.to(dtype)[:, None] * (1.0 / theta**exponent)  # [T, P/2]
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]

    def rotate(x: Tensor) -> Tensor:
        a, b = x.to(dtype).chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)

    return rotate(q), rotate(k)


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cu_seqlens: Tensor,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Depthwise causal convolution and SiLU, one sequence at a time.

    x [T, C], weight [C, W], bias [C], initial_state [S, C, W-1] (the inputs before the first) ->
    (y [T, C], final_state [S, C, W-1]). Source: Dao-AILab's causal_conv1d.
    """
    channels, width = weight.shape
    outputs, finals = [], []
    bounds = cu_seqlens.tolist()
    for s, (start, end) in enumerate(pairwise(bounds)):
        past = x.new_zeros(channels, width - 1) if initial_state is None else initial_state[s]
        padded = torch.cat([past.to(x.dtype), x[start:end].t()], dim=1)
        y = F.conv1d(padded[None], weight[:, None], bias, groups=channels)[0]
        outputs.append(F.silu(y).t())
        finals.append(padded[:, padded.shape[1] - (width - 1) :])
    return torch.cat(outputs), torch.stack(finals)


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    cu_seqlens: Tensor,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mamba-2's recurrence, token by token.

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T;  y_t = h_t C_t + D x_t  (Dao & Gu 2024, eq. 2).
    x [T, H, P], dt [T, H] (after softplus and clamp), A [H] (negative), B and C [T, G, N], D [H],
    initial_state [S, H, P, N] -> (y [T, H, P], final_state [S, H, P, N]).
    """
    dtype = compute_dtype(x)
    heads, width = x.shape[1:]
    groups, d_state = B.shape[1:]
    repeat = heads // groups
    x_, dt_, A_, D_ = x.to(dtype), dt.to(dtype), A.to(dtype), D.to(dtype)
    B_ = B.to(dtype).repeat_interleave(repeat, dim=1)
    C_ = C.to(dtype).repeat_interleave(repeat, dim=1)
    outputs, finals = [], []
    bounds = cu_seqlens.tolist()
    for s, (start, end) in enumerate(pairwise(bounds)):
        if initial_state is None:
            h = x_.new_zeros(heads, width, d_state)
        else:
            h = initial_state[s].to(dtype)
        for t in range(start, end):
            decay = torch.exp(dt_[t] * A_)[:, None, None]
            h = decay * h + (dt_[t, :, None] * x_[t])[:, :, None] * B_[t][:, None, :]
            outputs.append((h * C_[t][:, None, :]).sum(-1) + D_[:, None] * x_[t])
        finals.append(h)
    y = torch.stack(outputs) if outputs else x_.new_zeros(x_.shape)
    return y.to(x.dtype), torch.stack(finals)


def varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    scale: float,
    cu_keys: Tensor | None = None,
) -> Tensor:
    """Causal grouped-query attention inside each sequence: q [T, H, P], k and v [T, K, P].

    With cu_keys [S+1], k and v are [E, K, P]: a sequence has as many keys as queries or more, and
    its queries are its last positions.
    """
    queries = list(pairwise(cu_seqlens.tolist()))
    keys = queries if cu_keys is None else list(pairwise(cu_keys.tolist()))
    outputs = [
        _attend(q[a:b], k[c:d], v[c:d], scale)
        for (a, b), (c, d) in zip(queries, keys, strict=True)
        if b > a
    ]
    return torch.cat(outputs) if outputs else q.new_zeros(q.shape)


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Attend q [L, H, P], the last L positions of k and v [E, K, P], causally."""
    dtype = compute_dtype(q)
    repeat = q.shape[1] // k.shape[1]
    k = k.to(dtype).repeat_interleave(repeat, dim=1)
    v = v.to(dtype).repeat_interleave(repeat, dim=1)
    scores = torch.einsum("lhp,ehp->hle", q.to(dtype), k) * scale
    length, extent = q.shape[0], k.shape[0]
    row = torch.arange(length, device=q.device)[:, None] + (extent - length)
    hidden = torch.arange(extent, device=q.device)[None, :] > row
    probabilities = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    return torch.einsum("hle,ehp->lhp", probabilities, v).to(q.dtype)


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, scale: float = 1.0
) -> Tensor:
    """Return -log softmax(hidden @ weight^T * scale)[targets] [T]; hidden [T, D], weight [V, D]."""
    logits = linear(hidden, weight, scale=scale)
    return F.cross_entropy(logits.to(compute_dtype(logits)), targets, reduction="none")


# With a cache: in place, no gradients.


def causal_conv1d_slots(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cu_seqlens: Tensor,
    conv_state: Tensor,
    state_slots: Tensor,
    has_initial_state: Tensor,
) -> Tensor:
    """As `causal_conv1d`, with states read from and written to conv_state [slots, C, W-1]."""
    past = conv_state[state_slots]
    initial = torch.where(has_initial_state[:, None, None], past, torch.zeros_like(past))
    y, final = causal_conv1d(x, weight, bias, cu_seqlens, initial.to(x.dtype))
    conv_state[state_slots] = final.to(conv_state.dtype)
    return y


def ssd_scan_slots(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    cu_seqlens: Tensor,
    ssm_state: Tensor,
    state_slots: Tensor,
    has_initial_state: Tensor,
) -> Tensor:
    """As `ssd_scan`, with states read from and written to ssm_state [slots, H, P, N]."""
    past = ssm_state[state_slots]
    initial = torch.where(has_initial_state[:, None, None, None], past, torch.zeros_like(past))
    y, final = ssd_scan(x, dt, A, B, C, D, cu_seqlens, initial)
    ssm_state[state_slots] = final.to(ssm_state.dtype)
    return y


def write_kv(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """Store k and v [T, K, P] in the caches [blocks, block_size, K, P] at flat KV slots [T]."""
    k_cache.view(-1, *k_cache.shape[2:])[slot_mapping] = k.to(k_cache.dtype)
    v_cache.view(-1, *v_cache.shape[2:])[slot_mapping] = v.to(v_cache.dtype)


def paged_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    cu_seqlens: Tensor,
    seq_lens: Tensor,
    scale: float,
) -> Tensor:
    """Attend q [T, H, P], each sequence's last tokens, to its blocks; block_tables [S, M]."""
    block_size = k_cache.shape[1]
    outputs = []
    bounds = cu_seqlens.tolist()
    for s, (start, end) in enumerate(pairwise(bounds)):
        extent = int(seq_lens[s])
        blocks = block_tables[s, : -(-extent // block_size)].long()
        k = k_cache[blocks].flatten(0, 1)[:extent]
        v = v_cache[blocks].flatten(0, 1)[:extent]
        outputs.append(_attend(q[start:end], k, v, scale))
    return torch.cat(outputs) if outputs else q.new_zeros(q.shape)


# Noise: counter-based, the same in Rust, torch and Triton.


def mix64(z: int) -> int:
    """Return splitmix64's output function of z (Steele, Lea & Flood 2014)."""
    z = (z + 0x9E3779B97F4A7C15) & _MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK64
    return z ^ (z >> 31)


def noise_key(seed: int, trace_index: int, purpose: int = 0) -> int:
    """Return the 64-bit Philox key of one trace of one request; purpose 0 is token sampling."""
    return mix64(mix64(mix64(seed & _MASK64) ^ trace_index) ^ purpose)


def philox_uniform(key: int, position: int) -> float:
    """Return the uniform in [0, 1) of Philox4x32-10 at (key, position) (Salmon et al. 2011)."""
    c0, c1, c2, c3 = position & _MASK32, (position >> 32) & _MASK32, 0, 0
    k0, k1 = key & _MASK32, (key >> 32) & _MASK32
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK32, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK32
        k0, k1 = (k0 + 0x9E3779B9) & _MASK32, (k1 + 0xBB67AE85) & _MASK32
    return ((c0 >> 5) * 67108864 + (c1 >> 6)) / 9007199254740992.0
