"""What generation hands back: vLLM's RequestOutput and, step by step, EngineEvent."""

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "abort", "error", "confidence", "consensus"]
EventKind = Literal["started", "tokens", "finished", "threshold", "request_finished"]


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """One thing that happened in a step."""

    kind: EventKind
    request_id: int
    trace_index: int | None = None
    """None for what concerns the whole request."""
    token_ids: tuple[int, ...] = ()
    """"tokens": the tokens this step added."""
    text: str = ""
    """"tokens", and "finished" for what was held back: new text, when the request is streamed."""
    reason: FinishReason | None = None
    value: float | None = None
    """"threshold": the confidence below which traces now stop; "finished": the group or the share
    that ended it."""


@dataclass(frozen=True, slots=True)
class Logprob:
    """Log-probabilities of one token at one position."""

    logprob: float
    """Under the distribution that was sampled from."""
    raw_logprob: float
    """Under the plain softmax of the logits."""
    rank: int
    """1 for the most probable token of the logits."""
    decoded_token: str | None = None


@dataclass(slots=True)
class CompletionOutput:
    """One trace."""

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None
    """Sum of `logprob` over the tokens, when log-probabilities were asked for."""
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: FinishReason | None
    stop_reason: int | str | None = None
    """The stop token or string that ended it; None for end of sequence."""
    confidences: list[float] = field(default_factory=list)


@dataclass(slots=True)
class RequestOutput:
    """Everything one prompt led to."""

    request_id: int
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool = True
