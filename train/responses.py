"""Responses laid end to end for the trainer, each prompt once, and the model's pass over them.

Legend: N response tokens of a batch, T tokens with prompts and padding, S responses, D model width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from falcon_h1r import ops
from falcon_h1r.model.cache import PackedBatch, on_device
from falcon_h1r.model.model import FalconH1ForCausalLM

TOKEN_MULTIPLE = 128
"""Packed batches are padded to a multiple: every new shape costs memory for ever in oneDNN."""
Pairs = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Token ids of (prompt, response)."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Prompts, padding, and the responses that go on from the prompts, laid end to end.

    A prompt stands once, whatever number of responses it has; a response's last token predicts
    nothing and is left out.
    """

    input_ids: Tensor
    """int64 [T]"""
    batch: PackedBatch
    """Where they start, and which goes on from which; padding is a prompt without response."""
    fill: float
    """Share of the slots that are not padding."""
    predictors: Tensor
    """int64 [N]: the position whose output predicts each response token."""
    targets: Tensor
    """int64 [N]: the response tokens."""
    response_lengths: Tensor
    """int64 [S], on the CPU: it says where to cut."""

    def to(self, device: torch.device) -> "Packed":
        """The same with what the model reads on `device`."""
        return replace(on_device(self, device), response_lengths=self.response_lengths)

    def per_token(self, values: Tensor) -> Tensor:
        """Repeat one value a sequence [S] for each of its response tokens [N]."""
        return torch.repeat_interleave(values, self.response_lengths)


def by_sequence(values: Tensor, lengths: Tensor) -> list[Tensor]:
    """Cut [N] into one tensor a sequence of `lengths` [S]."""
    return list(torch.split(values, lengths.tolist()))


def pack(sequences: Pairs) -> Packed:
    """Lay (prompt, response) pairs end to end, equal prompts once."""
    places: dict[tuple[int, ...], int] = {}
    prompt_of = [places.setdefault(tuple(prompt), len(places)) for prompt, _ in sequences]
    ids = [token for prompt in places for token in prompt]
    prompts, ends = [len(prompt) for prompt in places], np.cumsum([len(p) for p in places])
    lengths = [len(response) for _, response in sequences]
    padding = -(len(ids) + sum(lengths) - len(lengths)) % TOKEN_MULTIPLE
    if padding:
        ids += [0] * padding
        prompts.append(padding)
    predictors: list[NDArray[np.int64] | list[int]] = []
    for place, (_, response) in zip(prompt_of, sequences, strict=True):
        predictors += [[ends[place] - 1], np.arange(len(ids), len(ids) + len(response) - 1)]
        ids += response[:-1]
    return Packed(
        input_ids=torch.tensor(ids),
        batch=PackedBatch.from_prompts(prompts, [n - 1 for n in lengths], prompt_of),
        fill=1.0 - padding / len(ids),
        predictors=torch.from_numpy(np.concatenate(predictors)),
        targets=torch.tensor([token for _, response in sequences for token in response]),
        response_lengths=torch.tensor(lengths),
    )


def micro_batches(sequences: Pairs, max_tokens: int) -> list[range]:
    """Cut (prompt, response) pairs, in order, into runs of few tokens; a run packs a prompt once.

    Each run has at most `max_tokens` unless a single sequence is longer.
    """
    runs: list[range] = []
    start = used = 0
    seen: set[tuple[int, ...]] = set()
    for i, (prompt, response) in enumerate(sequences):
        key, length = tuple(prompt), len(response) - 1
        if used and used + length + len(prompt) * (key not in seen) > max_tokens:
            runs.append(range(start, i))
            start, used, seen = i, 0, set()
        used += length + len(prompt) * (key not in seen)
        seen.add(key)
    return [*runs, range(start, len(sequences))]


def response_hidden(model: FalconH1ForCausalLM, packed: Packed) -> Tensor:
    """Hidden states [N, D] that predict the response tokens."""
    hidden: Tensor = model.model(packed.input_ids, packed.batch)
    return hidden[packed.predictors]


def token_logprobs(
    model: FalconH1ForCausalLM, hidden: Tensor, targets: Tensor, temperature: float
) -> Tensor:
    """Log-probabilities [N] of targets under softmax(logits / temperature), without all logits."""
    scale = model.config.lm_head_multiplier / temperature
    return -ops.linear_cross_entropy(hidden, model.lm_head.weight, targets, scale)
