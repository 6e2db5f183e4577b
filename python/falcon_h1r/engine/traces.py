"""What each running trace has said so far: log-probabilities, text, stop strings."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from falcon_h1r._rust import Plan
from falcon_h1r.engine.outputs import EngineEvent, Logprob
from falcon_h1r.engine.params import SamplingParams
from falcon_h1r.errors import TokenizerError
from falcon_h1r.ops import SampleOutput
from falcon_h1r.tokenizer import TextStream


class TextTokenizer(Protocol):
    """The part of `Tokenizer` the engine needs."""

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        """Return the text of token ids."""

    def decode_stream(self) -> TextStream:
        """Return a fresh streaming decoder."""


@dataclass(slots=True)
class TraceText:
    """The text of one trace, as far as it is known."""

    stream: TextStream
    text: str = ""
    sent: int = 0
    """Characters already handed out in events."""
    stop_reason: str | None = None

    def push(self, token_id: int, stops: tuple[str, ...]) -> bool:
        """Add a token; return whether a stop string is now complete (and cut the text there)."""
        start = len(self.text)
        with suppress(TokenizerError):  # a model may have rows that its tokenizer has no token for
            self.text += self.stream.push(token_id)
        return self._cut(start, stops)

    def finish(self, stops: tuple[str, ...]) -> None:
        """Add what the decoder held back."""
        if self.stop_reason is None:
            start = len(self.text)
            self.text += self.stream.flush()
            self._cut(start, stops)

    def _cut(self, start: int, stops: tuple[str, ...]) -> bool:
        found = [
            (at, stop)
            for stop in stops
            if (at := self.text.find(stop, max(0, start - len(stop) + 1))) >= 0
        ]
        if found:
            at, self.stop_reason = min(found)
            self.text = self.text[:at]
        return bool(found)

    def take(self, hold_back: int) -> str:
        """Return the text not yet handed out, less the last `hold_back` characters."""
        end = max(self.sent, len(self.text) - hold_back)
        new, self.sent = self.text[self.sent : end], end
        return new


@dataclass(slots=True)
class TraceRecord:
    """One trace."""

    text: TraceText | None
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    cumulative_logprob: float = 0.0
    stop_token: int | None = None
    has_end_token: bool = False
    """Its last token ended it, and is no part of its text."""


class _Columns:
    """A step's draws as lists: one conversion a step, not one a value."""

    def __init__(self, sample: SampleOutput) -> None:
        self.tokens: list[int] = sample.token_ids.tolist()
        self.logprobs: list[float] = sample.logprobs.tolist()
        self.raw_logprobs: list[float] = sample.raw_logprobs.tolist()
        self.ranks: list[int] = sample.ranks.tolist()
        self.top_ids: list[list[int]] = sample.top_ids.tolist()
        self.top_logprobs: list[list[float]] = sample.top_logprobs.tolist()
        self.top_raw_logprobs: list[list[float]] = sample.top_raw_logprobs.tolist()


class TraceBook:
    """The records of every live request."""

    def __init__(self, tokenizer: TextTokenizer | None) -> None:
        self.tokenizer = tokenizer
        self._traces: dict[int, dict[int, TraceRecord]] = {}
        self._params: dict[int, tuple[SamplingParams, bool, bool]] = {}

    def add(self, request_id: int, params: SamplingParams, stream: bool) -> None:
        """Start recording a request; `stream` asks for text in its events."""
        wants_text = self.tokenizer is not None and (stream or bool(params.stop))
        self._params[request_id] = (params, stream, wants_text)
        self._traces[request_id] = {}

    def remove(self, request_id: int) -> None:
        """Forget a request."""
        self._params.pop(request_id, None)
        self._traces.pop(request_id, None)

    def record(self, request_id: int, trace_index: int) -> TraceRecord:
        """Return the record of one trace, made on first sight."""
        of_request = self._traces[request_id]
        if trace_index not in of_request:
            wants_text = self._params[request_id][2]
            text = TraceText(self.tokenizer.decode_stream()) if wants_text else None  # type: ignore[union-attr]
            of_request[trace_index] = TraceRecord(text)
        return of_request[trace_index]

    def advance(
        self, plan: Plan, sample: SampleOutput, ends: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.uint8], list[EngineEvent]]:
        """Record a step's draws; return the commit flags and one "tokens" event a row."""
        flags = ends.astype(np.uint8)
        flags[sample.is_error.numpy()] |= 2
        events = []
        columns = _Columns(sample)
        tokens = columns.tokens
        request_ids, traces = plan.sample_request_ids.tolist(), plan.sample_traces.tolist()
        lengths = plan.sample_output_lens.tolist()
        for row, (request_id, trace, token) in enumerate(
            zip(request_ids, traces, tokens, strict=True)
        ):
            if flags[row] & 2:  # its logits held NaN: nothing was drawn
                continue
            params, streams, wants_text = self._params[request_id]
            text = ""
            if wants_text or params.logprobs is not None or ends[row]:
                record = self.record(request_id, trace)
                if params.logprobs is not None:
                    self._add_logprobs(record, columns, row, params.logprobs)
                if ends[row]:
                    record.has_end_token = True
                    record.stop_token = token if token in params.stop_token_ids else None
                if record.text is not None and not ends[row]:
                    may_stop = lengths[row] + 1 > params.min_tokens
                    if record.text.push(token, params.stop_strings if may_stop else ()):
                        flags[row] |= 1
                    if streams:
                        longest = max((len(s) for s in params.stop_strings), default=1)
                        text = record.text.take(0 if flags[row] else longest - 1)
            events.append(EngineEvent("tokens", request_id, trace, (token,), text))
        return flags, events

    def finish(self, request_id: int, trace_index: int) -> str:
        """Close a trace's text; return what a streaming reader has not been given yet."""
        record = self._traces[request_id].get(trace_index)
        if record is None or record.text is None:
            return ""
        params, streams, _ = self._params[request_id]
        record.text.finish(params.stop_strings)
        return record.text.take(0) if streams else ""

    def _add_logprobs(self, record: TraceRecord, columns: "_Columns", row: int, k: int) -> None:
        token, logprob = columns.tokens[row], columns.logprobs[row]
        entry = {}
        if k:
            ids = columns.top_ids[row][:k]
            tops = zip(ids, columns.top_logprobs[row], columns.top_raw_logprobs[row], strict=False)
            for rank, (top_id, of_top, raw) in enumerate(tops, start=1):
                entry[top_id] = Logprob(of_top, raw, rank, self._decode(top_id))
        entry[token] = Logprob(
            logprob, columns.raw_logprobs[row], columns.ranks[row], self._decode(token)
        )
        record.logprobs.append(entry)
        record.cumulative_logprob += logprob

    def _decode(self, token_id: int) -> str | None:
        if self.tokenizer is None:
            return None
        try:
            return self.tokenizer.decode([token_id], skip_special_tokens=False)
        except TokenizerError:
            return None
