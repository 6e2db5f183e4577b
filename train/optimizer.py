"""Muon on matrices and AdamW on the rest, or AdamW on all; master weights in float32.

Muon (Jordan 2024): momentum, then the nearest orthogonal matrix by Newton-Schulz iterations.
Matrices of one shape are orthogonalised together. AdamW: Loshchilov and Hutter 2019.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from falcon_h1r.errors import TrainingError
from falcon_h1r.train.config import require

_A, _B, _C = 3.4445, -4.7750, 2.0315
"""Quintic whose iteration drives singular values to about 1 (Jordan 2024)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerRecipe:
    """Which optimizer, and its learning rate at every step."""

    kind: Literal["muon", "adamw"] = "muon"
    """"muon": Muon on the matrices, AdamW on embedding, norms, convolution and state parameters;
    "adamw": AdamW on everything."""
    steps: int = 6000
    muon_lr: float = 0.02
    adam_lr: float = 3e-3
    beta1: float = 0.9
    beta2: float = 0.95
    warmup_steps: int = 50
    schedule: Literal["wsd", "linear"] = "wsd"
    """"wsd": warm up, stay, fall linearly from `decay_start` on; "linear": fall from the end of
    the warm-up on."""
    decay_start: float = 0.5
    """Share of the steps after which the learning rate falls; "wsd" only."""
    final_lr: float = 0.02
    """Share of the learning rate that the schedule falls to, one step after the last."""
    weight_decay: float = 0.01
    """Of matrices, times the learning rate; norms, biases and state parameters have none."""
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        require(self.steps > 0, "optimizer.steps", self.steps, "at least 1")
        require(self.warmup_steps >= 0, "optimizer.warmup_steps", self.warmup_steps, "0 or more")
        require(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "0 or more")
        for name in ("decay_start", "final_lr"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"optimizer.{name}", value, "in [0, 1]")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optimizer.{name}", value, "in [0, 1)")
        for name in ("muon_lr", "adam_lr", "max_grad_norm"):
            value = getattr(self, name)
            require(0 < value < float("inf"), f"optimizer.{name}", value, "positive and finite")

    def scale(self, step: int) -> float:
        """Share of the learning rate at a step counted from 0."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        is_linear = self.schedule == "linear"
        first = float(self.warmup_steps) if is_linear else self.decay_start * self.steps
        if step < first:
            return warm
        left = (self.steps - step) / max(1.0, self.steps - first)
        return warm * (self.final_lr + (1 - self.final_lr) * left)


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Drive all singular values of matrices [n, rows, columns] towards 1, in bfloat16."""
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = (x.mT if tall else x).contiguous()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        # A x + (B gram + C gram^2) x, the sums inside the products
        polynomial = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        x = torch.baddbmm(x, polynomial, x, beta=_A)
    out: Tensor = (x.mT if tall else x).to(matrices.dtype)
    return out


class AdamW:
    """AdamW over the trainable parameters; the state is a flat dict of named tensors.

    Parameters of half precision have a float32 master in the state, which takes the update and
    is rounded into the parameter; float32 and float64 parameters are their own master.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-10,
    ) -> None:
        self.adam_lr, self.weight_decay, self.betas, self.eps = lr, weight_decay, betas, eps
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.state: dict[str, Tensor] = {}
        self.masters: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            if parameter.dtype in (torch.float32, torch.float64):
                self.masters[name] = parameter.detach()
            else:
                self.masters[name] = self.state[f"{name}.master"] = parameter.detach().float()
        self.others: list[str] = []
        for name in self.parameters:
            self._prepare(name)

    def _prepare(self, name: str) -> None:
        """Make the state of one parameter."""
        self.others.append(name)
        for moment in ("mean", "square"):
            self.state[f"{name}.{moment}"] = torch.zeros_like(self.masters[name])

    @torch.no_grad()
    def step(self, scale: float, step: int, gradients: Mapping[str, Tensor] | None = None) -> None:
        """Apply one update with the learning rates times `scale`; `step` counts from 0.

        The gradients are the parameters' own unless a mapping by name is given.
        """
        self._update(scale, step, self.gradients() if gradients is None else gradients)
        for name, parameter in self.parameters.items():
            if f"{name}.master" in self.state:
                parameter.copy_(self.masters[name])

    def _update(self, scale: float, step: int, gradients: Mapping[str, Tensor]) -> None:
        first, second = self.betas
        lr = self.adam_lr * scale
        for name in self.others:
            gradient, master = gradients[name], self.masters[name]
            mean, square = self.state[f"{name}.mean"], self.state[f"{name}.square"]
            mean.lerp_(gradient, 1 - first)
            square.lerp_(gradient.square(), 1 - second)
            denominator = (square / (1 - second ** (step + 1))).sqrt_().add_(self.eps)
            if self._decays(name):
                master.mul_(1 - lr * self.weight_decay)
            master.addcdiv_(mean / (1 - first ** (step + 1)), denominator, value=-lr)

    def _decays(self, name: str) -> bool:
        return self.parameters[name].ndim == 2 and self.weight_decay > 0

    def gradients(self) -> dict[str, Tensor]:
        """Each parameter's gradient in its master's precision."""
        return {name: self._gradient(name) for name in self.parameters}

    def _gradient(self, name: str) -> Tensor:
        gradient = self.parameters[name].grad
        assert gradient is not None, name
        return gradient.to(self.masters[name].dtype)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over the tensors of a checkpoint; TrainingError when names or shapes differ."""
        for name, tensor in self.state.items():
            if name not in state or state[name].shape != tensor.shape:
                found = tuple(state[name].shape) if name in state else "missing"
                raise TrainingError(
                    f"optimizer tensor {name} of the checkpoint is {found}; this recipe needs "
                    f"{tuple(tensor.shape)}; use the recipe it was saved with, or --fresh"
                )
        if surplus := sorted(state.keys() - self.state.keys()):
            raise TrainingError(
                f"the checkpoint has an optimizer tensor {surplus[0]}, which this recipe has no "
                "use for; use the recipe it was saved with, or --fresh"
            )
        for name, tensor in self.state.items():
            tensor.copy_(state[name])


class MuonAdamW(AdamW):
    """Muon on the matrices but embedding and head, AdamW on the rest."""

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
        self.muon_lr, self.momentum = muon_lr, momentum
        self.matrices: dict[tuple[int, ...], list[str]] = defaultdict(list)
        super().__init__(model, lr=adam_lr, weight_decay=weight_decay, betas=betas)

    def _prepare(self, name: str) -> None:
        parameter = self.parameters[name]
        if parameter.ndim == 2 and "embed" not in name and "lm_head" not in name:
            self.matrices[tuple(parameter.shape)].append(name)
            self.state[f"{name}.momentum"] = torch.zeros_like(self.masters[name])
        else:
            super()._prepare(name)

    def _decays(self, name: str) -> bool:
        return False

    def _update(self, scale: float, step: int, gradients: Mapping[str, Tensor]) -> None:
        lr = self.muon_lr * scale
        for (rows, columns), names in self.matrices.items():
            updates = []
            for name in names:
                momentum = self.state[f"{name}.momentum"]
                momentum.lerp_(gradients[name], 1 - self.momentum)
                updates.append(gradients[name].lerp(momentum, self.momentum))
            for name, update in zip(names, orthogonalize(torch.stack(updates)), strict=True):
                self.masters[name].mul_(1 - lr * self.weight_decay)
                self.masters[name].add_(update, alpha=-lr * max(1.0, rows / columns) ** 0.5)
        super()._update(scale, step, gradients)


def make_optimizer(model: nn.Module, recipe: OptimizerRecipe) -> AdamW:
    """The recipe's optimizer over the model's trainable parameters."""
    betas = (recipe.beta1, recipe.beta2)
    if recipe.kind == "adamw":
        return AdamW(model, lr=recipe.adam_lr, weight_decay=recipe.weight_decay, betas=betas)
    return MuonAdamW(
        model,
        muon_lr=recipe.muon_lr,
        adam_lr=recipe.adam_lr,
        weight_decay=recipe.weight_decay,
        betas=betas,
    )
