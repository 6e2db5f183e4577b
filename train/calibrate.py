"""Chooses what a model's `thinking.json` says: the confidence that tells right from wrong best.

Traces are sampled on held-out problems of a seed of their own; each token's confidence is then
measured three ways by one packed forward, so that all measures are judged on the same traces.

Legend: T tokens of a batch, V vocabulary.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from falcon_h1r.llm import LLM
from falcon_h1r.model.model import FalconH1ForCausalLM
from falcon_h1r.thinking.answers import equal
from falcon_h1r.thinking.deepconf import DeepConf
from falcon_h1r.thinking.prompts import encode_prompt
from falcon_h1r.train.tasks import EVALUATED, held_out_problems

CALIBRATION_SEED = 2
"""Of the held-out problems; evaluation (0) and training's measurements (1) use others."""
MEASURES = ("top_logprobs", "logprob", "entropy")
WINDOWS = (8, 12, 16, 24, 32)
TOP = 20

Confidences = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedTrace:
    """A finished trace, whether its answer is right, and its tokens' confidences by measure."""

    family: str
    is_right: bool
    confidences: Confidences


def lowest_group(confidences: NDArray[np.float64], window: int) -> float:
    """Smallest mean of `window` tokens in a row; the mean of all while there are fewer."""
    if len(confidences) < window:
        return float(confidences.mean())
    sums = np.concatenate([[0.0], confidences.cumsum()])
    return float((sums[window:] - sums[:-window]).min() / window)


def auroc(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Chance that a right trace scores above a wrong one; ties count half."""
    if not right or not wrong:
        raise ValueError("both right and wrong traces are needed")
    difference = np.array(right)[:, None] - np.array(wrong)[None, :]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


@torch.no_grad()
def measure_confidences(
    model: FalconH1ForCausalLM, prompt: Sequence[int], output: Sequence[int]
) -> Confidences:
    """Each output token's confidence in the three measures of DeepConf, from the raw logits."""
    ids = torch.tensor([*prompt, *output])
    cu_seqlens = torch.tensor([0, len(ids)], dtype=torch.int32)
    hidden = model.hidden_packed(ids, cu_seqlens)[len(prompt) - 1 : -1]
    logprobs = model.logits(hidden).double().log_softmax(-1)  # [T, V]
    k = min(TOP, logprobs.shape[1] // 10)
    chosen = logprobs.gather(1, torch.tensor(output)[:, None])[:, 0]
    return {
        "top_logprobs": -logprobs.topk(k).values.mean(-1).numpy(),
        "logprob": chosen.numpy(),
        "entropy": (logprobs.exp() * logprobs).sum(-1).numpy(),
    }


def judged_traces(llm: LLM, *, problems: int, traces: int) -> list[JudgedTrace]:
    """Sample full traces on held-out problems of every family and judge their answers."""
    judged: list[JudgedTrace] = []
    for family in EVALUATED:
        asked = held_out_problems(family, problems, seed=CALIBRATION_SEED)
        results = llm.think(
            [p.problem for p in asked], DeepConf(mode="offline", budget=traces, consensus=None)
        )
        for problem, result in zip(asked, results, strict=True):
            prompt = encode_prompt(llm.tokenizer, problem.problem)
            for trace in result.traces:
                if trace.stopped_by != "stop":
                    continue
                is_right = trace.answer is not None and equal(trace.answer, problem.answer)
                judged.append(
                    JudgedTrace(
                        family=family,
                        is_right=is_right,
                        confidences=measure_confidences(llm.model, prompt, trace.token_ids),
                    )
                )
    return judged


def score(traces: Iterable[JudgedTrace], measure: str, window: int) -> dict[str, float]:
    """AUROC of the lowest group by family (those with right and wrong traces), and their mean."""
    by_family: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for trace in traces:
        right, wrong = by_family[trace.family]
        value = lowest_group(trace.confidences[measure], window)
        (right if trace.is_right else wrong).append(value)
    scores = {f: auroc(r, w) for f, (r, w) in by_family.items() if r and w}
    if scores:
        scores["mean"] = sum(scores.values()) / len(scores)
    return scores


def calibrate(
    folder: Path,
    *,
    problems: int = 24,
    traces: int = 12,
    warmup: int = 8,
    max_tokens: int = 400,
    keep: float = 0.7,
) -> dict[str, Any]:
    """Write `folder`/thinking.json and return {"thinking": ..., "auroc": {measure: {window: ..}}}.

    A provisional file is replaced; sampling is at temperature 0.7 over the whole distribution.
    `keep` is not searched for: `falcon-h1r bench keep` measures what it costs (docs/deepconf.md).
    """
    path = folder / "thinking.json"
    thinking: dict[str, Any] = {
        "confidence": "logprob", "window": 16, "warmup": warmup, "keep": keep,
        "max_tokens": max_tokens, "temperature": 0.7, "top_p": 1.0,
    }  # fmt: skip
    path.write_text(json.dumps(thinking, indent=2) + "\n")
    with LLM(folder) as llm:
        judged = judged_traces(llm, problems=problems, traces=traces)
    table = {m: {w: score(judged, m, w) for w in WINDOWS} for m in MEASURES}
    best = max(
        ((m, w) for m in MEASURES for w in WINDOWS), key=lambda c: table[c[0]][c[1]].get("mean", 0)
    )
    thinking["confidence"], thinking["window"] = best
    path.write_text(json.dumps(thinking, indent=2) + "\n")
    return {"thinking": thinking, "auroc": table}
