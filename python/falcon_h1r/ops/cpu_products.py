"""Products of training on the CPU: float32 tensors, operands rounded to bfloat16 where asked for.

torch rounds operands so under `torch.set_float32_matmul_precision("medium")`. With AMX that is
fast; with AVX512-BF16 alone a kernel of ours is two to three times as fast as what torch calls, so
it stands in there and nowhere else. Any other precision is torch's, to the bit.

Legend: T rows (tokens), K inputs, N outputs; m, k, n of a product.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from falcon_h1r import _rust


def _is_suited() -> bool:
    """Return whether this CPU has what the kernel is for: AVX512-BF16, no AMX."""
    return _rust.kernel_paths()[1] == "avx512_bf16"


_IS_SUITED = _is_suited()


def is_served(x: Tensor, weight: Tensor) -> bool:
    """Return whether `linear` may be called: a suited CPU, float32 on it, no autocast."""
    return (
        _IS_SUITED
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
    )


def is_rounded() -> bool:
    """Return whether products asked for now have operands in bfloat16, by the kernel."""
    return _IS_SUITED and torch.get_float32_matmul_precision() == "medium"


def _operand(matrix: Tensor) -> Tensor:
    """Return the matrix with elements beside each other in rows or in columns."""
    return matrix if 1 in matrix.stride() else matrix.contiguous()


def _rounded(a: Tensor, b: Tensor, out: Tensor, add: bool) -> Tensor:
    a, b = _operand(a), _operand(b)
    _rust.train_matmul(
        torch.get_num_threads(),
        [a.shape[0], b.shape[1], a.shape[1]],
        [a.data_ptr(), *a.stride()],
        [b.data_ptr(), *b.stride()],
        out.data_ptr(),
        out.stride(0),
        add,
    )
    return out


def mm(a: Tensor, b: Tensor, out: Tensor, add: bool = False) -> Tensor:
    """Write a [m, k] b [k, n] to `out` [m, n], or add it; all float32 on the CPU, no gradients.

    `out` has contiguous rows and shares no memory with a and b.
    """
    if is_rounded():
        if a.shape[1] != b.shape[0] or out.shape != (a.shape[0], b.shape[1]):
            raise ValueError(f"{a.shape} times {b.shape} does not give {out.shape}")
        if out.stride(1) != 1:
            raise ValueError("out must have contiguous rows")
        return _rounded(a, b, out, add)
    return out.addmm_(a, b) if add else torch.mm(a, b, out=out)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        if is_rounded():
            return mm(x, weight.t(), x.new_empty(x.shape[0], weight.shape[0]))
        return F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        # The precision of now: gradients may be asked for in another one than the forward was.
        x, weight = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad
        if torch.is_grad_enabled() or not is_rounded():  # the first: a second derivative follows
            return dy.mm(weight) if needs_x else None, dy.t().mm(x) if needs_weight else None
        dx = mm(dy, weight, x.new_empty(x.shape)) if needs_x else None
        dweight = mm(dy.t(), x, x.new_empty(weight.shape)) if needs_weight else None
        return dx, dweight


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return x [.., K] times weight [N, K] transposed, [.., N], with gradients.

    Raises ValueError for shapes that do not fit.
    """
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(f"x has {x.shape[-1]} columns; a weight of {tuple(weight.shape)} does not")
    y: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), weight)
    return y.view(*x.shape[:-1], weight.shape[0])
