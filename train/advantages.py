"""How much better an action was than expected: group-relative (GRPO) and generalised (PPO).

Legend: P prompts, G rollouts a prompt, N response tokens laid end to end, S sequences.
"""

import torch
from torch import Tensor

GROUP_EPSILON = 1e-4
"""Added to a group's standard deviation, as TRL does."""
WHITEN_EPSILON = 1e-8
"""Added to a variance before its root, as TRL does."""


def group_advantages(rewards: Tensor, scale: str = "group") -> Tensor:
    """Advantages [P, G] of rewards [P, G] inside each prompt's group.

    "group": (R - mean) / (std + 1e-4), std with G - 1 (GRPO, arXiv 2402.03300 section 4.1.2, and
    TRL's form). "none": R - mean (Dr. GRPO, arXiv 2503.20783), which keeps the size of a small
    difference small.
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    if scale == "none":
        return centred
    if scale == "group":
        return centred / (rewards.std(1, keepdim=True) + GROUP_EPSILON)
    raise ValueError(f"scale is {scale!r}; it must be 'group' or 'none'")


def gae(
    rewards: Tensor, values: Tensor, cu_seqlens: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (arXiv 1506.02438 eq. 16) -> (advantages, returns), [N].

    delta_t = r_t + gamma v_{t+1} - v_t and A_t = delta_t + gamma lam A_{t+1} inside each sequence
    of cu_seqlens [S+1]; nothing follows the last token. returns = advantages + values.
    """
    bounds = cu_seqlens.tolist()
    lengths = cu_seqlens.diff().long()
    longest = int(lengths.max()) if lengths.numel() else 0
    sequence = torch.repeat_interleave(torch.arange(lengths.numel()), lengths)
    place = torch.arange(bounds[-1]) - cu_seqlens[:-1].long()[sequence]
    padded = rewards.new_zeros(3, lengths.numel(), longest + 1)  # one zero column after the end
    padded[0, sequence, place], padded[1, sequence, place] = rewards, values
    advantage = rewards.new_zeros(lengths.numel())
    for t in range(longest - 1, -1, -1):
        delta = padded[0, :, t] + gamma * padded[1, :, t + 1] - padded[1, :, t]
        inside = t < lengths
        advantage = torch.where(inside, delta + gamma * lam * advantage, 0.0)
        padded[2, :, t] = advantage
    advantages = padded[2, sequence, place]
    return advantages, advantages + values


def whiten(x: Tensor, shift_mean: bool = True) -> Tensor:
    """(x - mean) / sqrt(var + 1e-8) [N], var with N - 1; without `shift_mean` the mean returns."""
    mean = x.mean()
    whitened = (x - mean) * torch.rsqrt(x.var() + WHITEN_EPSILON)
    return whitened if shift_mean else whitened + mean
