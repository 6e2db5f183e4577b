"""Linear with its multiplier as an epilogue, the norm, and the gated MLP.

Legend: T packed tokens, D model width, F mlp width.
"""

import torch
from torch import Tensor, nn

from falcon_h1r import ops
from falcon_h1r.model.config import FalconH1Config

_Scale = Tensor | float | None


class Linear(nn.Linear):
    """A projection whose muP multiplier is part of the product: y = (x W^T) * scale + bias * after.

    `scale` multiplies the product and is what stands before and after the projection together;
    `after` is the part that stands after it, and so scales the bias too.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool,
        before: float = 1.0,
        after: Tensor | float = 1.0,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.before, self.after = before, after
        self._epilogues: dict[tuple[torch.device, torch.dtype], tuple[_Scale, _Scale]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Project x [T, in] to [T, out]."""
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        key = (x.device, dtype)
        if key not in self._epilogues:
            with torch.inference_mode(False):  # the trainer may use what generation made first
                self._epilogues[key] = self._epilogue(x.device, dtype)
        scale, after = self._epilogues[key]
        bias: Tensor | None = self.bias
        if bias is not None and after is not None:
            bias = (bias * after).to(bias.dtype)
        return ops.linear(x, self.weight, bias, scale)

    def scale(self) -> Tensor:
        """Return the factor of the product, float32 [1] or [out] on the CPU."""
        factor = torch.as_tensor(self.after, dtype=torch.float64, device="cpu") * self.before
        return factor.to(torch.float32).reshape(-1)

    def _epilogue(self, device: torch.device, dtype: torch.dtype) -> tuple[_Scale, _Scale]:
        """Return (scale, after), None where they are 1; never rounded to 16 bits by a cast."""
        if isinstance(self.after, Tensor):
            after = self.after.to(device, dtype)
            return (self.after * self.before).to(device, dtype), after
        scale = self.after * self.before
        return (None if scale == 1.0 else scale), (None if self.after == 1.0 else self.after)


class RMSNorm(nn.Module):
    """RMS norm with a learnt weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [T, D]."""
        return ops.rms_norm(x, self.weight, self.eps)


class FalconH1MLP(nn.Module):
    """down(silu(gate(x) * g) * up(x)) * d, with g and d of `mlp_multipliers`."""

    def __init__(self, config: FalconH1Config) -> None:
        super().__init__()
        width, hidden, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        gate, down = config.mlp_multipliers
        self.gate_proj = Linear(width, hidden, bias, after=gate)
        self.up_proj = Linear(width, hidden, bias)
        self.down_proj = Linear(hidden, width, bias, after=down)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [T, D] to [T, D]."""
        out: Tensor = self.down_proj(ops.swiglu(self.gate_proj(x), self.up_proj(x)))
        return out
