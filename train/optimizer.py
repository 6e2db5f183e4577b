"""Muon on matrices, AdamW on the rest.

Muon (Jordan 2024): momentum, then the nearest orthogonal matrix by Newton-Schulz iterations.
Matrices of one shape are orthogonalised together.
"""

from collections import defaultdict

import torch
from torch import Tensor, nn

_A, _B, _C = 3.4445, -4.7750, 2.0315
"""Quintic whose iteration drives singular values to about 1 (Jordan 2024)."""


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Drive all singular values of matrices [n, rows, columns] towards 1, in bfloat16."""
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * (gram @ gram)) @ x
    out: Tensor = (x.mT if tall else x).to(matrices.dtype)
    return out


class MuonAdamW:
    """Both optimizers behind one `step(scale)`; the state is a flat dict of named tensors."""

    def __init__(
        self,
        model: nn.Module,
        *,
        muon_lr: float,
        adam_lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
    ) -> None:
        self.muon_lr, self.adam_lr, self.weight_decay = muon_lr, adam_lr, weight_decay
        self.momentum, self.betas = momentum, betas
        self.parameters = dict(model.named_parameters())
        self.matrices: dict[tuple[int, ...], list[str]] = defaultdict(list)
        self.others: list[str] = []
        self.state: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            if parameter.ndim == 2 and "embed" not in name and "lm_head" not in name:
                self.matrices[tuple(parameter.shape)].append(name)
                self.state[f"{name}.momentum"] = torch.zeros_like(parameter)
            else:
                self.others.append(name)
                self.state[f"{name}.mean"] = torch.zeros_like(parameter)
                self.state[f"{name}.square"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, scale: float, step: int) -> None:
        """Apply one update with the learning rates times `scale`; `step` counts from 0."""
        for (rows, columns), names in self.matrices.items():
            updates = []
            for name in names:
                gradient = self._gradient(name)
                momentum = self.state[f"{name}.momentum"]
                momentum.lerp_(gradient, 1 - self.momentum)
                updates.append(gradient.lerp(momentum, self.momentum))
            lr = self.muon_lr * scale
            for name, update in zip(names, orthogonalize(torch.stack(updates)), strict=True):
                self.parameters[name].mul_(1 - lr * self.weight_decay)
                self.parameters[name].add_(update, alpha=-lr * max(1.0, rows / columns) ** 0.5)
        first, second = self.betas
        lr = self.adam_lr * scale
        for name in self.others:
            gradient = self._gradient(name)
            mean, square = self.state[f"{name}.mean"], self.state[f"{name}.square"]
            mean.lerp_(gradient, 1 - first)
            square.lerp_(gradient.square(), 1 - second)
            denominator = (square / (1 - second ** (step + 1))).sqrt_().add_(1e-10)
            self.parameters[name].addcdiv_(mean / (1 - first ** (step + 1)), denominator, value=-lr)

    def _gradient(self, name: str) -> Tensor:
        gradient = self.parameters[name].grad
        assert gradient is not None, name
        return gradient

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take over the tensors of a checkpoint; names and shapes must be these."""
        for name, tensor in self.state.items():
            tensor.copy_(state[name])
