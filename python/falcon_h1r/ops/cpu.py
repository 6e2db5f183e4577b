"""The Rust kernels as operations on tensors: checks first, then addresses and sizes.

Legend as in `reference.py`. Every function computes float32 or bfloat16 tensors on the CPU,
without gradients; `ops` comes here only then. Index ranges (slots, blocks, offsets) are checked
by the kernels before they write anything; what cannot be right raises RequestError.
"""

import torch
from torch import Tensor

from falcon_h1r import _rust
from falcon_h1r.errors import RequestError

_SUPPORTED = (torch.float32, torch.bfloat16)


def is_supported(*tensors: Tensor | None) -> bool:
    """Say whether these kernels can run: on the CPU, one dtype of two, and no gradient wanted."""
    given = [t for t in tensors if t is not None]
    first = given[0].dtype
    if first not in _SUPPORTED:
        return False
    grad = torch.is_grad_enabled()
    return all(
        t.dtype is first and t.device.type == "cpu" and not (grad and t.requires_grad)
        for t in given
    )


def _check(ok: bool, name: str, tensor: Tensor, allowed: str) -> None:
    if not ok:
        given = f"{tensor.dtype} {list(tensor.shape)} with strides {list(tensor.stride())}"
        raise RequestError(f"{name} is {given}; allowed is {allowed}")


def _rows(x: Tensor) -> Tensor:
    """Return x with contiguous rows (all axes but the first), copied only if it has none."""
    expected = 1
    for size, stride in zip(reversed(x.shape[1:]), reversed(x.stride()[1:]), strict=True):
        if size != 1 and stride != expected:
            return x.contiguous()
        expected *= size
    return x if x.shape[0] <= 1 or x.stride(0) >= expected else x.contiguous()


def _f32(x: Tensor) -> Tensor:
    return x.detach().to(torch.float32).contiguous()


def _int32(x: Tensor) -> Tensor:
    return x.to(torch.int32).contiguous()


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, scale: Tensor | float | None = None
) -> Tensor:
    """Return (x @ weight^T) * scale + bias [.., out] for x [.., in]; see `reference.linear`.

    The product is accumulated, scaled and shifted in float32 and rounded once.
    """
    n, k = weight.shape
    _check(x.shape[-1] == k, "x", x, f"[.., {k}] for this weight")
    _check(bias is None or bias.shape == (n,), "bias", x if bias is None else bias, f"[{n}]")
    flat = _rows(x if x.dim() == 2 else x.reshape(-1, k))
    weight = weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    y = torch.empty(*x.shape[:-1], n, dtype=x.dtype)
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
        x.dtype is torch.bfloat16,
    )
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
    _check(C.shape == B.shape, "C", C, f"the shape of B, {list(B.shape)}")
    _check(dt.shape == (tokens, heads), "dt", dt, f"[{tokens}, {heads}]")
    _check(B.shape[0] == tokens, "B", B, f"{tokens} tokens")
    _check(A.shape == D.shape == (heads,), "A and D", A, f"[{heads}]")
    _check(
        ssm_state.dtype is torch.float32
        and ssm_state.is_contiguous()
        and ssm_state.shape[1:] == (heads, head_dim, d_state),
        "ssm_state",
        ssm_state,
        f"contiguous float32 [slots, {heads}, {head_dim}, {d_state}]",
    )
    _check_sequences(cu_seqlens, state_slots, has_initial_state)
    x, B, C, dt = _rows(x), _rows(B), _rows(C), _rows(dt.to(torch.float32))
    A, D, cu_seqlens = _f32(A), _f32(D), _int32(cu_seqlens)
    y = torch.empty(tokens, heads, head_dim, dtype=x.dtype)
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
        x.dtype is torch.bfloat16,
    )
    return y


def _check_sequences(cu_seqlens: Tensor, state_slots: Tensor, has_initial_state: Tensor) -> None:
    seqs = state_slots.shape[0]
    _check(cu_seqlens.shape == (seqs + 1,), "cu_seqlens", cu_seqlens, f"[{seqs + 1}]")
    _check(
        state_slots.dtype is torch.int64 and state_slots.is_contiguous(),
        "state_slots",
        state_slots,
        "contiguous int64",
    )
    _check(
        has_initial_state.dtype is torch.bool
        and has_initial_state.shape == (seqs,)
        and has_initial_state.is_contiguous(),
        "has_initial_state",
        has_initial_state,
        f"contiguous bool [{seqs}]",
    )
