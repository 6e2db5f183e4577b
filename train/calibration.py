"""The choice of a confidence by traces judged right or wrong: pure functions of `calibrate`."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from falcon_h1r._rust import replay
from falcon_h1r.thinking.deepconf import DeepConf

MEASURES = ("top_logprobs", "logprob", "entropy")
WINDOWS = (8, 12, 16, 24, 32)
KEEPS = (0.9, 0.8, 0.7, 0.6, 0.5)
WARMUP = 8

Confidences = dict[str, NDArray[np.float64]]
Auroc = dict[str, dict[str, dict[str, float]]]
"""Measure -> window -> family and level -> AUROC, and their "mean" where there is any."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedTrace:
    """A full trace, whether its answer is right, and its tokens' confidences by measure."""

    family: str
    """Family and level: a hard level is no evidence against a trace of an easy one."""
    problem: int
    """Ordinal of its problem; the traces of one stand together, in their order."""
    answer_class: int | None
    """Of equal answers of its problem; None: it gives none."""
    is_right: bool
    ended: bool
    """By itself; one that was cut off has no answer, and tells nothing of confidence."""
    confidences: Confidences


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepResult:
    """What one `keep` does to votes that are known in full."""

    keep: float
    right: int
    """Problems answered rightly."""
    tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What was chosen, and by what."""

    thinking: dict[str, Any]
    """What `thinking.json` says."""
    auroc: Auroc
    right: int
    """Traces that ended and were right."""
    wrong: int
    keeps: list[KeepResult]
    """Online, by the measure and window chosen; empty where `keep` was given."""
    majority: KeepResult
    """The plain majority of all traces of each problem: everything is kept."""


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


def score(traces: Iterable[JudgedTrace], measure: str, window: int) -> dict[str, float]:
    """AUROC of the lowest group by family (those with right and wrong traces), and their mean."""
    by_family: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for trace in traces:
        if not trace.ended:
            continue
        right, wrong = by_family[trace.family]
        value = lowest_group(trace.confidences[measure], window)
        (right if trace.is_right else wrong).append(value)
    scores = {f: auroc(r, w) for f, (r, w) in by_family.items() if r and w}
    if scores:
        scores["mean"] = sum(scores.values()) / len(scores)
    return scores


def voted(judged: Sequence[JudgedTrace], config: DeepConf) -> KeepResult:
    """What votes by `config`, resolved, make of the full traces of each problem."""
    assert config.keep is not None
    assert config.confidence is not None
    right = tokens = 0
    for _, group in groupby(judged, key=lambda trace: trace.problem):
        traces = list(group)
        warmup = max(1, min(WARMUP, len(traces) // 2))
        policy = replace(config, budget=len(traces), warmup=warmup).policy()
        classes = [trace.answer_class for trace in traces]
        tally, spent = replay(policy, [t.confidences[config.confidence] for t in traces], classes)
        right += any(t.is_right for t in traces if t.answer_class == tally.answer_class)
        tokens += sum(num_tokens for num_tokens, _ in spent)
    return KeepResult(keep=config.keep, right=right, tokens=tokens)


def choose(
    judged: Sequence[JudgedTrace], thinking: dict[str, Any], *, search_keep: bool
) -> Calibration:
    """Put the measure and window of the highest mean AUROC into `thinking`, and then `keep`.

    Where no family has both right and wrong traces nothing can be told apart: both stay as they
    are. Of the values of `keep`, the one that spends fewest tokens with no fewer problems right
    than the majority of all traces; where each costs an answer, the one that costs fewest.
    """
    table = {m: {str(w): score(judged, m, w) for w in WINDOWS} for m in MEASURES}
    told = [(table[m][str(w)]["mean"], m, w) for m in MEASURES for w in WINDOWS
            if "mean" in table[m][str(w)]]  # fmt: skip
    if told:
        _, measure, window = max(told, key=lambda each: each[0])
        thinking = thinking | {"confidence": measure, "window": window}
    policy = DeepConf(confidence=thinking["confidence"], window=thinking["window"], keep=1.0)
    majority = voted(judged, replace(policy, mode="offline", vote="majority", consensus=None))
    keeps: list[KeepResult] = []
    if search_keep:
        keeps = [voted(judged, replace(policy, keep=keep)) for keep in KEEPS]
        best = min(keeps, key=lambda each: (max(0, majority.right - each.right), each.tokens))
        thinking = thinking | {"keep": best.keep}
    right = sum(trace.is_right for trace in judged)
    wrong = sum(trace.ended for trace in judged) - right
    return Calibration(
        thinking=thinking, auroc=table, right=right, wrong=wrong, keeps=keeps, majority=majority
    )


def calibration_section(found: Calibration) -> str:
    """What a card says of the choice, in Markdown without a heading."""
    thinking = found.thinking
    groups = max(
        (len(row) - 1 for rows in found.auroc.values() for row in rows.values()), default=0
    )
    lines = [
        f"`thinking.json` says {thinking['confidence']}, window {thinking['window']}: the highest "
        f"AUROC of telling {found.right} right from {found.wrong} wrong traces by their lowest "
        f"group, mean over the {max(0, groups)} families and levels that have both, on held-out "
        "problems that no other table uses (`falcon-h1r calibrate`).",
        "",
        "| measure | " + " | ".join(f"window {w}" for w in WINDOWS) + " |",
        "| --- |" + " ---: |" * len(WINDOWS),
    ]
    for measure, rows in found.auroc.items():
        means = [rows[str(w)].get("mean") for w in WINDOWS]
        cells = ["-" if mean is None else f"{mean:.3f}" for mean in means]
        lines.append(f"| {measure} | " + " | ".join(cells) + " |")
    if found.keeps:
        lines += ["", *_keep_lines(found)]
    return "\n".join(lines)


def _keep_lines(found: Calibration) -> list[str]:
    majority = found.majority
    lines = [
        f"`keep` {found.thinking['keep']}: of these the one that spends fewest tokens with no "
        f"fewer problems right than the majority of all their traces ({majority.right} right, "
        f"{majority.tokens:,} tokens); the votes of the same traces, replayed.",
        "",
        "| keep | right | tokens saved, % |",
        "| ---: | ---: | ---: |",
    ]
    for each in found.keeps:
        saved = 100 * (1 - each.tokens / max(1, majority.tokens))
        lines.append(f"| {each.keep} | {each.right} | {saved:.0f} |")
    return lines
