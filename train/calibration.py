"""The choice of a vote's weights by traces judged right or wrong: pure functions of `calibrate`.

Legend: N traces of a problem, R votes by half of them, P powers, C distinct answers.
"""

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
POWERS = (1, 2, 4, 8, 16, 32)
KEEPS = (0.9, 0.8, 0.7, 0.6, 0.5)
WARMUP = 8
START = {"confidence": "logprob", "window": 16, "power": 1}
"""What stays where no vote is right more often."""

Confidences = dict[str, NDArray[np.float64]]
Votes = dict[str, dict[str, dict[str, float]]]
"""Measure -> window -> power -> share of the votes that are right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedTrace:
    """A full trace, whether its answer is right, and its tokens' confidences by measure."""

    problem: int
    """Ordinal of its problem; the traces of one stand together, in their order."""
    answer_class: int | None
    """Of equal answers of its problem, from 0 on; None: it gives none."""
    is_right: bool
    confidences: Confidences


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepResult:
    """What one `keep` does to votes that are known in full."""

    keep: float
    right: float
    """Problems answered rightly, a mean over the votes."""
    tokens: float
    """Spent by one vote a problem, likewise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What was chosen, and by what."""

    thinking: dict[str, Any]
    """What `thinking.json` says."""
    votes: Votes
    majority: float
    """Share of the same votes that are right when each trace counts one."""
    problems: int
    traces: int
    keeps: list[KeepResult]
    """Online, by the weights chosen; empty where `keep` was given."""
    full: KeepResult
    """The vote by the weights chosen of all traces of each problem: everything is kept."""


def lowest_group(confidences: NDArray[np.float64], window: int) -> float:
    """Smallest mean of `window` tokens in a row; the mean of all while there are fewer."""
    if len(confidences) < window:
        return float(confidences.mean())
    sums = np.concatenate([[0.0], confidences.cumsum()])
    return float((sums[window:] - sums[:-window]).min() / window)


def by_problem(judged: Iterable[JudgedTrace]) -> list[list[JudgedTrace]]:
    """The traces of each problem."""
    return [list(group) for _, group in groupby(judged, key=lambda trace: trace.problem)]


def right_by_halves(
    traces: Sequence[JudgedTrace], measure: str, window: int, powers: Sequence[float]
) -> NDArray[np.float64]:
    """Share [P] of a problem's votes that are right, at each power of the lowest group's weight.

    Half of the traces vote, any half in a row, the last and the first being neighbours: as many
    votes as traces tell settings apart that one vote by all of them does not.
    """
    lowest = np.array([lowest_group(trace.confidences[measure], window) for trace in traces])
    exponents = np.log(np.maximum(lowest, 1e-300)) if measure == "top_logprobs" else lowest
    count = len(traces)
    weights = np.exp(np.maximum(np.outer(powers, exponents - exponents.max()), -600.0))  # [P, N]
    classes = np.array([-1 if t.answer_class is None else t.answer_class for t in traces])
    answers = np.arange(classes.max(initial=0) + 1)
    gives = (classes[:, None] == answers).astype(np.float64)  # [N, C]
    ahead = (np.arange(count)[None, :] - np.arange(count)[:, None]) % count
    half = (ahead < max(1, count // 2)).astype(np.float64)  # [R, N], R = N
    votes = np.einsum("rn,pn,nc->prc", half, weights, gives)
    is_right = np.isin(answers, classes[[trace.is_right for trace in traces]])  # [C]
    decided = is_right[votes.argmax(-1)] & (votes.max(-1) > 0)  # [P, R]
    shares: NDArray[np.float64] = decided.mean(-1)
    return shares


def score(
    problems: Sequence[Sequence[JudgedTrace]], measure: str, window: int, powers: Sequence[float]
) -> list[float]:
    """Mean of `right_by_halves` over the problems, a share a power; 0 where there is none."""
    sums = np.zeros(len(powers))
    for traces in problems:
        sums += right_by_halves(traces, measure, window, powers)
    return [float(each) for each in sums / max(1, len(problems))]


def voted(
    problems: Iterable[Sequence[JudgedTrace]], config: DeepConf, *, turns: bool = False
) -> KeepResult:
    """What votes by `config`, resolved, make of the full traces of each problem.

    With `turns` each problem votes as often as it has traces, each of them being the first once:
    what comes first fixes the threshold and may be a consensus, so one order is but one draw.
    """
    assert config.keep is not None
    assert config.confidence is not None
    right = tokens = 0.0
    for traces in problems:
        warmup = max(1, min(WARMUP, len(traces) // 2))
        policy = replace(config, budget=len(traces), warmup=warmup).policy()
        firsts = range(len(traces) if turns else 1)
        for first in firsts:
            order = [*traces[first:], *traces[:first]]
            confidences = [trace.confidences[config.confidence] for trace in order]
            tally, spent = replay(policy, confidences, [trace.answer_class for trace in order])
            is_right = any(t.is_right for t in order if t.answer_class == tally.answer_class)
            right += is_right / len(firsts)
            tokens += sum(num_tokens for num_tokens, _ in spent) / len(firsts)
    return KeepResult(keep=config.keep, right=right, tokens=tokens)


def choose(
    judged: Sequence[JudgedTrace], thinking: dict[str, Any], *, search_keep: bool
) -> Calibration:
    """Put the measure, window and power of the vote that is right most often into `thinking`.

    `START` stays where nothing is right more often. Then `keep`, every problem voting in as many
    orders as it has traces: the value that spends fewest tokens with no fewer problems right than
    the same vote in full; where each costs an answer, the one that costs fewest.
    """
    problems = by_problem(judged)
    table = {
        m: {str(w): dict(zip(map(str, POWERS), score(problems, m, w, POWERS), strict=True))
            for w in WINDOWS}
        for m in MEASURES
    }  # fmt: skip

    def share(setting: dict[str, Any]) -> float:
        return table[setting["confidence"]][str(setting["window"])][str(setting["power"])]

    settings = [{"confidence": m, "window": w, "power": p}
                for m in MEASURES for w in WINDOWS for p in POWERS]  # fmt: skip
    thinking = thinking | max([START, *settings], key=share)
    weights = DeepConf(
        confidence=thinking["confidence"], window=thinking["window"], power=thinking["power"]
    )
    full = voted(problems, replace(weights, mode="offline", keep=1.0, consensus=None))
    keeps: list[KeepResult] = []
    if search_keep:
        keeps = [voted(problems, replace(weights, keep=keep), turns=True) for keep in KEEPS]
        # Less than half an answer is none: no sample of problems tells so little.
        best = min(keeps, key=lambda each: (max(0, round(full.right - each.right)), each.tokens))
        thinking = thinking | {"keep": best.keep}
    return Calibration(
        thinking=thinking, votes=table, majority=score(problems, "logprob", 16, [0])[0],
        problems=len(problems), traces=len(judged), keeps=keeps, full=full,
    )  # fmt: skip


def calibration_section(found: Calibration) -> str:
    """What a card says of the choice, in Markdown without a heading."""
    thinking = found.thinking
    chosen = found.votes[thinking["confidence"]][str(thinking["window"])][str(thinking["power"])]
    lines = [
        f"`thinking.json` says {thinking['confidence']}, window {thinking['window']}, power "
        f"{thinking['power']}: of these the vote by the lowest group that is right most often, in "
        f"{100 * chosen:.1f} %, where the plain majority is right in {100 * found.majority:.1f} %. "
        f"By {found.problems} held-out problems that no other table uses and {found.traces} "
        "traces; half of a problem's vote, any half in a row (`falcon-h1r calibrate`). The best "
        "power stands in brackets.",
        "",
        "| measure, right in % | " + " | ".join(f"window {w}" for w in WINDOWS) + " |",
        "| --- |" + " ---: |" * len(WINDOWS),
    ]
    for measure, rows in found.votes.items():
        best = [max(rows[str(w)].items(), key=lambda each: each[1]) for w in WINDOWS]
        cells = [f"{100 * share:.1f} ({power})" for power, share in best]
        lines.append(f"| {measure} | " + " | ".join(cells) + " |")
    if found.keeps:
        lines += ["", *_keep_lines(found)]
    return "\n".join(lines)


def _keep_lines(found: Calibration) -> list[str]:
    full = found.full
    lines = [
        f"`keep` {found.thinking['keep']}: of these the one that spends fewest tokens with no "
        f"fewer problems right than the same vote in full ({full.right:.0f} right, "
        f"{full.tokens:,.0f} tokens), or that costs fewest answers; the votes of the same traces, "
        "replayed, each trace being the first once.",
        "",
        "| keep | right | tokens saved, % |",
        "| ---: | ---: | ---: |",
    ]
    for each in found.keeps:
        saved = 100 * (1 - each.tokens / max(1, full.tokens))
        lines.append(f"| {each.keep} | {each.right:.1f} | {saved:.0f} |")
    return lines
