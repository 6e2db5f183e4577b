"""GRPO: groups of rollouts by the live weights, group-relative advantages, one clipped update.

The loop reads top to bottom in `GrpoRun.train`. Everything a step depends on is in the checkpoint:
weights, optimizer state, the step, the next prompt, and the groups kept for later.

Legend: S sequences of a step, N response tokens laid end to end, D model
width, P prompts, G rollouts a prompt.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from falcon_h1r.model.cache import on_device
from falcon_h1r.train import losses
from falcon_h1r.train.advantages import branch_advantages, group_advantages
from falcon_h1r.train.loop import Report
from falcon_h1r.train.recipe_rl import GrpoRecipe
from falcon_h1r.train.responses import Packed, by_sequence, response_hidden
from falcon_h1r.train.rl import RlRun, prepare, run_to_the_end
from falcon_h1r.train.rl_log import Metrics, Tally, mismatch, rollout_metrics
from falcon_h1r.train.rollouts import Group
from falcon_h1r.train.supply import collect


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """What the loss needs of each response token of a packed part, all [N]."""

    start_logprobs: Tensor
    """By the weights at the start of the step."""
    old_logprobs: Tensor
    """Of the distribution sampled from, by the engine."""
    advantages: Tensor
    is_right: Tensor
    weights: Tensor


class GrpoRun(RlRun):
    """A run by a `GrpoRecipe`."""

    recipe: GrpoRecipe
    method = "grpo"

    def __init__(self, recipe: GrpoRecipe, output: Path, report: Report) -> None:
        super().__init__(recipe, output, report)
        self.reference = self.frozen_start() if recipe.loss.kl_coef else None

    def train(self, stop: threading.Event) -> None:
        """Run until the last step or until `stop`; always ends with a checkpoint."""
        rollout, weights = self.recipe.rollout, self.recipe.reward
        with self.log() as log:
            while self.step < self.recipe.optimizer.steps and not stop.is_set():
                began = time.monotonic()
                groups, drawn = collect(
                    self.supply,
                    self.sample,
                    lambda group: group.has_advantage(weights),
                    version=self.step,
                    num_prompts=rollout.num_prompts,
                    max_prompts=rollout.max_prompts,
                    max_kept=rollout.max_kept,
                    max_staleness=rollout.max_staleness,
                )
                sampled = time.monotonic()
                line = self.update(groups) if groups else self.nothing_learnt()
                self.step += 1
                self.engine.update_weights(self.step)
                line = line | rollout_metrics(groups, drawn, self)
                log.end_step(line, drawn, began, sampled)

    def nothing_learnt(self) -> Metrics:
        """The metrics of a step for which no group had an advantage."""
        line = {"loss": 0.0, "grad_norm": 0.0, "learning_rate": self.rate()}
        return line | mismatch(torch.empty(0), torch.empty(0))

    def update(self, groups: Sequence[Group]) -> Metrics:
        """Learn from groups: `epochs` passes of `minibatches` updates each; return the metrics."""
        recipe = self.recipe
        sequences = [(g.prompt_ids, r.token_ids) for g in groups for r in g.rollouts]
        old = [torch.tensor(r.old_logprobs) for g in groups for r in g.rollouts]
        rewards = torch.tensor([g.rewards(recipe.reward) for g in groups])  # [P, G]
        advantages = self.advantages(groups, rewards)
        is_right = torch.tensor([r.is_right for g in groups for r in g.rollouts])
        lengths = torch.tensor([len(response) for _, response in sequences])
        once = recipe.epochs * recipe.minibatches == 1
        start = [] if once else self.start_logprobs(sequences)
        tally = Tally()
        for chosen in self.minibatches(len(sequences)):
            self.gradients.zero()
            tally.num_minibatches += 1
            flat = losses.token_weights(
                lengths[chosen], recipe.loss.aggregation, recipe.rollout.max_tokens
            )
            weights = by_sequence(flat, lengths[chosen])
            for run, part, packed in self.parts(sequences, chosen):
                hidden = response_hidden(self.model, packed)
                logprobs = self.checked_logprobs(hidden, packed)
                if once:  # the weights have not changed yet: these are the start's
                    start += by_sequence(logprobs.detach().cpu(), packed.response_lengths)
                tokens = Tokens(
                    start_logprobs=torch.cat([start[i] for i in part]),
                    old_logprobs=torch.cat([old[i] for i in part]),
                    advantages=torch.cat([advantages[i] for i in part]),
                    is_right=packed.per_token(is_right[part]),
                    weights=torch.cat([weights[i] for i in run]),
                )
                loss = self.loss(packed, hidden, logprobs, on_device(tokens, self.device), tally)
                self.backward(loss)
                tally.add("fill", packed.fill, packed.input_ids.numel())
            tally.norms.append(self.apply_gradients())
        line = tally.means() | {"grad_norm": tally.norm(), "learning_rate": self.rate()}
        # Groups left over were sampled by other weights: theirs would be no mismatch.
        is_fresh = torch.tensor([g.version == self.step for g in groups for _ in g.rollouts])
        fresh = torch.repeat_interleave(is_fresh, lengths)  # [N]
        return line | mismatch(torch.cat(start)[fresh], torch.cat(old)[fresh])

    def advantages(self, groups: Sequence[Group], rewards: Tensor) -> list[Tensor]:
        """One [length] a sequence, of groups with rewards [P, G], as `loss.credit` says."""
        scaled = group_advantages(rewards, self.recipe.loss.scale_rewards)  # [P, G]
        made: list[Tensor] = []
        for group, row in zip(groups, scaled, strict=True):
            responses = [rollout.token_ids for rollout in group.rollouts]
            if self.recipe.loss.credit == "branch":
                made += branch_advantages(row, responses)
            else:
                made += [row[i].expand(len(each)) for i, each in enumerate(responses)]
        return made

    def loss(
        self, packed: Packed, hidden: Tensor, logprobs: Tensor, tokens: Tokens, tally: Tally
    ) -> Tensor:
        """Weighted sum of the token losses of one packed part with hidden [N, D], logprobs [N].

        J = min(r A, clip(r) A) min(pi_start / pi_old, cap) - kl_coef KL + ce_coef log pi [right]
        (the published recipe: arXiv 2601.02346 section 4; TIS as in verl).
        """
        recipe = self.recipe.loss
        clip = recipe.clip_low, recipe.clip_high
        correction = losses.truncated_importance_weights(
            tokens.start_logprobs, tokens.old_logprobs, recipe.tis_cap
        )
        policy = (
            losses.policy_loss(logprobs, tokens.start_logprobs, tokens.advantages, *clip)
            * correction
        )
        total = policy
        if self.reference is not None:
            kl = losses.kl(
                logprobs, self.reference_logprobs(self.reference, packed), recipe.kl_estimator
            )
            total = total + recipe.kl_coef * kl
            tally.add_tokens("kl", kl)
        if recipe.positive_ce_coef:
            positive = losses.positive_cross_entropy(logprobs, tokens.is_right)
            total = total + recipe.positive_ce_coef * positive
            tally.add_tokens("positive_ce", positive)
        if recipe.entropy_coef:
            entropy = self.entropy(hidden)
            total = total - recipe.entropy_coef * entropy
            tally.add_tokens("policy_entropy", entropy)
        loss = (tokens.weights * total).sum()
        low, high = losses.clipped_tokens(
            logprobs.detach(), tokens.start_logprobs, tokens.advantages, *clip
        )
        tally.add_tokens("clip_ratio/low_mean", low.float())
        tally.add_tokens("clip_ratio/high_mean", high.float())
        tally.add_tokens("clip_ratio/region_mean", (low | high).float())
        tally.add_sum("loss", loss.item())
        tally.add_sum("policy_loss", (tokens.weights * policy).sum().item())
        return loss


def run_grpo(
    recipe: str | Path,
    output: str | Path,
    overrides: Sequence[str] = (),
    *,
    fresh: bool = False,
    report: Report = print,
) -> Path | None:
    """Train by a recipe (name or path) in the folder `output`; the same call again resumes.

    Returns the folder `output/final` that `from_pretrained` loads, or None when it was interrupted
    (a checkpoint is there). Raises ConfigError for a bad recipe, TrainingError for damaged state
    and when sampling meets a NaN.
    """
    resolved = prepare(GrpoRecipe, recipe, Path(output), overrides, fresh)
    return run_to_the_end(GrpoRun, resolved, Path(output), report)
