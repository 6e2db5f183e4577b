"""The driver of parallel thinking: one request with `budget` traces a prompt, answers fed back.

It sits above a step loop (`StepLoop`, which `engine.Engine` is) and decides nothing the scheduler
decides: thresholds, stops, votes and the consensus are the scheduler's. Here answers are found.
"""

import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from falcon_h1r._rust import ConfidenceTracker, DeepConfPolicy, Tally
from falcon_h1r.engine.outputs import CompletionOutput, EngineEvent, FinishReason
from falcon_h1r.engine.params import SamplingParams
from falcon_h1r.errors import RequestError
from falcon_h1r.thinking.answers import AnswerClasses, extract
from falcon_h1r.thinking.deepconf import Confidence, DeepConf, ThinkingDefaults
from falcon_h1r.thinking.prompts import ThoughtTokenizer, after_thought, opens_thought
from falcon_h1r.thinking.record import Recorder
from falcon_h1r.thinking.results import (
    ThinkingEvent,
    ThinkingResult,
    Trace,
    build_result,
    name_of,
    votes_of,
)

ANSWER_GRACE = 0.005
"""Seconds a step waits for answers being compared: most are there, so the rest stops earlier."""

_ENDED_BY_ITSELF = ("stop", "length")


class StepLoop(Protocol):
    """The part of `engine.Engine` that thinking needs."""

    def add_request(
        self,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        num_traces: int | None = None,
        deepconf: DeepConfPolicy | None = None,
        confidence: Confidence = "top_logprobs",
        confidence_top: int = 20,
        stream: bool = False,
    ) -> int:
        """Queue a prompt; return its request_id."""

    def step(self) -> list[EngineEvent]:
        """Run one batch."""

    def has_unfinished(self) -> bool:
        """Whether a step would still do something."""

    def set_answer(self, request_id: int, trace_index: int, answer_class: int | None) -> None:
        """Tell the class of a finished trace's answer."""

    def tally(self, request_id: int) -> Tally:
        """Return the vote as it stands."""

    def output(
        self, request_id: int, trace_index: int, reason: str | None = None
    ) -> CompletionOutput:
        """Return what a trace has produced."""

    def abort(self, request_id: int) -> None:
        """Stop a request."""

    def release(self, request_id: int) -> None:
        """Forget a finished request."""


@dataclass(slots=True)
class _Request:
    """One prompt on its way."""

    prompt_index: int
    request_id: int
    budget: int
    opens_thought: bool
    """The prompt ends inside a thought: until that is closed there is no answer."""
    outputs: dict[int, CompletionOutput] = field(default_factory=dict)
    """The traces that have ended."""
    classes: AnswerClasses = field(default_factory=AnswerClasses)
    next_to_answer: int = 0
    """Answers are looked for in trace order: the traces below have been handed over."""
    pending: deque[tuple[int, Future[int | None]]] = field(default_factory=deque)
    answers: dict[int, int | None] = field(default_factory=dict)
    """Trace index -> class of its answer."""

    @property
    def is_done(self) -> bool:
        return self.next_to_answer == self.budget and not self.pending


class Thinking:
    """Prompts thinking in one engine. Iterate `events()`; `results` holds what is done.

    `prompts` are token ids; `seeds`, if given, are one a prompt, instead of `sampling_params.seed`.
    All of them are checked before the first is queued (RequestError).
    Closing the iterator, or an exception in it, cancels what is unfinished and leaves partial
    results, so Ctrl-C loses nothing.
    """

    def __init__(
        self,
        engine: StepLoop,
        prompts: Sequence[Sequence[int]],
        deepconf: DeepConf | None = None,
        sampling_params: SamplingParams | None = None,
        *,
        defaults: ThinkingDefaults | None = None,
        tokenizer: ThoughtTokenizer | None = None,
        text: bool = False,
        record: str | Path | None = None,
        seeds: Sequence[int] | None = None,
    ) -> None:
        if seeds is not None and len(seeds) != len(prompts):
            raise RequestError(f"{len(seeds)} seeds for {len(prompts)} prompts; give one a prompt")
        defaults = defaults or ThinkingDefaults()
        self.deepconf = (deepconf or DeepConf()).resolved(defaults)
        self.sampling_params = defaults.sampling_params(sampling_params)
        self._seeds = seeds
        self.results: list[ThinkingResult | None] = [None] * len(prompts)
        self._engine = engine
        self._tokenizer = tokenizer
        self._recorder: Recorder | None = None
        self._requests: dict[int, _Request] = {}
        try:
            for index, prompt in enumerate(prompts):
                self._add(index, prompt, text)
            if record is not None:  # not before all is accepted: it replaces what is there
                self._recorder = Recorder(record)
        except BaseException:
            for request_id in self._requests:
                engine.abort(request_id)
                engine.release(request_id)
            raise
        self._prompts = prompts
        self._start = time.perf_counter()
        # One thread: first in, first out, so classes are numbered in trace order.
        self._answerer = ThreadPoolExecutor(1, thread_name_prefix="answers")

    def _add(self, index: int, prompt: Sequence[int], text: bool) -> None:
        config = self.deepconf
        is_open = opens_thought(self._tokenizer, prompt)
        request_id = self._engine.add_request(
            prompt,
            self._params_of(index),
            num_traces=config.budget,
            deepconf=config.policy(),
            confidence=config.confidence or "top_logprobs",
            confidence_top=config.top_logprobs,
            stream=text,
        )
        self._requests[request_id] = _Request(index, request_id, config.budget, is_open)

    def _params_of(self, index: int) -> SamplingParams:
        if self._seeds is None:
            return self.sampling_params
        return replace(self.sampling_params, seed=self._seeds[index])

    def events(self) -> Generator[ThinkingEvent, None, None]:
        """Run to the end, event by event."""
        try:
            while self._requests:
                for event in self._engine.step():
                    yield from self._follow(event)
                yield from self._take_answers()
        finally:
            try:
                self._cancel()
            finally:
                self._answerer.shutdown(wait=False, cancel_futures=True)
                if self._recorder is not None:
                    self._recorder.close()

    def run(self) -> list[ThinkingResult]:
        """Run to the end and return a result a prompt; Ctrl-C makes the unfinished `partial`."""
        events = self.events()
        try:
            for _ in events:
                pass
        except KeyboardInterrupt:
            events.close()  # when the interrupt came between two events
            if None in self.results:  # a second one came before all were told of
                raise
        return [result for result in self.results if result is not None]

    def _follow(self, event: EngineEvent) -> Generator[ThinkingEvent, None, None]:
        """Translate one event of the engine; hand ended traces to the answerer."""
        request = self._requests.get(event.request_id)
        if request is None:  # another user of the engine
            return
        index, trace = request.prompt_index, event.trace_index
        if event.kind == "started" and trace is not None:
            yield ThinkingEvent(kind="started", prompt_index=index, trace_index=trace)
        elif event.kind == "tokens" and trace is not None:
            yield ThinkingEvent(
                kind="tokens",
                prompt_index=index,
                trace_index=trace,
                token_ids=event.token_ids,
                text=event.text,
            )
        elif event.kind == "threshold":
            yield ThinkingEvent(kind="threshold", prompt_index=index, value=event.value)
        elif event.kind == "finished" and trace is not None:
            self._end_trace(request, trace, event.reason or "abort")
            yield ThinkingEvent(
                kind="stopped",
                prompt_index=index,
                trace_index=trace,
                text=event.text,
                reason=event.reason,
            )

    def _end_trace(self, request: _Request, trace_index: int, reason: FinishReason) -> None:
        output = self._engine.output(request.request_id, trace_index, reason)
        request.outputs[trace_index] = output
        while (ended := request.outputs.get(request.next_to_answer)) is not None:
            if ended.finish_reason in _ENDED_BY_ITSELF:
                future = self._answerer.submit(
                    _answer_class, request.classes, ended, self._tokenizer, request.opens_thought
                )
                request.pending.append((ended.index, future))
            request.next_to_answer += 1

    def _take_answers(self) -> Generator[ThinkingEvent, None, None]:
        """Feed back the answers that are known by now; finish the prompts that are done."""
        waiting = [request.pending[0][1] for request in self._requests.values() if request.pending]
        if waiting:
            limit = ANSWER_GRACE if self._engine.has_unfinished() else None
            wait(waiting, timeout=limit, return_when=FIRST_COMPLETED)
        for request in list(self._requests.values()):
            news = False
            while request.pending and request.pending[0][1].done():
                yield self._set_answer(request)
                news = True
            if news:
                votes = votes_of(self._engine.tally(request.request_id), request.classes)
                yield ThinkingEvent(kind="vote", prompt_index=request.prompt_index, votes=votes)
            if request.is_done:
                result = self._finish(request, partial=False)
                yield ThinkingEvent(kind="result", prompt_index=request.prompt_index, result=result)

    def _set_answer(self, request: _Request) -> ThinkingEvent:
        trace_index, future = request.pending.popleft()
        answer_class = future.result()
        request.answers[trace_index] = answer_class
        self._engine.set_answer(request.request_id, trace_index, answer_class)
        return ThinkingEvent(
            kind="answered",
            prompt_index=request.prompt_index,
            trace_index=trace_index,
            answer=name_of(request.classes, answer_class),
        )

    def _cancel(self) -> None:
        """Abort every prompt; what its finished traces say becomes a partial result.

        None is left in the engine, also where one of them fails; its error comes at the end.
        """
        failed: Exception | None = None
        for request in self._requests.values():
            self._engine.abort(request.request_id)
        for request in list(self._requests.values()):
            try:
                for trace_index in range(request.budget):
                    if trace_index not in request.outputs:
                        self._end_trace(request, trace_index, "abort")
                while request.pending:
                    self._set_answer(request)
                self._finish(request, partial=True)
            except Exception as error:
                failed = failed or error
                self._drop(request.request_id)
            except BaseException:  # another Ctrl-C
                for request_id in list(self._requests):
                    self._drop(request_id)
                raise
        if failed is not None:
            raise failed

    def _drop(self, request_id: int) -> None:
        if self._requests.pop(request_id, None) is not None:
            self._engine.release(request_id)

    def _finish(self, request: _Request, partial: bool) -> ThinkingResult:
        tally = self._engine.tally(request.request_id)
        del self._requests[request.request_id]
        self._engine.release(request.request_id)
        config = self.deepconf
        traces = [
            _trace(request.outputs[i], tally.weights[i], request, config)
            for i in range(request.budget)
        ]
        result = build_result(
            tally,
            request.classes,
            traces,
            seconds=time.perf_counter() - self._start,
            partial=partial,
        )
        self.results[request.prompt_index] = result
        if self._recorder is not None:
            prompt = list(self._prompts[request.prompt_index])
            params = self._params_of(request.prompt_index)
            self._recorder.write(request.prompt_index, prompt, config, params, result)
        return result


def _trace(
    output: CompletionOutput, weight: float | None, request: _Request, config: DeepConf
) -> Trace:
    tracker = ConfidenceTracker(config.window or 1)
    tracker.extend(np.asarray(output.confidences, dtype=np.float64))
    return Trace(
        index=output.index,
        is_warmup=config.mode == "online" and output.index < (config.warmup or 0),
        text=output.text,
        token_ids=output.token_ids,
        answer=name_of(request.classes, request.answers.get(output.index)),
        confidences=output.confidences,
        lowest_group=tracker.lowest_group,
        weight=weight,
        stopped_by=output.finish_reason or "abort",
    )


def _answer_class(
    classes: AnswerClasses,
    output: CompletionOutput,
    tokenizer: ThoughtTokenizer | None,
    opens_thought: bool,
) -> int | None:
    """Find a trace's answer and its class.

    A trace cut off by its length has no final line, and inside an open thought no answer.
    """
    has_ended = output.finish_reason == "stop"
    text = after_thought(tokenizer, output.text, output.token_ids, opens_thought and not has_ended)
    answer = None if text is None else extract(text, final_line=has_ended)
    return None if answer is None else classes.class_of(answer)
