"""What thinking hands back: a result a prompt, its traces, and the events on the way."""

from dataclasses import dataclass, field
from typing import Any, Literal

from falcon_h1r._rust import Tally
from falcon_h1r.engine.outputs import FinishReason
from falcon_h1r.thinking.answers import AnswerClasses

ThinkingEventKind = Literal[
    "started", "tokens", "threshold", "stopped", "answered", "vote", "result"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """One chain of thought."""

    index: int
    is_warmup: bool
    """It belongs to the first traces, which fix the threshold."""
    text: str
    token_ids: list[int]
    answer: str | None
    """The canonical string of its class of equal answers; None: none found, or never looked for."""
    confidences: list[float]
    """Confidence of every token, in the measure the run was made with."""
    lowest_group: float | None
    """Smallest window mean (the mean of all, while shorter than the window)."""
    weight: float | None
    """Weight of its vote; None: it does not vote."""
    stopped_by: FinishReason
    """"stop", "length", "confidence", "consensus", "abort" or "error"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ThinkingResult:
    """What a prompt's traces came to."""

    answer: str | None
    """The answer of the highest weight; None when no trace that votes found one."""
    votes: dict[str, float]
    """Weight of every answer, the highest first."""
    majority_answer: str | None
    """What one vote a finished trace would have said: the baseline."""
    threshold: float | None
    """Confidence below which traces were stopped; None offline or before the warm-up's end."""
    consensus: tuple[int, float] | None
    """Trace index and share at which the vote was decided early."""
    num_tokens: int
    """Tokens of all traces."""
    num_tokens_saved: int
    """An estimate: mean length of the finished warm-up x budget - num_tokens, at least 0."""
    seconds: float
    """Wall time from the first step to the vote; prompts of one call share it."""
    partial: bool
    """Thinking was interrupted; the vote counts what was done by then."""
    traces: list[Trace] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the traces, ready for JSON."""
        return {
            "answer": self.answer,
            "votes": self.votes,
            "majority_answer": self.majority_answer,
            "threshold": self.threshold,
            "consensus": list(self.consensus) if self.consensus else None,
            "num_tokens": self.num_tokens,
            "num_tokens_saved": self.num_tokens_saved,
            "seconds": round(self.seconds, 3),
            "partial": self.partial,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ThinkingEvent:
    """One thing that happened while thinking."""

    kind: ThinkingEventKind
    prompt_index: int
    """Which of the prompts it concerns."""
    trace_index: int | None = None
    """None for what concerns the whole prompt."""
    token_ids: tuple[int, ...] = ()
    """"tokens": the new tokens of the trace."""
    text: str = ""
    """"tokens" and "stopped": the new text, when text is streamed."""
    reason: FinishReason | None = None
    """"stopped": why the trace ended."""
    answer: str | None = None
    """"answered": the canonical answer, or None."""
    votes: dict[str, float] = field(default_factory=dict)
    """"vote": the weights as they stand, the highest first."""
    value: float | None = None
    """"threshold": the confidence below which traces now stop."""
    result: ThinkingResult | None = None
    """"result": the outcome."""


def build_result(
    tally: Tally, classes: AnswerClasses, traces: list[Trace], *, seconds: float, partial: bool
) -> ThinkingResult:
    """Put a result together from the vote and the traces it was counted over."""
    return ThinkingResult(
        answer=name_of(classes, tally.answer_class),
        votes=votes_of(tally, classes),
        majority_answer=name_of(classes, tally.majority_class),
        threshold=tally.threshold,
        consensus=tally.consensus,
        num_tokens=sum(len(trace.token_ids) for trace in traces),
        num_tokens_saved=_num_tokens_saved(traces, len(traces)),
        seconds=seconds,
        partial=partial,
        traces=traces,
    )


def name_of(classes: AnswerClasses, answer_class: int | None) -> str | None:
    """Return the canonical string of a class of answers."""
    return None if answer_class is None else classes.representatives[answer_class]


def votes_of(tally: Tally, classes: AnswerClasses) -> dict[str, float]:
    """Return the weight of every answer, the highest first."""
    votes = sorted(tally.votes, key=lambda vote: -vote[1])
    return {classes.representatives[answer_class]: weight for answer_class, weight in votes}


def _num_tokens_saved(traces: list[Trace], budget: int) -> int:
    """Return mean length of the finished warm-up x budget - tokens spent, at least 0.

    0 where no trace was stopped: a difference is then chance, not saving.
    """
    full = [len(t.token_ids) for t in traces if t.is_warmup and t.stopped_by in ("stop", "length")]
    if not full or not any(t.stopped_by in ("confidence", "consensus") for t in traces):
        return 0
    spent = sum(len(t.token_ids) for t in traces)
    return max(0, round(sum(full) / len(full) * budget) - spent)
