"""The Rust kernels as operations on tensors: checks first, then addresses and sizes.

Every function computes float32 or bfloat16 tensors on the CPU,
without gradients; `ops` comes here only then. Index ranges (slots, blocks, offsets) are checked
by the kernels before they write anything; what cannot be right raises RequestError.

Legend: T packed tokens, H heads, K kv heads, P head width, C channels, W conv width,
R sampled rows, V vocabulary.
"""

from functools import lru_cache

import torch
from torch import Tensor

from falcon_h1r import _rust
from falcon_h1r.errors import RequestError
from falcon_h1r.ops.sampling import ConfidenceMeasure, SampleOutput

_rust.set_num_threads(torch.get_num_threads())

SUPPORTED = (torch.float32, torch.bfloat16)
_MEASURES: dict[ConfidenceMeasure, int] = {"top_logprobs": 0, "logprob": 1, "entropy": 2}


def is_supported(*tensors: Tensor | None) -> bool:
    """Say whether these kernels can run: on the CPU, one dtype of two, and no gradient wanted."""
    dtype = None
    grad = torch.is_grad_enabled()
    for t in tensors:  # a plain loop: this runs before every operation
        if t is None:
            continue
        if dtype is None:
            dtype = t.dtype
            if dtype not in SUPPORTED:
                return False
        if t.dtype is not dtype or not t.is_cpu or (grad and t.requires_grad):
            return False
    return True


def _refuse(name: str, tensor: Tensor, allowed: str) -> None:
    given = f"{tensor.dtype} {list(tensor.shape)} with strides {list(tensor.stride())}"
    raise RequestError(f"{name} is {given}; allowed is {allowed}")


def _rows(x: Tensor) -> Tensor:
    """Return x with contiguous rows (all axes but the first), copied only if it has none."""
    if x.is_contiguous():
        return x
    expected = 1
    for size, stride in zip(reversed(x.shape[1:]), reversed(x.stride()[1:]), strict=True):
        if size != 1 and stride != expected:
            return x.contiguous()
        expected *= size
    return x if x.shape[0] <= 1 or x.stride(0) >= expected else x.contiguous()


def _flat(x: Tensor) -> Tensor:
    """Return x [.., D] as [rows, D] with contiguous rows."""
    return _rows(x if x.dim() == 2 else x.reshape(-1, x.shape[-1]))


def _is_bf16(x: Tensor) -> bool:
    return x.dtype is torch.bfloat16


def _f32(x: Tensor) -> Tensor:
    return x.detach().to(torch.float32).contiguous()


def _int32(x: Tensor) -> Tensor:
    return x.contiguous() if x.dtype is torch.int32 else x.to(torch.int32).contiguous()


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, scale: Tensor | float | None = None
) -> Tensor:
    """Return (x @ weight^T) * scale + bias [.., out] for x [.., in]; see `reference.linear`.

    The product is accumulated, scaled and shifted in float32 and rounded once.
    """
    n, k = weight.shape
    if x.shape[-1] != k:
        _refuse("x", x, f"[.., {k}] for this weight")
    if not (bias is None or bias.shape == (n,)):
        _refuse("bias", x if bias is None else bias, f"[{n}]")
    flat = _flat(x)
    weight = weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    y = torch.empty(*x.shape[:-1], n, dtype=x.dtype, device="cpu")
    factor, scales = 1.0, None
    if isinstance(scale, Tensor):
        scales = _f32(scale.expand(n))
    elif scale is not None:
        factor = scale
    _rust.linear(
        flat.data_ptr(),
        weight.data_ptr(),
        factor,
        0 if scales is None else scales.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        y.data_ptr(),
        flat.shape[0],
        n,
        k,
        flat.stride(0),
        _is_bf16(x),
    )
    return y


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMS norm over the last axis of x [.., D]; see `reference.rms_norm`."""
    width = x.shape[-1]
    if weight.shape != (width,):
        _refuse("weight", weight, f"[{width}]")
    flat, weight = _flat(x), weight.contiguous()
    y = torch.empty(x.shape, dtype=x.dtype, device="cpu")
    _rust.rms_norm(
        flat.data_ptr(), weight.data_ptr(), y.data_ptr(), eps,
        flat.shape[0], width, flat.stride(0), _is_bf16(x),
    )  # fmt: skip
    return y


def gated_rms_norm(
    x: Tensor, z: Tensor, weight: Tensor, eps: float, num_groups: int, norm_before_gate: bool
) -> Tensor:
    """Gate x [.., C] by silu(z) and normalise per group; see `reference.gated_rms_norm`."""
    width = x.shape[-1]
    if weight.shape != (width,):
        _refuse("weight", weight, f"[{width}]")
    if z.shape != x.shape:
        _refuse("z", z, f"the shape of x, {list(x.shape)}")
    flat, gate, weight = _flat(x), _flat(z), weight.contiguous()
    y = torch.empty(x.shape, dtype=x.dtype, device="cpu")
    _rust.gated_rms_norm(
        flat.data_ptr(), gate.data_ptr(), weight.data_ptr(), y.data_ptr(), eps, num_groups,
        norm_before_gate, flat.shape[0], width, flat.stride(0), gate.stride(0), _is_bf16(x),
    )  # fmt: skip
    return y


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) * up, both [.., F]."""
    if up.shape != gate.shape:
        _refuse("up", up, f"the shape of gate, {list(gate.shape)}")
    a, b = _flat(gate), _flat(up)
    y = torch.empty(gate.shape, dtype=gate.dtype, device="cpu")
    _rust.swiglu(
        a.data_ptr(), b.data_ptr(), y.data_ptr(),
        a.shape[0], a.shape[1], a.stride(0), b.stride(0), _is_bf16(gate),
    )  # fmt: skip
    return y


def softplus_dt(dt: Tensor, dt_bias: Tensor, limit: tuple[float, float]) -> Tensor:
    """Return clamp(softplus(dt + dt_bias), *limit) [T, H] in float32."""
    tokens, heads = dt.shape
    if dt_bias.shape != (heads,):
        _refuse("dt_bias", dt_bias, f"[{heads}]")
    dt, bias = _rows(dt), _f32(dt_bias)
    y = torch.empty(tokens, heads, dtype=torch.float32, device="cpu")
    _rust.softplus_dt(
        dt.data_ptr(), bias.data_ptr(), y.data_ptr(), limit[0], limit[1],
        tokens, heads, dt.stride(0), _is_bf16(dt),
    )  # fmt: skip
    return y


def decay_rate(A_log: Tensor) -> Tensor:
    """Return -exp(A_log) [H] in float32."""
    A_log = A_log.contiguous()
    y = torch.empty(A_log.shape[0], dtype=torch.float32, device="cpu")
    _rust.decay_rate(A_log.data_ptr(), y.data_ptr(), A_log.shape[0], _is_bf16(A_log))
    return y


@lru_cache(maxsize=16)
def frequencies(theta: float, head_dim: int) -> Tensor:
    """Return radians a position [P/2], as the reference computes them in float32."""
    with torch.inference_mode(False):
        exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
        return (1.0 / theta**exponent).contiguous()


def rope(q: Tensor, k: Tensor, positions: Tensor, theta: float) -> tuple[Tensor, Tensor]:
    """Rotate q [T, H, P] and k [T, K, P] by their positions [T]; see `reference.rope`."""
    positions = positions.to(torch.int64).contiguous()
    if positions.shape != q.shape[:1]:
        _refuse("positions", positions, f"[{q.shape[0]}]")
    if not (k.shape[0] == q.shape[0] and k.shape[2] == q.shape[2]):
        _refuse("k", k, "q's tokens and width")
    if q.shape[2] % 2 != 0:
        _refuse("q", q, "an even head width")
    inverse = frequencies(theta, q.shape[2])

    def rotate(x: Tensor) -> Tensor:
        tokens, heads, head_dim = x.shape
        y = torch.empty(tokens, heads, head_dim, dtype=x.dtype, device="cpu")
        x = _rows(x)
        _rust.rope(
            x.data_ptr(), positions.data_ptr(), inverse.data_ptr(), y.data_ptr(),
            tokens, heads * head_dim, head_dim, x.stride(0), _is_bf16(x),
        )  # fmt: skip
        return y

    return rotate(q), rotate(k)


def causal_conv1d_slots(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cu_seqlens: Tensor,
    conv_state: Tensor,
    state_slots: Tensor,
    has_initial_state: Tensor,
) -> Tensor:
    """Convolve packed sequences with states in slots, in place; see the reference.

    x [T, C] with any row stride, weight [C, W] with W from 2 to 4, conv_state [slots, C, W-1]
    contiguous, of x's dtype.
    """
    channels, width = weight.shape
    tokens = x.shape[0]
    if x.shape != (tokens, channels):
        _refuse("x", x, f"[T, {channels}]")
    if not (bias is None or bias.shape == (channels,)):
        _refuse("bias", weight if bias is None else bias, f"[{channels}]")
    if not (
        conv_state.dtype is x.dtype
        and conv_state.is_contiguous()
        and conv_state.shape[1:] == (channels, width - 1)
    ):
        _refuse("conv_state", conv_state, f"contiguous {x.dtype} [slots, {channels}, {width - 1}]")
    _check_sequences(cu_seqlens, state_slots, has_initial_state)
    x, weight, cu_seqlens = _rows(x), weight.contiguous(), _int32(cu_seqlens)
    bias = None if bias is None else bias.contiguous()
    y = torch.empty(tokens, channels, dtype=x.dtype, device="cpu")
    _rust.causal_conv1d_slots(
        x.data_ptr(), weight.data_ptr(), 0 if bias is None else bias.data_ptr(),
        cu_seqlens.data_ptr(), conv_state.data_ptr(), state_slots.data_ptr(),
        has_initial_state.data_ptr(), y.data_ptr(), tokens, state_slots.shape[0],
        conv_state.shape[0], channels, width, x.stride(0), _is_bf16(x),
    )  # fmt: skip
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
    """Scan packed sequences with states in slots, in place; see `reference.ssd_scan_slots`.

    x, B, C float32 or bfloat16 with any row stride; ssm_state float32, contiguous.
    """
    tokens, heads, head_dim = x.shape
    groups, d_state = B.shape[1:]
    seqs = state_slots.shape[0]
    if C.shape != B.shape:
        _refuse("C", C, f"the shape of B, {list(B.shape)}")
    if dt.shape != (tokens, heads):
        _refuse("dt", dt, f"[{tokens}, {heads}]")
    if B.shape[0] != tokens:
        _refuse("B", B, f"{tokens} tokens")
    if not (A.shape == D.shape == (heads,)):
        _refuse("A and D", A, f"[{heads}]")
    if not (
        ssm_state.dtype is torch.float32
        and ssm_state.is_contiguous()
        and ssm_state.shape[1:] == (heads, head_dim, d_state)
    ):
        _refuse(
            "ssm_state", ssm_state, f"contiguous float32 [slots, {heads}, {head_dim}, {d_state}]"
        )
    _check_sequences(cu_seqlens, state_slots, has_initial_state)
    x, B, C, dt = _rows(x), _rows(B), _rows(C), _rows(dt.to(torch.float32))
    A, D, cu_seqlens = _f32(A), _f32(D), _int32(cu_seqlens)
    y = torch.empty(tokens, heads, head_dim, dtype=x.dtype, device="cpu")
    _rust.ssd_scan_slots(
        x.data_ptr(),
        dt.data_ptr(),
        A.data_ptr(),
        B.data_ptr(),
        C.data_ptr(),
        D.data_ptr(),
        cu_seqlens.data_ptr(),
        ssm_state.data_ptr(),
        state_slots.data_ptr(),
        has_initial_state.data_ptr(),
        y.data_ptr(),
        tokens,
        seqs,
        ssm_state.shape[0],
        heads,
        head_dim,
        groups,
        d_state,
        x.stride(0),
        dt.stride(0),
        B.stride(0),
        C.stride(0),
        _is_bf16(x),
    )
    return y


def _check_sequences(cu_seqlens: Tensor, state_slots: Tensor, has_initial_state: Tensor) -> None:
    seqs = state_slots.shape[0]
    if cu_seqlens.shape != (seqs + 1,):
        _refuse("cu_seqlens", cu_seqlens, f"[{seqs + 1}]")
    if not (state_slots.dtype is torch.int64 and state_slots.is_contiguous()):
        _refuse("state_slots", state_slots, "contiguous int64")
    if not (
        has_initial_state.dtype is torch.bool
        and has_initial_state.shape == (seqs,)
        and has_initial_state.is_contiguous()
    ):
        _refuse("has_initial_state", has_initial_state, f"contiguous bool [{seqs}]")


def write_kv(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """Store k and v [T, K, P] in the caches [blocks, block_size, K, P] at KV slots int64 [T]."""
    tokens = k.shape[0]
    slot_mapping = slot_mapping.to(torch.int64).contiguous()
    if slot_mapping.shape != (tokens,):
        _refuse("slot_mapping", slot_mapping, f"[{tokens}]")
    for name, x, cache in (("k", k, k_cache), ("v", v, v_cache)):
        if x.shape != (tokens, *cache.shape[2:]):
            _refuse(name, x, f"[{tokens}, *{cache.shape[2:]}]")
        if not (cache.is_contiguous() and cache.dtype is x.dtype):
            _refuse(f"{name}_cache", cache, f"contiguous {x.dtype}")
    for x, cache in ((k, k_cache), (v, v_cache)):
        x = _rows(x)
        _rust.write_rows(
            x.data_ptr(), slot_mapping.data_ptr(), cache.data_ptr(), tokens,
            x.shape[1] * x.shape[2], x.stride(0), cache.shape[0] * cache.shape[1], _is_bf16(x),
        )  # fmt: skip


def paged_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    cu_seqlens: Tensor,
    seq_lens: Tensor,
    scale: float,
) -> Tensor:
    """Attend q [T, H, P], each sequence's last tokens, to its blocks; see the reference."""
    tokens, heads, head_dim = q.shape
    num_blocks, block_size, kv_heads, _ = k_cache.shape
    seqs = seq_lens.shape[0]
    if not (k_cache.is_contiguous() and k_cache.dtype is q.dtype and k_cache.shape[3] == head_dim):
        _refuse("k_cache", k_cache, f"contiguous {q.dtype} [blocks, block_size, K, {head_dim}]")
    if not (
        v_cache.is_contiguous() and v_cache.dtype is q.dtype and v_cache.shape == k_cache.shape
    ):
        _refuse("v_cache", v_cache, f"contiguous {q.dtype} {list(k_cache.shape)}")
    if block_tables.shape[0] != seqs:
        _refuse("block_tables", block_tables, f"[{seqs}, M]")
    if cu_seqlens.shape != (seqs + 1,):
        _refuse("cu_seqlens", cu_seqlens, f"[{seqs + 1}]")
    q, block_tables = _rows(q), _int32(block_tables)
    cu_seqlens, seq_lens = _int32(cu_seqlens), _int32(seq_lens)
    y = torch.empty(tokens, heads, head_dim, dtype=q.dtype, device="cpu")
    _rust.paged_attention(
        q.data_ptr(), k_cache.data_ptr(), v_cache.data_ptr(), block_tables.data_ptr(),
        cu_seqlens.data_ptr(), seq_lens.data_ptr(), y.data_ptr(), scale, tokens, seqs, heads,
        kv_heads, head_dim, num_blocks, block_size, block_tables.shape[1], q.stride(0),
        _is_bf16(q),
    )  # fmt: skip
    return y


def copy_rows(tensor: Tensor, copies: Tensor) -> None:
    """Copy tensor[src] to tensor[dst] for each (src, dst) of copies [n, 2], in place.

    tensor contiguous, any dtype. A destination may not repeat nor be a source.
    """
    if not (tensor.is_contiguous()):
        _refuse("tensor", tensor, "contiguous")
    if not (copies.dim() == 2 and copies.shape[1] == 2):
        _refuse("copies", copies, "[n, 2]")
    copies = copies.to(torch.int64).contiguous()
    row_bytes = tensor[0].nbytes if tensor.shape[0] else 0
    _rust.copy_rows(
        tensor.data_ptr(), copies.data_ptr(), tensor.shape[0], row_bytes, copies.shape[0]
    )


def sample_with_confidence(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    keys: Tensor,
    positions: Tensor,
    confidence: ConfidenceMeasure = "top_logprobs",
    confidence_top: int = 20,
    num_logprobs: int = 0,
    adjusted_logits: Tensor | None = None,
) -> SampleOutput:
    """Draw one token a row of logits [R, V]; see `sampling.sample_with_confidence`."""
    rows, vocab = logits.shape
    logits = _rows(logits)
    adjusted = None if adjusted_logits is None else _f32(adjusted_logits)
    if not (adjusted is None or adjusted.shape == logits.shape):
        _refuse("adjusted_logits", logits if adjusted is None else adjusted, f"[{rows}, {vocab}]")
    settings = [
        temperature.to(torch.float64).contiguous(),
        top_k.to(torch.int64).contiguous(),
        top_p.to(torch.float64).contiguous(),
        min_p.to(torch.float64).contiguous(),
        keys.contiguous() if keys.dtype is torch.int64 else keys.view(torch.int64).contiguous(),
        positions.to(torch.int64).contiguous(),
    ]
    for name, value in zip(
        ("temperature", "top_k", "top_p", "min_p", "keys", "positions"), settings, strict=True
    ):
        if value.shape != (rows,):
            _refuse(name, value, f"[{rows}]")
    num_top = min(num_logprobs, vocab)
    out = SampleOutput(
        token_ids=torch.empty(rows, dtype=torch.int64, device="cpu"),
        logprobs=torch.empty(rows, dtype=torch.float32, device="cpu"),
        raw_logprobs=torch.empty(rows, dtype=torch.float32, device="cpu"),
        confidences=torch.empty(rows, dtype=torch.float32, device="cpu"),
        ranks=torch.empty(rows, dtype=torch.int32, device="cpu"),
        is_error=torch.empty(rows, dtype=torch.bool, device="cpu"),
        top_ids=torch.empty(rows, num_top, dtype=torch.int64, device="cpu"),
        top_logprobs=torch.empty(rows, num_top, dtype=torch.float32, device="cpu"),
        top_raw_logprobs=torch.empty(rows, num_top, dtype=torch.float32, device="cpu"),
    )
    outputs = (
        out.token_ids.data_ptr(), out.logprobs.data_ptr(), out.raw_logprobs.data_ptr(),
        out.confidences.data_ptr(), out.ranks.data_ptr(), out.is_error.data_ptr(),
        out.top_ids.data_ptr(), out.top_logprobs.data_ptr(), out.top_raw_logprobs.data_ptr(),
    )  # fmt: skip
    _rust.sample_with_confidence(
        logits.data_ptr(), 0 if adjusted is None else adjusted.data_ptr(),
        settings[0].data_ptr(), settings[1].data_ptr(), settings[2].data_ptr(),
        settings[3].data_ptr(), settings[4].data_ptr(), settings[5].data_ptr(),
        outputs, rows, vocab, logits.stride(0), _MEASURES[confidence], confidence_top,
        num_top, _is_bf16(logits),
    )  # fmt: skip
    return out
