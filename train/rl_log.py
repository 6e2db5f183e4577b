"""What a run of PPO or GRPO tells of a step: its line in the log, and what goes into it.

Legend: N response tokens of a batch.
"""

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from falcon_h1r.errors import TrainingError
from falcon_h1r.train.loop import MetricsLog, Progress
from falcon_h1r.train.rewards import TERMS
from falcon_h1r.train.rollouts import Group

if TYPE_CHECKING:
    from falcon_h1r.train.rl import RlRun

Metrics = dict[str, float]


_MISMATCH = (
    "mismatch_kl",
    "sampling/sampling_logp_difference/mean",
    "sampling/sampling_logp_difference/max",
    "sampling/importance_sampling_ratio/min",
    "sampling/importance_sampling_ratio/mean",
    "sampling/importance_sampling_ratio/max",
)


class StepLog:
    """Writes each step's line, reports progress, and saves when it is time."""

    def __init__(self, run: "RlRun", metrics: MetricsLog) -> None:
        self.run, self.metrics = run, metrics
        self.progress = Progress(run.report, run.recipe.optimizer.steps)
        self.last_save, self.saved_step = time.monotonic(), run.step
        self.non_finite = 0

    def end_step(self, line: Metrics, drawn: Sequence[Group], began: float, sampled: float) -> None:
        """Log the step that has just ended; `began` and `sampled` are its times.

        Raises TrainingError after `max_non_finite` steps in a row whose loss or gradient norm was
        not finite.
        """
        run, recipe = self.run, self.run.recipe
        finite = math.isfinite(line["loss"]) and math.isfinite(line["grad_norm"])
        self.non_finite = 0 if finite else self.non_finite + 1
        if self.non_finite >= recipe.max_non_finite:
            raise TrainingError(
                f"{self.non_finite} steps in a row had a non-finite loss (step {run.step - 1}); "
                "lower optimizer.adam_lr and resume"
            )
        now = time.monotonic()
        run.seconds += now - began
        count = sum(len(r.token_ids) for g in drawn for r in g.rollouts)
        run.num_tokens += count
        line = line | {"num_tokens": float(run.num_tokens), "skipped": float(run.skipped),
                       "step_time": now - began, "rollout_time": sampled - began,
                       "train_time": now - sampled, "seconds": run.seconds}  # fmt: skip
        every = recipe.evaluate_every
        if every and (run.step % every == 0 or run.step == recipe.optimizer.steps):
            line |= {f"eval/{name}": share for name, share in run.evaluate().items()}
        self.metrics.write(run.step - 1, line)
        right = line["rewards/correctness/mean"]
        self.progress.update(run.step, count, f"reward {line['reward']:.3f} right {right:.3f}")
        if now - self.last_save > recipe.checkpoint_seconds:
            self.save()

    def save(self) -> None:
        """Write a checkpoint of this moment unless there is one."""
        if self.saved_step != self.run.step:
            self.metrics.sync()
            self.run.save()
            self.last_save, self.saved_step = time.monotonic(), self.run.step


class Tally:
    """Sums of a step's metrics: means over tokens, and plain sums over the parts of updates."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}
        self.norms: list[float] = []
        """Of the updates that were applied, or skipped for a NaN."""
        self.num_minibatches = 0
        """Begun; one that is given up before its update has left its sums here too."""

    def add(self, name: str, value: float, weight: float) -> None:
        """Add a mean over `weight` things."""
        entry = self.sums.setdefault(name, [0.0, 0.0])
        entry[0] += value * weight
        entry[1] += weight

    def add_tokens(self, name: str, values: Tensor) -> None:
        """Add one value a token [N]."""
        self.add(name, values.detach().mean().item(), values.numel())

    def add_sum(self, name: str, value: float) -> None:
        """Add a part of a minibatch's sum; `means` gives the mean over the minibatches."""
        self.sums.setdefault(name, [0.0, 0.0])[0] += value

    def norm(self) -> float:
        """The largest gradient norm of the step's updates; NaN if one was."""
        return torch.tensor([0.0, *self.norms]).max().item()

    def means(self) -> Metrics:
        """Every metric."""
        count = max(1, self.num_minibatches)
        return {name: total / (weight or count) for name, (total, weight) in self.sums.items()}


def mismatch(logprobs: Tensor, old_logprobs: Tensor) -> Metrics:
    """How far the trainer's log-probabilities [N] are from those of the engine, same weights.

    `mismatch_kl` is the k3 estimate of KL(engine || trainer); the others have TRL's names. All are
    NaN, null in the log, where there is no token to measure.
    """
    if not logprobs.numel():
        return dict.fromkeys(_MISMATCH, math.nan)
    difference = (logprobs - old_logprobs).double()
    ratio = difference.exp()
    values = (
        (torch.expm1(difference) - difference).mean(),
        difference.abs().mean(),
        difference.abs().max(),
        ratio.min(),
        ratio.mean(),
        ratio.max(),
    )
    return {name: value.item() for name, value in zip(_MISMATCH, values, strict=True)}


def rollout_metrics(chosen: Sequence[Group], drawn: Sequence[Group], run: "RlRun") -> Metrics:
    """What TRL logs of a step's rollouts, under its names.

    Of all that were drawn, with or without an advantage; of those left over where none was.
    """
    weights = run.recipe.reward
    groups = drawn or chosen
    rollouts = [r for group in groups for r in group.rollouts]
    lengths = torch.tensor([len(r.token_ids) for r in rollouts], dtype=torch.float64)
    ended = torch.tensor([r.ended for r in rollouts])
    rewards = torch.tensor([group.rewards(weights) for group in groups], dtype=torch.float64)
    metrics = {
        "completions/mean_length": lengths.mean().item(),
        "completions/min_length": lengths.min().item(),
        "completions/max_length": lengths.max().item(),
        "completions/clipped_ratio": 1.0 - ended.double().mean().item(),
        "reward": rewards.mean().item(),
        "reward_std": rewards.std(1).mean().item() if rewards.shape[1] > 1 else 0.0,
        "frac_reward_zero_std": sum(not g.has_advantage(weights) for g in groups) / len(groups),
        "entropy": sum(r.entropy for r in rollouts) / len(rollouts),
        "prompts_drawn": float(len(drawn)),
        "groups_kept": float(len(run.supply.kept)),
    }
    if ended.any():
        metrics["completions/mean_terminated_length"] = lengths[ended].mean().item()
    for name in TERMS:
        values = torch.tensor([getattr(r.terms, name) for r in rollouts], dtype=torch.float64)
        metrics[f"rewards/{name}/mean"] = values.mean().item()
        metrics[f"rewards/{name}/std"] = values.std().item() if len(values) > 1 else 0.0
    return metrics
