"""How much better an action was than expected: group-relative (GRPO) and generalised (PPO).

Legend: P prompts, G rollouts a prompt, N response tokens laid end to end, S sequences.
"""

from collections import defaultdict
from collections.abc import Sequence

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


def branch_advantages(advantages: Tensor, responses: Sequence[Sequence[int]]) -> list[Tensor]:
    """One group's advantages [G], each laid on the tokens that made the difference: [length] a row.

    The responses to one prompt form a tree of tokens. A prefix is worth the mean of the responses
    that go through it, and a token earns the worth of the prefix with it less that of the one
    before: zero where all that came so far go on alike, and zero once a response goes on alone, so
    that what follows a mistake is not blamed for it. Over a response the tokens' advantages sum to
    its advantage, if those of the group have mean zero. The worth of prefixes is that of TEMPO
    (arXiv 2509.18314), which adds these differences to GRPO's advantages; here they replace them.
    """
    credit = [torch.zeros(len(response)) for response in responses]
    worth = advantages.tolist()
    prefixes = [(list(range(len(responses))), 0)]  # responses that are equal so far, and how far
    while prefixes:
        members, at = prefixes.pop()
        following: defaultdict[int, list[int]] = defaultdict(list)
        for member in members:
            if at < len(responses[member]):
                following[responses[member][at]].append(member)
        before = _mean(worth, members)
        for same in following.values():
            for member in same:
                credit[member][at] = _mean(worth, same) - before
            if len(same) > 1:
                prefixes.append((same, at + 1))
    return credit


def _mean(worth: Sequence[float], members: Sequence[int]) -> float:
    return sum(worth[member] for member in members) / len(members)


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
