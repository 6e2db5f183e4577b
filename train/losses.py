"""The terms of the PPO and GRPO losses, a pure function each, token by token.

Nothing is averaged here: `token_weights` says what each token counts, and a loss is the weighted
sum of one of these terms, so that a batch may be cut into parts without changing it.

Legend: N response tokens of a batch, laid end to end; S sequences; V vocabulary.
"""

import torch
from torch import Tensor

AGGREGATIONS = ("sequence", "token", "constant")


def token_weights(lengths: Tensor, aggregation: str, max_tokens: int = 0) -> Tensor:
    """Weight of each token [N] of sequences with `lengths` [S]; a loss is sum(weight * term).

    "sequence": 1 / (S * length), the mean over a sequence's tokens and then over sequences (GRPO,
    arXiv 2402.03300 eq. 3; TRL's "grpo"). "token": 1 / N (DAPO, arXiv 2503.14476 eq. 8; TRL's
    "bnpo"). "constant": 1 / (S * max_tokens) (Dr. GRPO, arXiv 2503.20783).
    """
    total = int(lengths.sum())
    if aggregation == "sequence":
        each = 1.0 / (lengths.numel() * lengths.clamp(min=1).double())
    elif aggregation == "token":
        each = torch.full(lengths.shape, 1.0 / max(1, total), dtype=torch.float64)
    elif aggregation == "constant":
        each = torch.full(lengths.shape, 1.0 / (lengths.numel() * max_tokens), dtype=torch.float64)
    else:
        raise ValueError(f"aggregation is {aggregation!r}; it must be one of {AGGREGATIONS}")
    return torch.repeat_interleave(each, lengths).float()


def policy_loss(
    logprobs: Tensor,
    start_logprobs: Tensor,
    advantages: Tensor,
    clip_low: float,
    clip_high: float,
) -> Tensor:
    """-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) [N] with r = exp(logprobs - start).

    PPO's clipped surrogate (arXiv 1707.06347 eq. 7); the two sides apart as in DAPO (arXiv
    2503.14476 eq. 10). `start_logprobs` are the trainer's at the start of the step.
    """
    ratio = torch.exp(logprobs - start_logprobs)
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    return -torch.minimum(ratio * advantages, clipped * advantages)


def clipped_tokens(
    logprobs: Tensor,
    start_logprobs: Tensor,
    advantages: Tensor,
    clip_low: float,
    clip_high: float,
) -> tuple[Tensor, Tensor]:
    """Return (bool [N], bool [N]): tokens whose gradient the lower and the upper clip takes."""
    ratio = torch.exp(logprobs - start_logprobs)
    low = (ratio < 1.0 - clip_low) & (advantages < 0)
    high = (ratio > 1.0 + clip_high) & (advantages > 0)
    return low, high


def truncated_importance_weights(
    start_logprobs: Tensor, old_logprobs: Tensor, cap: float
) -> Tensor:
    """min(exp(start_logprobs - old_logprobs), cap) [N]: corrects for who sampled the tokens.

    Truncated importance sampling (Ionides 2008), between the rollout's distribution
    (`old_logprobs`, from the engine) and the trainer's of the same weights.
    """
    return torch.exp(start_logprobs - old_logprobs).clamp(max=cap)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """0.5 max((v - R)^2, (clip(v, v_old -+ clip) - R)^2) [N]; PPO as OpenAI's baselines have it."""
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())


def entropy(logits: Tensor) -> Tensor:
    """-sum_v p_v log p_v [N] of logits [N, V], in nats."""
    logprobs = logits.float().log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def kl(logprobs: Tensor, ref_logprobs: Tensor, estimator: str) -> Tensor:
    """Estimate KL(policy || reference) from the sampled tokens' log-probabilities [N].

    With d = ref_logprobs - logprobs: "k1" is -d, "k2" is d^2 / 2, "k3" is exp(d) - 1 - d
    (Schulman 2020, "Approximating KL divergence"); GRPO prints k3.
    """
    difference = ref_logprobs - logprobs
    if estimator == "k1":
        return -difference
    if estimator == "k2":
        return 0.5 * difference.square()
    if estimator == "k3":
        return torch.expm1(difference) - difference
    raise ValueError(f"estimator is {estimator!r}; it must be 'k1', 'k2' or 'k3'")


def positive_cross_entropy(logprobs: Tensor, is_positive: Tensor) -> Tensor:
    """-log p [N] on the tokens of right rollouts, 0 elsewhere (Falcon-H1R, arXiv 2601.02346)."""
    return torch.where(is_positive, -logprobs, 0.0)
