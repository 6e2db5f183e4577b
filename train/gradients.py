"""All gradients of a step in one flat buffer, with the step's sums behind them.

One buffer makes accumulation, the sum over processes, the norm and clipping one operation each.

Legend: F all trainable elements.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from falcon_h1r.train.distributed import Group
from falcon_h1r.train.optimizer import AdamW


class FlatGradients:
    """Gradients in the precision of the masters, summed over micro-batches and processes.

    Parameters in float32 or float64 accumulate in place: their `grad` is a view of the buffer.
    Those of half precision are added to it in float32 as soon as each is complete.
    """

    def __init__(self, optimizer: AdamW, num_sums: int = 0) -> None:
        self.parameters = optimizer.parameters
        masters = optimizer.masters
        count = sum(m.numel() for m in masters.values())
        first = next(iter(masters.values()))
        self.buffer = torch.zeros(count + num_sums, dtype=first.dtype, device=first.device)
        self.flat, self.sums = self.buffer[:count], self.buffer[count:]  # [F], [num_sums]
        self.by_name: dict[str, Tensor] = {}
        at = 0
        for name, master in masters.items():
            self.by_name[name] = self.flat[at : at + master.numel()].view(master.shape)
            at += master.numel()
            if f"{name}.master" in optimizer.state:
                hook = self._adder(name)
                self.parameters[name].register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

    def _adder(self, name: str) -> Callable[[Tensor], None]:
        def add(parameter: Tensor) -> None:
            assert parameter.grad is not None
            self.by_name[name].add_(parameter.grad)
            parameter.grad = None

        return add

    def zero(self) -> None:
        """Start a step."""
        self.buffer.zero_()
        for name, parameter in self.parameters.items():
            is_own_master = parameter.dtype == self.flat.dtype
            parameter.grad = self.by_name[name] if is_own_master else None

    def sum(self, group: Group) -> list[float]:
        """Sum gradients and sums over the processes in one go; return the sums."""
        group.sum(self.buffer)
        sums: list[float] = self.sums.tolist()
        return sums

    def clip(self, max_norm: float) -> float:
        """Shorten to `max_norm` where longer, as torch's `clip_grad_norm_` does to the bit.

        Returns the norm before that; where it is not finite, neither are the gradients after.
        """
        norm = nn.utils.get_total_norm(self.by_name.values())
        self.flat.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm.item()

    def average_and_clip(self, count: float, max_norm: float) -> float:
        """Divide by `count`, shorten to `max_norm` where longer; return the norm before that."""
        norm = float(torch.linalg.vector_norm(self.flat)) / count
        self.flat.mul_(min(1.0, max_norm / (norm + 1e-6)) / count)
        return norm
