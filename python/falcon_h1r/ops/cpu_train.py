"""Differentiable operations on the CPU in float32: an autograd function over each Rust kernel.

Legend: T packed tokens, E packed keys, S sequences, H heads, K kv heads, P head width, G groups,
N state width, C conv channels, W conv width. Oracles: `reference.py`. Results do not depend on the
thread count. Each function takes what its namesake there takes; `is_served` says whether it may be
called. What the kernels do not serve (W outside 2 to 4, a norm before its gate) goes to torch.
"""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from falcon_h1r import _rust
from falcon_h1r.ops import chunked, cpu_products, reference
from falcon_h1r.ops.precision import matmul_precision

_ROW_MULTIPLE = 128
_IGNORED = -100
"""The target of a row without a loss, as in torch."""


def new_empty(*shape: Any) -> Tensor:
    """An empty tensor as the kernels take it, whatever torch's default dtype and device are."""
    return torch.empty(*shape, dtype=torch.float32, device="cpu")


def new_zeros(*shape: Any) -> Tensor:
    """The same, of zeros."""
    return torch.zeros(*shape, dtype=torch.float32, device="cpu")


def is_served(*tensors: Tensor | None) -> bool:
    """Return whether the kernels serve these inputs: all float32 and on the CPU."""
    return all(t is None or (t.dtype == torch.float32 and t.device.type == "cpu") for t in tensors)


def _bounds(cu_seqlens: Tensor, total: int) -> list[int]:
    """Return cu_seqlens as integers, checked against the number of rows."""
    bounds: list[int] = cu_seqlens.tolist()
    ordered = all(a <= b for a, b in pairwise(bounds))
    if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != total or not ordered:
        raise ValueError(f"cu_seqlens must rise from 0 to {total}, the number of packed tokens")
    return bounds


def _check(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must have {shape}")


def _inner(tensor: Tensor) -> Tensor:
    """Return the tensor with each row contiguous; rows may lie apart, as a slice's do."""
    expected = 1
    for size, stride in zip(tensor.shape[:0:-1], tensor.stride()[:0:-1], strict=True):
        if size != 1 and stride != expected:
            return tensor.contiguous()
        expected *= size
    return tensor if tensor.stride(0) >= expected or tensor.shape[0] <= 1 else tensor.contiguous()


def _at(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        initial_state: Tensor | None,
        bounds: list[int],
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        total, heads, width = x.shape
        groups, d_state = B.shape[1:]
        x, dt, B, C = _inner(x), _inner(dt), _inner(B), _inner(C)
        A, D = A.contiguous(), D.contiguous()
        initial_state = None if initial_state is None else initial_state.contiguous()
        y = new_empty(total, heads, width)
        final_state = new_empty(len(bounds) - 1, heads, width, d_state)
        ctx.bounds, ctx.sizes = bounds, (heads, width, groups, d_state)
        ctx.save_for_backward(x, dt, A, B, C, D, initial_state)
        _rust.train_ssd_forward(
            torch.get_num_threads(),
            ctx.sizes,
            bounds,
            [t.stride(0) for t in (x, dt, B, C)],
            [_at(t) for t in (x, dt, A, B, C, D, initial_state)],
            [_at(y), _at(final_state)],
        )
        return y, final_state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dfinal: Tensor | None) -> tuple[Tensor | None, ...]:
        x, dt, A, B, C, D, initial_state = ctx.saved_tensors
        if dy is None and dfinal is None:
            return (None,) * 8
        dy = new_zeros(x.shape) if dy is None else dy.contiguous()
        dfinal = None if dfinal is None else dfinal.contiguous()
        num_seqs, heads = len(ctx.bounds) - 1, x.shape[1]
        dx, ddt, dB, dC = (new_empty(t.shape) for t in (x, dt, B, C))
        dA, dD = new_empty(num_seqs, heads), new_empty(num_seqs, heads)
        dinitial = None if initial_state is None else new_empty(initial_state.shape)
        _rust.train_ssd_backward(
            torch.get_num_threads(),
            ctx.sizes,
            ctx.bounds,
            [t.stride(0) for t in (x, dt, B, C)],
            [_at(t) for t in (x, dt, A, B, C, D, initial_state)],
            [_at(dy), _at(dfinal)],
            [_at(t) for t in (dx, ddt, dB, dC, dinitial, dA, dD)],
        )
        return dx, ddt, _total(dA), dB, dC, _total(dD), dinitial, None


def _total(parts: Tensor) -> Tensor:
    """Sum parts [n, ...] over n in float64."""
    return parts.sum(0, dtype=torch.float64).float()


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
    """Mamba-2's scan over packed sequences; signature of `reference.ssd_scan`."""
    total, heads, width = x.shape
    groups, d_state = B.shape[1:]
    bounds = _bounds(cu_seqlens, total)
    _check("dt", dt, (total, heads))
    _check("A", A, (heads,))
    _check("B", B, (total, groups, d_state))
    _check("C", C, (total, groups, d_state))
    _check("D", D, (heads,))
    if initial_state is not None:
        _check("initial_state", initial_state, (len(bounds) - 1, heads, width, d_state))
    if heads % groups:
        raise ValueError(f"{heads} heads cannot be shared by {groups} groups")
    y, final_state = _Scan.apply(x, dt, A, B, C, D, initial_state, bounds)
    return y, final_state


def _rows(tensor: Tensor) -> Tensor:
    """Return a matrix [T, C] with contiguous rows that may lie apart."""
    ok = tensor.stride(-1) == 1 or tensor.shape[-1] == 1
    return tensor if ok and tensor.stride(0) >= tensor.shape[-1] else tensor.contiguous()


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bounds: list[list[int]], scale: float
    ) -> Tensor:
        total, heads, width = q.shape
        q, k, v = _inner(q), _inner(k), _inner(v)
        ctx.bounds, ctx.scale, ctx.sizes = bounds, scale, (heads, k.shape[1], width)
        out, lse = new_empty(total, heads, width), new_empty(total, heads)
        ctx.save_for_backward(q, k, v, out, lse)
        _rust.train_attention_forward(
            torch.get_num_threads(),
            ctx.sizes,
            bounds,
            [t.stride(0) for t in (q, k, v)],
            [_at(t) for t in (q, k, v)],
            scale,
            [_at(out), _at(lse)],
        )
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        dout = dout.contiguous()
        dq, dk, dv = (new_empty(t.shape) for t in (q, k, v))
        _rust.train_attention_backward(
            torch.get_num_threads(),
            ctx.sizes,
            ctx.bounds,
            [t.stride(0) for t in (q, k, v)],
            [_at(t) for t in (q, k, v)],
            ctx.scale,
            [_at(out), _at(lse), _at(dout)],
            [_at(dq), _at(dk), _at(dv)],
        )
        return dq, dk, dv, None, None


def varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    scale: float,
    cu_keys: Tensor | None = None,
) -> Tensor:
    """Causal attention inside each sequence; signature of `reference.varlen_attention`."""
    total, heads, width = q.shape
    bounds = _bounds(cu_seqlens, total)
    keys = bounds if cu_keys is None else _bounds(cu_keys, k.shape[0])
    of_queries, of_keys = pairwise(bounds), pairwise(keys)
    if len(keys) != len(bounds) or any(
        b - a > d - c for (a, b), (c, d) in zip(of_queries, of_keys, strict=True)
    ):
        raise ValueError("cu_keys must give every sequence as many keys as queries, or more")
    _check("k", k, (keys[-1], k.shape[1], width))
    _check("v", v, tuple(k.shape))
    if heads % k.shape[1]:
        raise ValueError(f"{heads} heads cannot share {k.shape[1]} key heads")
    out: Tensor = _Attention.apply(q, k, v, [bounds, keys], scale)
    return out


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        past: Tensor | None,
        bounds: list[int],
    ) -> Tensor:
        x, flipped = _rows(x), weight.t().contiguous()  # [W, C]
        past = None if past is None else past.transpose(1, 2).contiguous()  # [S, W-1, C]
        bias = None if bias is None else bias.contiguous()
        ctx.bounds, ctx.sizes = bounds, tuple(weight.shape)
        ctx.save_for_backward(x, flipped, bias, past)
        y = new_empty(x.shape)
        _rust.train_conv_forward(
            torch.get_num_threads(),
            ctx.sizes,
            bounds,
            x.stride(0),
            [_at(t) for t in (x, flipped, bias, past)],
            _at(y),
        )
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, flipped, bias, past = ctx.saved_tensors
        dy = dy.contiguous()
        num_seqs = len(ctx.bounds) - 1
        dx, dweight = new_empty(x.shape), new_empty(num_seqs, *flipped.shape)
        dbias = new_empty(num_seqs, x.shape[1])
        dpast = None if past is None else new_empty(past.shape)
        _rust.train_conv_backward(
            torch.get_num_threads(),
            ctx.sizes,
            ctx.bounds,
            x.stride(0),
            [_at(t) for t in (x, flipped, bias, past)],
            _at(dy),
            [_at(t) for t in (dx, dweight, dbias, dpast)],
        )
        return (
            dx,
            _total(dweight).t(),
            None if bias is None else _total(dbias),
            None if dpast is None else dpast.transpose(1, 2),
            None,
        )


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cu_seqlens: Tensor,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Depthwise causal convolution (W 2 to 4) and SiLU; signature of `reference.causal_conv1d`."""
    channels, width = weight.shape
    bounds = _bounds(cu_seqlens, x.shape[0])
    _check("x", x, (x.shape[0], channels))
    if bias is not None:
        _check("bias", bias, (channels,))
    if initial_state is not None:
        _check("initial_state", initial_state, (len(bounds) - 1, channels, width - 1))
    if not 2 <= width <= 4:
        return chunked.causal_conv1d(x, weight, bias, cu_seqlens, initial_state)
    y: Tensor = _Conv.apply(x, weight, bias, initial_state, bounds)
    return y, _last_inputs(x, bounds, width - 1, initial_state)


def _last_inputs(x: Tensor, bounds: list[int], keep: int, past: Tensor | None) -> Tensor:
    """Return each sequence's last `keep` inputs [S, C, keep], reaching into `past` or zeros."""
    ends = torch.tensor(bounds[1:], device="cpu")
    rows = ends[:, None] - keep + torch.arange(keep, device="cpu")  # [S, keep]
    short = [s for s, (a, b) in enumerate(pairwise(bounds)) if b - a < keep]
    final = x[rows.clamp_min(0)].transpose(1, 2)
    for s in short:
        length = bounds[s + 1] - bounds[s]
        older = x.new_zeros(x.shape[1], keep) if past is None else past[s]
        row = torch.cat([older[:, length:], x[bounds[s] : bounds[s + 1]].t()], dim=1)
        final = torch.cat([final[:s], row[None], final[s + 1 :]])
    return final


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, z: Tensor | None, weight: Tensor, eps: float, num_groups: int
    ) -> Tensor:
        x, z, weight = _rows(x), None if z is None else _rows(z), weight.contiguous()
        ctx.eps, ctx.sizes = eps, (*x.shape, num_groups)
        y, scales = new_empty(x.shape), new_empty(x.shape[0], num_groups)
        ctx.save_for_backward(x, z, weight, scales)
        _rust.train_norm_forward(
            torch.get_num_threads(),
            ctx.sizes,
            [x.stride(0), 0 if z is None else z.stride(0)],
            [_at(x), _at(z), _at(weight)],
            eps,
            [_at(y), _at(scales)],
        )
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, z, weight, scales = ctx.saved_tensors
        dy = dy.contiguous()
        dx, dz = new_empty(x.shape), None if z is None else new_empty(x.shape)
        dweight = new_zeros(-(-x.shape[0] // _rust.TRAIN_ROW_BLOCK), x.shape[1])
        _rust.train_norm_backward(
            torch.get_num_threads(),
            ctx.sizes,
            [x.stride(0), 0 if z is None else z.stride(0)],
            [_at(x), _at(z), _at(weight)],
            ctx.eps,
            [_at(scales), _at(dy)],
            [_at(dx), _at(dz), _at(dweight)],
        )
        return dx, dz, _total(dweight), None, None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMS norm over the last axis of x [.., C]; signature of `reference.rms_norm`."""
    _check("weight", weight, (x.shape[-1],))
    y: Tensor = _Norm.apply(x.reshape(-1, x.shape[-1]), None, weight, eps, 1)
    return y.view(x.shape)


def gated_rms_norm(
    x: Tensor,
    z: Tensor,
    weight: Tensor,
    eps: float,
    num_groups: int,
    norm_before_gate: bool = False,
) -> Tensor:
    """Gate x [T, C] by silu(z) and normalise per group; see `reference.gated_rms_norm`."""
    if norm_before_gate:
        return reference.gated_rms_norm(x, z, weight, eps, num_groups, norm_before_gate)
    _check("z", z, tuple(x.shape))
    _check("weight", weight, (x.shape[-1],))
    if x.shape[-1] % num_groups:
        raise ValueError(f"{x.shape[-1]} channels cannot be cut into {num_groups} groups")
    y: Tensor = _Norm.apply(x, z, weight, eps, num_groups)
    return y


class _Swiglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = _rows(gate), _rows(up)
        ctx.save_for_backward(gate, up)
        y = new_empty(gate.shape)
        _rust.train_swiglu_forward(
            torch.get_num_threads(),
            tuple(gate.shape),
            [gate.stride(0), up.stride(0)],
            [_at(gate), _at(up)],
            _at(y),
        )
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        dy = dy.contiguous()
        dgate, dup = new_empty(gate.shape), new_empty(gate.shape)
        _rust.train_swiglu_backward(
            torch.get_num_threads(),
            tuple(gate.shape),
            [gate.stride(0), up.stride(0)],
            [_at(gate), _at(up)],
            _at(dy),
            [_at(dgate), _at(dup)],
        )
        return dgate, dup


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up for gate and up [.., C] of one shape."""
    _check("up", up, tuple(gate.shape))
    width = gate.shape[-1]
    y: Tensor = _Swiglu.apply(gate.reshape(-1, width), up.reshape(-1, width))
    return y.view(gate.shape)


class _Rope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin, False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _rotate(dy, cos, sin, True), None, None


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, reverse: bool) -> Tensor:
    x = _inner(x)
    y = new_empty(x.shape)
    _rust.train_rope(
        torch.get_num_threads(),
        tuple(x.shape),
        x.stride(0),
        [_at(x), _at(cos), _at(sin)],
        reverse,
        _at(y),
    )
    return y


def rope(q: Tensor, k: Tensor, positions: Tensor, theta: float) -> tuple[Tensor, Tensor]:
    """Rotate q [T, H, P] and k [T, K, P]; signature of `reference.rope`."""
    total, _, width = q.shape
    _check("k", k, (total, k.shape[1], width))
    _check("positions", positions, (total,))
    if width % 2:
        raise ValueError(f"heads are {width} wide; rotary positions need an even width")
    exponent = torch.arange(0, width, 2, dtype=torch.float32, device="cpu") / width
    angle = positions.float()[:, None] * (1.0 / theta**exponent)  # [T, P/2]
    cos, sin = angle.cos(), angle.sin()
    return _Rope.apply(q, cos, sin), _Rope.apply(k, cos, sin)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: float, rows: int
    ) -> Tensor:
        ctx.scale, ctx.rows = scale, rows
        ctx.precision = torch.get_float32_matmul_precision()
        losses, lse = new_empty(hidden.shape[0]), new_empty(hidden.shape[0])
        ctx.save_for_backward(hidden, weight, targets, lse)
        # One block of logits, reused: fresh memory would cost more than the product.
        block = new_empty(min(rows, hidden.shape[0]), weight.shape[0])
        for at in range(0, hidden.shape[0], rows):
            h = hidden[at : at + rows]
            logits = cpu_products.mm(h, weight.t(), block[: h.shape[0]])
            _rust.train_cross_entropy_forward(
                torch.get_num_threads(),
                tuple(logits.shape),
                _at(logits),
                _at(targets[at:]),
                scale,
                [_at(losses[at:]), _at(lse[at:])],
            )
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dlosses: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, lse = ctx.saved_tensors
        dlosses = dlosses.contiguous()
        dhidden, dweight = new_empty(hidden.shape), new_zeros(weight.shape)
        block = new_empty(min(ctx.rows, hidden.shape[0]), weight.shape[0])
        for at in range(0, hidden.shape[0], ctx.rows):
            h = hidden[at : at + ctx.rows]
            with matmul_precision(ctx.precision):  # the very logits that `lse` is of
                logits = cpu_products.mm(h, weight.t(), block[: h.shape[0]])
            _rust.train_cross_entropy_backward(
                torch.get_num_threads(),
                tuple(logits.shape),
                _at(logits),
                _at(targets[at:]),
                ctx.scale,
                [_at(lse[at:]), _at(dlosses[at:])],
            )
            cpu_products.mm(logits, weight, dhidden[at : at + ctx.rows])
            cpu_products.mm(logits.t(), h, dweight, add=True)
        return dhidden, dweight, None, None, None


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, scale: float = 1.0, rows: int = 512
) -> Tensor:
    """Per-token cross entropy [T]; rows whose target is -100 cost nothing and lose nothing.

    Signature of `reference.linear_cross_entropy`; at most `rows` rows of logits exist at a time.
    """
    total, vocabulary = hidden.shape[0], weight.shape[0]
    _check("weight", weight, (vocabulary, hidden.shape[1]))
    _check("targets", targets, (total,))
    targets = targets.long()
    wanted = targets != _IGNORED
    chosen = None if bool(wanted.all()) else wanted.nonzero()[:, 0]
    if chosen is not None:
        hidden, targets = hidden[chosen], targets[chosen]
    targets = targets.contiguous()
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < vocabulary:
        raise IndexError(f"a target lies outside the vocabulary of {vocabulary}")
    # oneDNN keeps what it compiles for each shape: a new number of rows every step would grow a
    # bfloat16 run by 2 MB a step. So rows come in multiples, and the padding's losses are dropped.
    count = targets.numel()
    padding = -count % _ROW_MULTIPLE
    hidden, targets = F.pad(hidden, (0, 0, 0, padding)), F.pad(targets, (0, padding))
    losses: Tensor = _CrossEntropy.apply(hidden, weight, targets, scale, rows)[:count]
    return losses if chosen is None else losses.new_zeros(total).index_put((chosen,), losses)
