"""A step loop with the real scheduler and scripted traces instead of a model."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from falcon_h1r._rust import DeepConfPolicy, Scheduler, Tally
from falcon_h1r.engine.outputs import CompletionOutput, EngineEvent
from falcon_h1r.engine.params import Limits, SamplingParams, check_request

Script = list[tuple[str, list[float]]]
"""A trace: its text (given out one character a token) and the confidence of every token."""


class FakeEngine:
    """Plays `scripts[prompt_token_ids[0]]`; a trace stops where its script ends."""

    def __init__(self, scripts: dict[int, Script], max_num_seqs: int = 8) -> None:
        self.scripts = scripts
        self.scheduler = Scheduler(
            num_blocks=4096,
            block_size=4,
            num_slots=64,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=64,
            chunk_size=8,
            max_model_len=512,
        )
        self.limits = Limits(vocab_size=1000, max_model_len=512)
        self.script_of: dict[int, Script] = {}
        self.num_steps = 0
        self.interrupt_at: int | None = None
        self.pending: list[EngineEvent] = []

    def add_request(
        self,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        num_traces: int | None = None,
        deepconf: DeepConfPolicy | None = None,
        confidence: str = "top_logprobs",
        confidence_top: int = 20,
        stream: bool = False,
    ) -> int:
        prompt, max_tokens = check_request(prompt_token_ids, params, num_traces or 1, self.limits)
        request_id = len(self.script_of)
        self.scheduler.add_request(
            request_id,
            prompt,
            num_traces=num_traces or 1,
            max_tokens=max_tokens,
            deepconf=deepconf,
        )
        self.script_of[request_id] = self.scripts[int(prompt[0])]
        return request_id

    def step(self) -> list[EngineEvent]:
        self.num_steps += 1
        if self.num_steps == self.interrupt_at:
            raise KeyboardInterrupt
        events, self.pending = self.pending, []
        plan = self.scheduler.schedule()
        if plan is None:
            return events
        tokens, confidences, flags = [], [], []
        for row in range(len(plan.sample_rows)):
            request_id, trace = int(plan.sample_request_ids[row]), int(plan.sample_traces[row])
            text, values = self.script_of[request_id][trace]
            at = int(plan.sample_output_lens[row])
            tokens.append(ord(text[at]))
            confidences.append(values[at])
            flags.append(int(at + 1 == len(text)))
            events.append(EngineEvent("tokens", request_id, trace, (tokens[-1],), text[at]))
        committed = self.scheduler.commit(
            plan.id,
            np.asarray(tokens, dtype=np.uint32),
            np.asarray(confidences, dtype=np.float32),
            np.asarray(flags, dtype=np.uint8),
        )
        return events + [self._event(event) for event in committed]

    def _event(self, event: Any) -> EngineEvent:
        return EngineEvent(
            event.kind, event.request_id, event.trace_index, reason=event.reason, value=event.value
        )

    def has_unfinished(self) -> bool:
        return bool(self.pending) or self.scheduler.has_unfinished()

    def set_answer(self, request_id: int, trace_index: int, answer_class: int | None) -> None:
        events = self.scheduler.set_answer(request_id, trace_index, answer_class)
        self.pending += [self._event(event) for event in events]

    def tally(self, request_id: int) -> Tally:
        return self.scheduler.tally(request_id)

    def output(
        self, request_id: int, trace_index: int, reason: str | None = None
    ) -> CompletionOutput:
        ids, confidences = self.scheduler.trace_output(request_id, trace_index)
        text = "".join(map(chr, ids.tolist()))
        reason_: Any = reason
        return CompletionOutput(
            trace_index, text, ids.tolist(), None, None, reason_, None, confidences.tolist()
        )

    def abort(self, request_id: int, trace_index: int | None = None) -> None:
        self.pending += [self._event(e) for e in self.scheduler.abort(request_id, trace_index)]

    def release(self, request_id: int) -> None:
        self.scheduler.release(request_id)


def random_scripts(seed: int, num_traces: int, low: int = 14, high: int = 40) -> Script:
    """Traces of random lengths and confidences; right ones ("42") tend to be confident."""
    rng = np.random.default_rng(seed)
    scripts: Script = []
    for _ in range(num_traces):
        is_right = rng.random() < 0.6
        answer = "42" if is_right else str(rng.integers(1, 4))
        length = int(rng.integers(low, high))
        text = "a" * max(0, length - 8 - len(answer)) + r" \boxed{" + answer + "}"
        level = 12.0 if is_right else 9.0
        values = rng.normal(level, 2.5, len(text)).clip(0.5).astype(np.float32)
        scripts.append((text, values.astype(float).tolist()))
    return scripts
