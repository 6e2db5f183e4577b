"""A thinking result as plain lines or as one JSON object: what a pipe gets."""

import json
import re
from collections import Counter
from typing import Any

from falcon_h1r.thinking.results import ThinkingResult, Trace

MAX_VOTES = 8
"""Answers named in a report; the others are summed up."""

STOPPED_BY: dict[str, str] = {
    "stop": "finished",
    "length": "cut at max_tokens",
    "confidence": "stopped by confidence",
    "consensus": "ended by consensus",
    "abort": "interrupted",
    "error": "failed",
}
"""How a trace ended, in words."""

# C0 and C1 but tab and newline: a model's text must not steer the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    r"""Return text with its control characters written out as \x1b."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def to_json(problem: str, result: ThinkingResult, show_traces: bool) -> str:
    """Return one line of JSON: the problem, the result, and the traces if they are wanted."""
    row: dict[str, Any] = {"problem": problem, **result.to_dict()}
    if show_traces:
        row["traces"] = [
            {
                "index": trace.index,
                "is_warmup": trace.is_warmup,
                "stopped_by": trace.stopped_by,
                "answer": trace.answer,
                "lowest_group": trace.lowest_group,
                "weight": trace.weight,
                "num_tokens": len(trace.token_ids),
                "text": trace.text,
            }
            for trace in result.traces
        ]
    return json.dumps(row)


def to_lines(problem: str, result: ThinkingResult, show_traces: bool) -> str:
    """Return a few plain lines: problem, answer, votes, traces, tokens."""
    lines = [f"problem: {printable(problem)}"]
    if show_traces:
        lines += [line for trace in result.traces for line in trace_lines(trace)]
    lines += [
        f"answer: {'(none found)' if result.answer is None else printable(result.answer)}",
        f"votes: {votes_line(result)}",
        f"traces: {traces_line(result)}",
        f"tokens: {tokens_line(result)}",
    ]
    return "\n".join(lines)


def shares(votes: dict[str, float]) -> list[tuple[str, float]]:
    """Return the answers with their share of all weight, the highest first."""
    total = sum(votes.values())
    return [(answer, weight / total if total else 0.0) for answer, weight in votes.items()]


def votes_line(result: ThinkingResult) -> str:
    """Return the shares of the vote, and what the plain majority says where it differs."""
    listed = shares(result.votes)
    words = [f"{printable(answer)} {share:.1%}" for answer, share in listed[:MAX_VOTES]]
    if len(listed) > MAX_VOTES:
        words.append(f"{len(listed) - MAX_VOTES} others")
    line = ", ".join(words) or "none"
    if result.majority_answer != result.answer:
        line += f" (plain majority: {printable(result.majority_answer or 'none')})"
    return line


def traces_line(result: ThinkingResult) -> str:
    """Return how many traces ended in which way."""
    counts = Counter[str](trace.stopped_by for trace in result.traces)
    words = [f"{counts[kind]} {name}" for kind, name in STOPPED_BY.items() if counts[kind]]
    if result.threshold is not None:
        words.append(f"threshold {result.threshold:.4g}")
    return ", ".join(words)


def tokens_line(result: ThinkingResult) -> str:
    """Return the tokens spent and saved, and the time."""
    saved = f", about {result.num_tokens_saved} saved" if result.num_tokens_saved else ""
    line = f"{result.num_tokens} spent{saved}, {result.seconds:.1f} s"
    return line + (" (interrupted: a partial result)" if result.partial else "")


def trace_lines(trace: Trace) -> list[str]:
    """Return a head line of a trace and its text, indented."""
    words = [STOPPED_BY[trace.stopped_by], f"{len(trace.token_ids)} tokens"]
    words += ["warm-up"] if trace.is_warmup else []
    words += [f"lowest group {trace.lowest_group:.4g}"] if trace.lowest_group is not None else []
    words.append("no vote" if trace.weight is None else f"weight {trace.weight:.4g}")
    answer = "no answer" if trace.answer is None else f"answer {printable(trace.answer)}"
    text = printable(trace.text).splitlines()
    return [f"trace {trace.index}: {answer} ({', '.join(words)})", *(f"  {line}" for line in text)]
