"""SamplingParams and the one validator: every request is checked here, before it is queued."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from falcon_h1r.errors import RequestError

MAX_TRACES = 16384
MAX_LOGPROBS = 1000
MAX_STOPS = 64
MAX_RECORDS = 1 << 31
"""Bound of n x max_tokens x (logprobs + 1): what one request may make us remember."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How tokens are drawn; names and meaning as in vLLM. Raises RequestError on construction."""

    n: int = 1
    """Traces of one prompt."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 is off."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] | str = ()
    """Strings that end a trace; they are left out of its text. None is none."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end a trace. None is none."""
    max_tokens: int | None = None
    """Tokens a trace may have; None is what is left of the context."""
    min_tokens: int = 0
    """No end-of-sequence or stop token, and no stop string, before this many tokens."""
    ignore_eos: bool = False
    logprobs: int | None = None
    """None: no log-probabilities; k: the sampled token's and the k highest."""
    seed: int | None = None
    """None: mixed from the engine's seed and the request's ordinal."""

    def __post_init__(self) -> None:
        for name in ("stop", "stop_token_ids"):
            value = getattr(self, name)
            if not isinstance(value, str):
                object.__setattr__(self, name, _listed(name, value))
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.generic):  # numpy's numbers overflow, and are no JSON
                object.__setattr__(self, field.name, value.item())
        _whole("n", self.n, 1, MAX_TRACES)
        _real("temperature", self.temperature, 0.0, 100.0)
        _real("top_p", self.top_p, 0.0, 1.0, open_low=True)
        _whole("top_k", self.top_k, 0, 1 << 31)
        _real("min_p", self.min_p, 0.0, 1.0)
        _real("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _real("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _real("repetition_penalty", self.repetition_penalty, 0.0, 100.0, open_low=True)
        _whole("min_tokens", self.min_tokens, 0, 1 << 31)
        if self.max_tokens is not None:
            _whole("max_tokens", self.max_tokens, 1, 1 << 31)
            if self.min_tokens > self.max_tokens:
                raise RequestError(
                    f"min_tokens is {self.min_tokens}; it must not exceed max_tokens "
                    f"{self.max_tokens}"
                )
        if self.logprobs is not None:
            _whole("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        if self.seed is not None:
            _whole("seed", self.seed, -(1 << 63), (1 << 64) - 1)
        stops = self.stop_strings
        if len(stops) > MAX_STOPS or any(not isinstance(s, str) or not s for s in stops):
            raise RequestError(
                f"stop is {self.stop!r:.80}; it must be at most {MAX_STOPS} strings, none of them "
                "empty"
            )
        for token in self.stop_token_ids:
            _whole("stop_token_ids", token, 0, 1 << 31)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """`stop` as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop

    @property
    def has_penalties(self) -> bool:
        """Whether sampling depends on the tokens so far."""
        return (
            self.presence_penalty != 0.0
            or self.frequency_penalty != 0.0
            or self.repetition_penalty != 1.0
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What the model and its memory allow a request."""

    vocab_size: int
    max_model_len: int


def check_request(
    prompt_token_ids: Sequence[int] | npt.NDArray[Any],
    params: SamplingParams,
    num_traces: int,
    limits: Limits,
) -> tuple[npt.NDArray[np.uint32], int]:
    """Return (prompt as uint32, max_tokens) or raise RequestError; changes nothing."""
    try:
        prompt = np.asarray(prompt_token_ids)
    except (ValueError, OverflowError):
        prompt = np.empty(0, dtype=object)
    if prompt.size == 0:
        raise RequestError("the prompt is empty; it must hold at least one token")
    if prompt.ndim != 1 or prompt.dtype.kind not in "iu" or _holds_bool(prompt_token_ids):
        given = prompt.tolist() if hasattr(prompt_token_ids, "tolist") else prompt_token_ids
        raise RequestError(
            f"prompt_token_ids is {given!r:.80}; it must be a flat sequence of integers"
        )
    low, high = int(prompt.min()), int(prompt.max())
    if low < 0 or high >= limits.vocab_size:
        wrong = low if low < 0 else high
        raise RequestError(
            f"prompt holds token id {wrong}; ids must lie in [0, {limits.vocab_size})"
        )
    for token in params.stop_token_ids:
        if token >= limits.vocab_size:
            raise RequestError(
                f"stop_token_ids holds {token}; ids must be below {limits.vocab_size}"
            )
    room = limits.max_model_len - prompt.size
    if room < 1:
        raise RequestError(
            f"the prompt has {prompt.size} tokens; the context of {limits.max_model_len} leaves no "
            "room for an answer: shorten it"
        )
    max_tokens = room if params.max_tokens is None else min(params.max_tokens, room)
    _whole("n", num_traces, 1, MAX_TRACES)
    records = num_traces * max_tokens * ((params.logprobs or 0) + 1)
    if records > MAX_RECORDS:
        raise RequestError(
            f"n x max_tokens x (logprobs + 1) is {records}; it must not exceed {MAX_RECORDS}: "
            "lower one of them"
        )
    return prompt.astype(np.uint32), max_tokens


def _listed(name: str, value: Any) -> tuple[Any, ...]:
    try:
        values = () if value is None else tuple(value)
    except TypeError:
        raise RequestError(
            f"{name} is {value!r:.80}; it must be a list, or None for none"
        ) from None
    return tuple(v.item() if isinstance(v, np.generic) else v for v in values)


def _holds_bool(token_ids: Sequence[int] | npt.NDArray[Any]) -> bool:
    """Whether a list has True or False in it: numpy makes 1 and 0 of them beside integers."""
    return not isinstance(token_ids, np.ndarray) and bool in map(type, token_ids)


def _whole(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise RequestError(f"{name} is {value!r}; it must be an integer")
    if not low <= value <= high:
        raise RequestError(f"{name} is {value}; it must lie in [{low}, {high}]")


def _real(name: str, value: Any, low: float, high: float, open_low: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating)):
        raise RequestError(f"{name} is {value!r}; it must be a number")
    if not math.isfinite(value) or not low <= value <= high or (open_low and value == low):
        bracket = "(" if open_low else "["
        raise RequestError(f"{name} is {value}; it must lie in {bracket}{low:g}, {high:g}]")
