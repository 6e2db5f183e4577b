"""A quick measurement during training: is the whole reference chain the model's first choice?

One forward a family. Greedy generation writes exactly this chain when every token of it is the
most probable one, so the share is a lower bound of greedy accuracy.
"""

from collections.abc import Iterable
from functools import lru_cache

import torch

from falcon_h1r.model.model import FalconH1ForCausalLM
from falcon_h1r.train.stream import TURN_END, Encoder, prompt_text
from falcon_h1r.train.tasks import EVALUATED, Problem, held_out_problems


@lru_cache(maxsize=32)
def _problems(family: str, count: int) -> list[Problem]:
    return held_out_problems(family, count, level=2, seed=1)


@torch.no_grad()
def chain_accuracy(
    model: FalconH1ForCausalLM, encoder: Encoder, *, count: int, families: Iterable[str] = EVALUATED
) -> dict[str, float]:
    """Share of `count` held-out problems a family whose every response token has rank one.

    Families that are never evaluated (drills) are left out.
    """
    device = model.lm_head.weight.device
    shares: dict[str, float] = {}
    for family in sorted(set(families).intersection(EVALUATED)):
        ids: list[int] = []
        bounds, prompts = [0], []
        for problem in _problems(family, count):
            prompt = encoder.encode(prompt_text(problem.problem))
            ids += prompt + encoder.encode(problem.response + TURN_END)
            prompts.append(len(prompt))
            bounds.append(len(ids))
        tokens = torch.tensor(ids, device=device)
        cu_seqlens = torch.tensor(bounds, dtype=torch.int32, device=device)
        right = 0
        hidden = model.hidden_packed(tokens, cu_seqlens)
        for start, end, length in zip(bounds, bounds[1:], prompts, strict=False):
            first = start + length - 1
            choice = model.logits(hidden[first : end - 1]).argmax(-1)
            right += bool((choice == tokens[first + 1 : end]).all())
        shares[family] = right / count
    return shares
