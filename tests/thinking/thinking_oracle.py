"""The paper's formulas (arXiv 2508.15260, sections 2 and 3), written out slowly with loops."""

import math
from typing import Any

import numpy as np

MIN_CONSENSUS_VOTERS = 4


def groups(confidences: list[float], window: int) -> list[float]:
    """Means of all full windows; of everything, while the trace is shorter than one."""
    if len(confidences) < window:
        return [math.fsum(confidences) / len(confidences)]
    means = []
    for end in range(window, len(confidences) + 1):
        means.append(math.fsum(confidences[end - window : end]) / window)
    return means


def measure(confidences: list[float], window: int, vote: str) -> float:
    means = groups(confidences, window)
    if vote == "majority":
        return 1.0
    if vote == "mean":
        return math.fsum(confidences) / len(confidences)
    if vote == "tail":
        tail = confidences[-window:]
        return math.fsum(tail) / len(tail)
    if vote == "bottom_groups":
        lowest = sorted(means)[: max(1, len(means) // 10)]
        return math.fsum(lowest) / len(lowest)
    return min(means)


def weight(value: float, vote: str, exp_weights: bool, power: float) -> float:
    if vote == "majority":
        return 1.0
    return float((math.exp(value) if exp_weights else value) ** power)


def stop_at(confidences: list[float], window: int, threshold: float) -> int | None:
    """Number of tokens after which a running trace is stopped; None: it ends by itself."""
    for n in range(window, len(confidences)):  # the last token ends the trace by itself
        if math.fsum(confidences[n - window : n]) / window < threshold:
            return n
    return None


def count(votes: list[tuple[str, float]]) -> tuple[str | None, dict[str, float]]:
    sums: dict[str, float] = {}
    for answer, value in votes:
        sums[answer] = sums.get(answer, 0.0) + value
    best = None
    for answer in sums:
        if best is None or sums[answer] > sums[best]:
            best = answer
    return best, sums


def online(traces: list[tuple[str | None, list[float]]], config: Any) -> dict[str, Any]:
    """Algorithm 2 over full traces, one after another; `config` is a resolved DeepConf."""
    exp_weights = config.confidence != "top_logprobs"
    warm = [measure(c, config.window, "lowest_group") for _, c in traces[: config.warmup]]
    threshold = float(np.percentile(warm, 100 * (1 - config.keep)))
    votes: list[tuple[str, float]] = []
    ballots: list[tuple[str, float]] = []
    stopped = {}
    consensus = None
    for index, (answer, confidences) in enumerate(traces):
        votes_here = answer is not None
        if index >= config.warmup:
            end = stop_at(confidences, config.window, threshold)
            if end is not None:
                stopped[index] = end
                votes_here = False
        if votes_here:
            assert answer is not None
            ballots.append((answer, 1.0))
            lowest = measure(confidences, config.window, "lowest_group")
            if index >= config.warmup or lowest >= threshold:
                value = measure(confidences, config.window, config.vote)
                votes.append((answer, weight(value, config.vote, exp_weights, config.power)))
        is_warm = index + 1 >= config.warmup
        if config.consensus and is_warm and len(votes) >= MIN_CONSENSUS_VOTERS:
            _, sums = count(votes)
            heaviest = max(value for _, value in votes)
            if config.power > 1 and heaviest > sum(sums.values()) - heaviest:
                continue
            if max(sums.values()) / sum(sums.values()) >= config.consensus:
                consensus = index
                break
    answer, sums = count(votes)
    return {
        "answer": answer,
        "votes": sums,
        "majority": count(ballots)[0],
        "threshold": threshold,
        "stopped": stopped,
        "consensus": consensus,
    }


def offline(traces: list[tuple[str | None, list[float]]], config: Any) -> dict[str, Any]:
    """Keep the best ceil(keep x n) of the traces with an answer, then vote."""
    exp_weights = config.confidence != "top_logprobs"
    scored = [
        (measure(c, config.window, config.vote), -i, a)
        for i, (a, c) in enumerate(traces)
        if a is not None
    ]
    kept = scored
    if config.vote != "majority":
        number = math.ceil(round(config.keep * len(scored), 9))
        kept = sorted(scored, reverse=True)[:number]
    in_order = sorted(kept, key=lambda row: -row[1])
    answer, sums = count(
        [(a, weight(v, config.vote, exp_weights, config.power)) for v, _, a in in_order]
    )
    majority = count([(a, 1.0) for _, _, a in scored])[0]
    return {"answer": answer, "votes": sums, "majority": majority}
