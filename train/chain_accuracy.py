"""A quick measurement during training: is the whole reference chain the model's first choice?

Greedy generation writes exactly this chain when every token of it is the most probable one, so
the share is a lower bound of greedy accuracy.

Legend: T packed tokens.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import torch

from falcon_h1r.model.model import FalconH1ForCausalLM
from falcon_h1r.train.distributed import Group
from falcon_h1r.train.packing import Document
from falcon_h1r.train.samples import SampleTokenizer
from falcon_h1r.train.stream import encode_document
from falcon_h1r.train.tasks import EVALUATED, Problem, held_out_problems

MAX_TOKENS = 8192
"""Tokens of a forward; a longer document has one of its own."""


@lru_cache(maxsize=64)
def _problems(family: str, count: int) -> list[Problem]:
    return held_out_problems(family, count, level=2, seed=1)


def _groups(documents: Sequence[Document]) -> Iterator[list[Document]]:
    """Cut documents into runs of at most MAX_TOKENS."""
    group: list[Document] = []
    for document in documents:
        total = sum(len(d.token_ids) for d in group) + len(document.token_ids)
        if group and total > MAX_TOKENS:
            yield group
            group = []
        group.append(document)
    if group:
        yield group


@torch.no_grad()
def measure(model: FalconH1ForCausalLM, documents: Sequence[Document]) -> tuple[float, float]:
    """(documents whose every learnt token has rank one, sum of the learnt tokens' losses)."""
    device = model.lm_head.weight.device
    right, losses = 0, 0.0
    for group in _groups(documents):
        tokens = torch.tensor([i for d in group for i in d.token_ids], device=device)  # [T]
        lengths = torch.tensor([0, *(len(d.token_ids) for d in group)])
        bounds = lengths.cumsum(0)
        hidden = model.hidden_packed(tokens, bounds.to(device, torch.int32))
        for document, start, end in zip(group, bounds.tolist(), bounds[1:].tolist(), strict=False):
            first = start + document.prompt_length - 1
            wanted, answer = hidden[first : end - 1], tokens[first + 1 : end]
            right += bool((model.logits(wanted).argmax(-1) == answer).all())
            losses += float(model.token_losses(wanted, answer).sum(dtype=torch.float64))
    return float(right), losses


def chain_accuracy(
    model: FalconH1ForCausalLM,
    encoder: SampleTokenizer,
    *,
    count: int,
    families: Iterable[str] = EVALUATED,
) -> dict[str, float]:
    """Share of `count` held-out problems a family whose every response token has rank one.

    Families that are never evaluated (drills) are left out.
    """
    shares: dict[str, float] = {}
    for family in sorted(set(families).intersection(EVALUATED)):
        documents = [encode_document(encoder, problem) for problem in _problems(family, count)]
        shares[family] = measure(model, documents)[0] / len(documents)
    return shares


def measure_held_out(
    model: FalconH1ForCausalLM,
    encoder: SampleTokenizer,
    *,
    families: Iterable[str],
    count: int,
    documents: Sequence[Document],
    group: Group,
) -> dict[str, float]:
    """`chain_accuracy` shared out over the processes of a run.

    Where there are documents beside it, also their share ("set") and mean loss ("set_loss").
    """
    names = sorted(set(families).intersection(EVALUATED))
    mine = names[group.rank :: group.size]
    shares = chain_accuracy(model, encoder, count=count, families=mine)
    right, losses = measure(model, documents[group.rank :: group.size])
    row = [shares.get(name, 0.0) for name in names]
    table = torch.tensor([*row, right, losses], dtype=torch.float64)
    group.sum_patiently(table)
    result: dict[str, float] = dict(zip(names, table.tolist(), strict=False))
    if documents:
        learnt = sum(len(d.token_ids) - d.prompt_length for d in documents)
        result["set"] = float(table[-2]) / len(documents)
        result["set_loss"] = float(table[-1]) / learnt
    return result
