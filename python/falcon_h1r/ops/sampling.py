"""What sampling returns, and its oracle: one row at a time, in double precision.

Legend: R sampled rows, V vocabulary, K reported top log-probabilities.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from falcon_h1r.ops.reference import philox_uniform

ConfidenceMeasure = Literal["top_logprobs", "logprob", "entropy"]


@dataclass(frozen=True, slots=True)
class SampleOutput:
    """One token a row, and what is known of it; all on the CPU."""

    token_ids: Tensor
    """int64 [R]; 0 where `is_error`."""
    logprobs: Tensor
    """float32 [R]: log-probability under the distribution sampled from (after all filters)."""
    raw_logprobs: Tensor
    """float32 [R]: log-probability under the plain softmax of the raw logits."""
    confidences: Tensor
    """float32 [R]: the chosen token confidence, from the raw logits; higher is more confident."""
    ranks: Tensor
    """int32 [R]: 1 for the most probable token of the raw logits."""
    is_error: Tensor
    """bool [R]: the row's logits held NaN or +inf, or no finite value."""
    top_ids: Tensor
    """int64 [R, K]: ids of the K highest raw logits, highest first."""
    top_logprobs: Tensor
    """float32 [R, K]: their log-probabilities under the distribution sampled from."""
    top_raw_logprobs: Tensor
    """float32 [R, K]: their log-probabilities under the plain softmax."""

    @classmethod
    def empty(cls) -> "SampleOutput":
        """Return the output of no rows."""
        real = torch.empty(0, dtype=torch.float32, device="cpu")
        whole = torch.empty(0, dtype=torch.int64, device="cpu")
        none = torch.empty(0, dtype=torch.bool, device="cpu")
        return cls(whole, real, real, real, whole.int(), none, whole[:, None], *[real[:, None]] * 2)


def sample_with_confidence(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    keys: Tensor,
    positions: Tensor,
    confidence: ConfidenceMeasure = "top_logprobs",
    confidence_top: int = 20,
    num_logprobs: int = 0,
    adjusted_logits: Tensor | None = None,
) -> SampleOutput:
    """Draw one token a row of logits [R, V] and measure the confidence of the raw distribution.

    temperature [R] (0 is greedy), top_k [R] (0 is off), top_p [R], min_p [R] (0 is off), keys
    uint64-valued int64 [R], positions int64 [R]. `adjusted_logits` [R, V], when given (penalties),
    is what is sampled from; confidence, rank and raw log-probabilities always come from `logits`.
    Filters in vLLM's order: temperature, then min_p, then top_k, then top_p (the smallest set of
    most probable tokens whose mass reaches top_p; ties by lower id). The token is the first in id
    order whose cumulative probability exceeds u, the Philox uniform of (key, position).
    Confidence: DeepConf (arXiv 2508.15260) eq. 2 for "top_logprobs" (k = `confidence_top`).
    """
    rows, vocab = logits.shape
    raw = logits.double()
    source = raw if adjusted_logits is None else adjusted_logits.double()
    out = [
        _sample_row(raw[r], source[r], r, temperature, top_k, top_p, min_p, keys, positions)
        for r in range(rows)
    ]
    num_top = min(num_logprobs, vocab)
    token_ids = torch.tensor([o[0] for o in out], dtype=torch.int64, device="cpu")
    is_error = torch.tensor([o[2] for o in out], dtype=torch.bool, device="cpu")
    clean = torch.where(is_error[:, None], 0.0, raw)
    raw_lp = clean.log_softmax(-1)
    drawn = torch.stack([o[1] for o in out]) if out else raw_lp
    at = token_ids[:, None]
    if confidence == "top_logprobs":
        measure = -raw_lp.topk(min(confidence_top, vocab), dim=-1).values.mean(-1)
    elif confidence == "logprob":
        measure = raw_lp.gather(1, at)[:, 0]
    else:
        measure = torch.where(raw_lp.isneginf(), 0.0, raw_lp.exp() * raw_lp).sum(-1)
    top_ids = torch.argsort(clean, dim=-1, descending=True, stable=True)[:, :num_top]
    ahead = (clean > clean.gather(1, at)).sum(-1) + 1
    return SampleOutput(
        token_ids=token_ids,
        logprobs=drawn.gather(1, at)[:, 0].float(),
        raw_logprobs=raw_lp.gather(1, at)[:, 0].float(),
        confidences=torch.where(is_error, math.nan, measure).float(),
        ranks=ahead.int(),
        is_error=is_error,
        top_ids=top_ids,
        top_logprobs=drawn.gather(1, top_ids).float(),
        top_raw_logprobs=raw_lp.gather(1, top_ids).float(),
    )


def _sample_row(
    raw: Tensor,
    source: Tensor,
    r: int,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    keys: Tensor,
    positions: Tensor,
) -> tuple[int, Tensor, bool]:
    """Return (token, log-probabilities sampled from [V], is_error) of one row."""
    bad = (raw.isnan() | raw.isposinf()).any() or not raw.isfinite().any()
    if bool(bad):
        return 0, torch.zeros_like(raw), True
    t = float(temperature[r])
    if t == 0.0:
        token = int(source.argmax())  # the lowest id among equals
        return (
            token,
            torch.full_like(raw, -math.inf).index_fill(
                0, torch.tensor([token], device=raw.device), 0.0
            ),
            False,
        )
    probs = (source / t).softmax(-1)
    keep = probs >= float(min_p[r]) * probs.max()
    order = torch.argsort(probs, descending=True, stable=True)
    if int(top_k[r]) > 0:
        keep[order[int(top_k[r]) :]] = False
    if float(top_p[r]) < 1.0:
        kept = torch.where(keep, probs, 0.0)
        sorted_probs = kept[order] / kept.sum()
        before = sorted_probs.cumsum(0) - sorted_probs
        keep[order[before >= float(top_p[r])]] = False
    probs = torch.where(keep, probs, 0.0)
    probs = probs / probs.sum()
    u = philox_uniform(int(keys[r]) & ((1 << 64) - 1), int(positions[r]))
    cumulative = probs.cumsum(0)
    above = torch.nonzero((cumulative > u) & (probs > 0))
    token = int(above[0]) if above.numel() else int(torch.nonzero(probs > 0)[-1])
    return token, probs.log(), False
