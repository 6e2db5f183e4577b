"""PPO: a value head, generalised advantages, KL to the start, several clipped updates a step.

The loop reads top to bottom in `PpoRun.train`. Everything a step depends on is in the checkpoint:
weights and value head, optimizer state, the step, and the next prompt.

Legend: S sequences of a step, N response tokens laid end to end, D model width.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from falcon_h1r.model.cache import on_device
from falcon_h1r.train import losses
from falcon_h1r.train.advantages import gae, whiten
from falcon_h1r.train.loop import Report
from falcon_h1r.train.recipe_rl import PpoRecipe
from falcon_h1r.train.responses import Pairs, by_sequence, response_hidden
from falcon_h1r.train.rl import RlRun, prepare, run_to_the_end
from falcon_h1r.train.rl_log import Metrics, Tally, mismatch, rollout_metrics
from falcon_h1r.train.rollouts import Group
from falcon_h1r.train.supply import collect


class ActorCritic(nn.Module):
    """The policy, and a value read off the hidden state before each token."""

    def __init__(self, policy: nn.Module, width: int) -> None:
        super().__init__()
        self.policy = policy
        self.value = nn.Linear(width, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)


@dataclass(frozen=True, slots=True)
class Start:
    """What the weights at the start of a step say of its rollouts, a tensor a sequence."""

    logprobs: list[Tensor]
    values: list[Tensor]
    ref_logprobs: list[Tensor] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """What the loss needs of each response token of a packed part, all [N]."""

    start_logprobs: Tensor
    """By the weights at the start of the step."""
    old_logprobs: Tensor
    """Of the distribution sampled from, by the engine."""
    start_values: Tensor
    advantages: Tensor
    returns: Tensor
    weights: Tensor


class PpoRun(RlRun):
    """A run by a `PpoRecipe`."""

    recipe: PpoRecipe
    method = "ppo"

    def __init__(self, recipe: PpoRecipe, output: Path, report: Report) -> None:
        super().__init__(recipe, output, report)
        self.reference = self.frozen_start() if recipe.loss.kl_coef else None

    def learnt_module(self) -> nn.Module:
        """Policy and value head."""
        self.critic = ActorCritic(self.model, self.model.config.hidden_size).to(self.device)
        return self.critic

    def train(self, stop: threading.Event) -> None:
        """Run until the last step or until `stop`; always ends with a checkpoint."""
        rollout = self.recipe.rollout
        with self.log() as log:
            while self.step < self.recipe.optimizer.steps and not stop.is_set():
                began = time.monotonic()
                groups, drawn = collect(
                    self.supply,
                    self.sample,
                    lambda group: True,  # a value tells good from bad without a group
                    version=self.step,
                    num_prompts=rollout.num_prompts,
                    max_prompts=rollout.num_prompts,
                    max_kept=0,
                    max_staleness=0,
                )
                sampled = time.monotonic()
                line = self.update(groups)
                self.step += 1
                self.engine.update_weights(self.step)
                line |= rollout_metrics(groups, drawn, self)
                log.end_step(line, drawn, began, sampled)

    def update(self, groups: Sequence[Group]) -> Metrics:
        """Learn from groups: `epochs` passes of `minibatches` updates, fewer when the KL runs off.

        Returns the metrics.
        """
        recipe, loss_recipe = self.recipe, self.recipe.loss
        sequences = [(g.prompt_ids, r.token_ids) for g in groups for r in g.rollouts]
        scores = torch.tensor([s for g in groups for s in g.rewards(recipe.reward)])
        old = [torch.tensor(r.old_logprobs) for g in groups for r in g.rollouts]
        lengths = torch.tensor([len(response) for _, response in sequences])
        start = self.start_of(sequences)
        rewards = self.token_rewards(scores, lengths, start)
        bounds = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
        raw, returns_flat = gae(
            torch.cat(rewards), torch.cat(start.values), bounds, loss_recipe.gamma, loss_recipe.lam
        )
        advantages, returns = by_sequence(whiten(raw), lengths), by_sequence(returns_flat, lengths)
        tally = Tally()
        stopped = False
        for chosen in self.minibatches(len(sequences)):
            self.gradients.zero()
            tally.num_minibatches += 1
            weights = by_sequence(losses.token_weights(lengths[chosen], "token"), lengths[chosen])
            approx_kl = 0.0
            for run, part, packed in self.parts(sequences, chosen):
                hidden = response_hidden(self.model, packed)
                tokens = Tokens(
                    start_logprobs=torch.cat([start.logprobs[i] for i in part]),
                    old_logprobs=torch.cat([old[i] for i in part]),
                    start_values=torch.cat([start.values[i] for i in part]),
                    advantages=torch.cat([advantages[i] for i in part]),
                    returns=torch.cat([returns[i] for i in part]),
                    weights=torch.cat([weights[i] for i in run]),
                )
                logprobs = self.checked_logprobs(hidden, packed)
                loss, drift = self.loss(hidden, logprobs, on_device(tokens, self.device), tally)
                self.backward(loss)
                approx_kl += drift
            if approx_kl > loss_recipe.target_kl:
                stopped = True
                break
            tally.norms.append(self.apply_gradients())
        line = tally.means() | mismatch(torch.cat(start.logprobs), torch.cat(old))
        non_score = torch.cat(rewards).sum().item() / len(sequences) - scores.mean().item()
        return line | {
            "objective/scores": scores.mean().item(),
            "objective/non_score_reward": non_score,
            "objective/rlhf_reward": scores.mean().item() + non_score,
            "objective/kl": self.reference_kl(start, len(sequences)),
            "val/explained_variance": explained_variance(torch.cat(start.values), returns_flat),
            "grad_norm": tally.norm(),
            "num_updates": float(len(tally.norms)),
            "stopped_by_kl": float(stopped),
            "lr": self.rate(),
            "episode": float((self.step + 1) * len(sequences)),
        }

    @torch.no_grad()
    def start_of(self, sequences: Pairs) -> Start:
        """Log-probabilities, values and the reference's log-probabilities before any update."""
        logprobs: list[Tensor] = []
        values: list[Tensor] = []
        ref_logprobs: list[Tensor] = []
        for _, _, packed in self.parts(sequences, range(len(sequences))):
            lengths = packed.response_lengths
            hidden = response_hidden(self.model, packed)
            logprobs += by_sequence(self.checked_logprobs(hidden, packed).cpu(), lengths)
            values += by_sequence(self.values(hidden).cpu(), lengths)
            if self.reference is not None:
                of_reference = self.reference_logprobs(self.reference, packed)
                ref_logprobs += by_sequence(of_reference.cpu(), lengths)
        return Start(logprobs, values, ref_logprobs or None)

    def values(self, hidden: Tensor) -> Tensor:
        """Values [N] of hidden states [N, D]."""
        head = self.critic.value
        return (hidden.float() @ head.weight.float().t() + head.bias.float())[:, 0]

    def token_rewards(self, scores: Tensor, lengths: Tensor, start: Start) -> list[Tensor]:
        """-kl_coef KL_t at every token, and the score [S] at the last (as in TRL's PPO)."""
        recipe = self.recipe.loss
        out = []
        for i, (score, length) in enumerate(zip(scores, lengths.tolist(), strict=True)):
            rewards = torch.zeros(length)
            if start.ref_logprobs is not None:
                kl = losses.kl(start.logprobs[i], start.ref_logprobs[i], recipe.kl_estimator)
                rewards -= recipe.kl_coef * kl
            rewards[-1] += score
            out.append(rewards)
        return out

    def reference_kl(self, start: Start, count: int) -> float:
        """KL to the run's start, summed over a response's tokens, the mean over responses."""
        if start.ref_logprobs is None:
            return 0.0
        return (torch.cat(start.logprobs) - torch.cat(start.ref_logprobs)).sum().item() / count

    def loss(
        self, hidden: Tensor, logprobs: Tensor, tokens: Tokens, tally: Tally
    ) -> tuple[Tensor, float]:
        """Return (weighted loss, this part of the k2 estimate of KL(start || now)); tensors [N].

        L = -min(r A, clip(r) A) min(pi_start / pi_old, cap) + value_coef L_value - entropy_coef H
        (arXiv 1707.06347 eq. 9).
        """
        recipe = self.recipe.loss
        clip = recipe.clip_low, recipe.clip_high
        values = self.values(hidden)
        policy = losses.policy_loss(
            logprobs, tokens.start_logprobs, tokens.advantages, *clip
        ) * losses.truncated_importance_weights(
            tokens.start_logprobs, tokens.old_logprobs, recipe.tis_cap
        )
        value = losses.value_loss(values, tokens.start_values, tokens.returns, recipe.value_clip)
        total = policy + recipe.value_coef * value
        if recipe.entropy_coef:
            entropy = self.entropy(hidden)
            total = total - recipe.entropy_coef * entropy
            tally.add_tokens("policy/entropy_avg", entropy)
        loss = (tokens.weights * total).sum()
        with torch.no_grad():
            drift = (tokens.weights * losses.kl(tokens.start_logprobs, logprobs, "k2")).sum().item()
            low, high = losses.clipped_tokens(
                logprobs, tokens.start_logprobs, tokens.advantages, *clip
            )
            moved = (values - tokens.start_values).abs() > recipe.value_clip
            tally.add_sum("policy/approxkl_avg", drift)
            tally.add_sum("loss/policy_avg", (tokens.weights * policy).sum().item())
            tally.add_sum("loss/value_avg", (tokens.weights * value).sum().item())
            tally.add_sum("loss", loss.item())
            tally.add_tokens("policy/clipfrac_avg", (low | high).float())
            tally.add_tokens("val/clipfrac_avg", moved.float())
            tally.add_tokens("val/ratio", torch.exp(logprobs - tokens.start_logprobs))
        return loss, drift


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - var(returns - values) / var(returns), [N] each; 0 when the returns do not vary."""
    spread = returns.var().item()
    return 1.0 - (returns - values).var().item() / spread if spread > 0 else 0.0


def run_ppo(
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
    resolved = prepare(PpoRecipe, recipe, Path(output), overrides, fresh)
    return run_to_the_end(PpoRun, resolved, Path(output), report)
