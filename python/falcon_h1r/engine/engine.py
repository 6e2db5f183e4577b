"""Engine: the step loop. Plans go down, tokens come up; it knows nothing of thinking."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from falcon_h1r._rust import DeepConfPolicy, Event, Plan, Scheduler, Tally
from falcon_h1r.engine.interrupts import held_back
from falcon_h1r.engine.memory import MemoryPlan, default_memory_bytes, plan_memory
from falcon_h1r.engine.outputs import CompletionOutput, EngineEvent
from falcon_h1r.engine.params import Limits, SamplingParams, check_request
from falcon_h1r.engine.runner import Runner
from falcon_h1r.engine.sampler import RequestSampling, Sampler
from falcon_h1r.engine.traces import TextTokenizer, TraceBook
from falcon_h1r.errors import ConfigError, RequestError
from falcon_h1r.model.cache import HybridCache
from falcon_h1r.model.model import FalconH1ForCausalLM
from falcon_h1r.ops import ConfidenceMeasure, SampleOutput
from falcon_h1r.ops.reference import mix64
from falcon_h1r.tokenizer import decode_known

_PREFILL_CHUNK = 128
"""Prefill is cut at multiples of this absolute position."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """Sizes of the engine; None picks what suits the device."""

    max_num_seqs: int | None = None
    """Traces running at once: 64 on a CPU, 256 on a GPU."""
    max_num_batched_tokens: int | None = None
    """Tokens one step may compute: 2048 on a CPU, 8192 on a GPU."""
    max_model_len: int | None = None
    """Longest prompt plus answer; None is the model's context."""
    memory_bytes: int | None = None
    """Weights, states and KV blocks together; None is a share of what is free."""
    block_size: int = 16
    """Tokens a KV block."""
    seed: int = 0
    enable_prefix_caching: bool = True
    """Keep states of finished prompts, while memory lasts, for prompts that begin alike."""

    def __post_init__(self) -> None:
        for name in ("max_num_seqs", "max_num_batched_tokens", "max_model_len", "memory_bytes",
                     "block_size"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ConfigError(f"{name} is {value!r}; it must be an integer of at least 1")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise ConfigError(f"seed is {self.seed!r}; it must be an integer")


class Engine:
    """Continuous batching over one model: add requests, step until none is unfinished."""

    def __init__(
        self,
        model: FalconH1ForCausalLM,
        tokenizer: TextTokenizer | None = None,
        config: EngineConfig | None = None,
        eos_token_ids: tuple[int, ...] | None = None,
    ) -> None:
        self.config = config or EngineConfig()
        self.eos_token_ids = model.config.eos_token_ids if eos_token_ids is None else eos_token_ids
        device, dtype = model.lm_head.weight.device, model.lm_head.weight.dtype
        on_gpu = device.type == "cuda"
        max_num_seqs = self.config.max_num_seqs or (256 if on_gpu else 64)
        max_model_len = self.config.max_model_len or model.config.max_position_embeddings
        self.limits = Limits(
            vocab_size=model.config.vocab_size,
            max_model_len=min(max_model_len, model.config.max_position_embeddings),
        )
        weight_bytes = sum(p.nbytes for p in model.parameters())
        self.memory: MemoryPlan = plan_memory(
            model.config,
            dtype=dtype,
            weight_bytes=weight_bytes,
            memory_bytes=self.config.memory_bytes or default_memory_bytes(device, weight_bytes),
            max_num_seqs=max_num_seqs,
            max_model_len=self.limits.max_model_len,
            block_size=self.config.block_size,
        )
        self.scheduler = Scheduler(
            num_blocks=self.memory.num_blocks,
            block_size=self.config.block_size,
            num_slots=self.memory.num_slots,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max(
                self.config.max_num_batched_tokens or (8192 if on_gpu else 2048), max_num_seqs
            ),
            chunk_size=_PREFILL_CHUNK,
            max_model_len=self.limits.max_model_len,
            enable_prefix_caching=self.config.enable_prefix_caching,
        )
        cache = HybridCache(
            model.config,
            num_blocks=self.memory.num_blocks,
            block_size=self.config.block_size,
            num_slots=self.memory.num_slots,
            dtype=dtype,
            device=device,
        )
        self.runner = Runner(model, cache)
        self.sampler = Sampler(model.config.vocab_size)
        self.traces = TraceBook(tokenizer)
        self.weights_version = 0
        self._num_requests = 0
        self._pending: list[EngineEvent] = []

    def add_request(
        self,
        prompt_token_ids: Sequence[int] | np.ndarray[Any, Any],
        params: SamplingParams,
        *,
        num_traces: int | None = None,
        deepconf: DeepConfPolicy | None = None,
        confidence: ConfidenceMeasure = "top_logprobs",
        confidence_top: int = 20,
        stream: bool = False,
    ) -> int:
        """Queue one prompt with `num_traces` (default params.n) traces; return its request_id.

        `confidence` names the token confidence, `confidence_top` how many of the highest
        log-probabilities "top_logprobs" takes (at most a tenth of the vocabulary).
        Raises RequestError before anything is queued.
        """
        num_traces = params.n if num_traces is None else num_traces
        prompt, max_tokens = check_request(prompt_token_ids, params, num_traces, self.limits)
        request_id = self._num_requests
        seed = mix64(mix64(self.config.seed) ^ request_id) if params.seed is None else params.seed
        top = max(1, min(confidence_top, self.limits.vocab_size // 10))
        sampling = RequestSampling.build(
            params, num_traces, seed, self.eos_token_ids, prompt, confidence, top
        )
        self.scheduler.add_request(
            request_id, prompt, num_traces=num_traces, max_tokens=max_tokens, deepconf=deepconf
        )
        self._num_requests += 1
        self.sampler.add(request_id, sampling)
        self.traces.add(request_id, params, stream)
        return request_id

    def step(self) -> list[EngineEvent]:
        """Run one batch: schedule, run, sample, commit. Return what happened."""
        plan = self.scheduler.schedule()
        if plan is None:
            pending, self._pending = self._pending, []
            return pending
        with self._given_back_on_failure(plan):
            logits = self.runner.run(plan)
            sample, ends = self.sampler.sample(logits, plan)
            with held_back():  # else a row might be recorded twice, or its events be lost
                flags, said = self.traces.advance(plan, sample, ends)
                events = self.scheduler.commit(plan.id, *_columns(sample), flags)
                self.sampler.count(sample, plan)
                self._pending += [*said, *map(self._event, events)]
        pending, self._pending = self._pending, []
        return pending

    @contextmanager
    def _given_back_on_failure(self, plan: Plan) -> Iterator[None]:
        """Let a plan that fails (or is interrupted) be recomputed later; the states are lost."""
        try:
            yield
        except BaseException:
            with suppress(RequestError):  # Ctrl-C may come just after the commit
                self.scheduler.discard(plan.id)
            raise

    def _event(self, event: Event) -> EngineEvent:
        text = ""
        if event.kind == "finished" and event.trace_index is not None:
            text = self.traces.finish(event.request_id, event.trace_index)
        return EngineEvent(
            event.kind,
            event.request_id,
            event.trace_index,
            text=text,
            reason=event.reason,
            value=event.value,
        )

    def has_unfinished(self) -> bool:
        """Whether a step would still do something."""
        return bool(self._pending) or self.scheduler.has_unfinished()

    def set_answer(self, request_id: int, trace_index: int, answer_class: int | None) -> None:
        """Tell the vote which class a finished trace's answer belongs to (None: no answer)."""
        events = self.scheduler.set_answer(request_id, trace_index, answer_class)
        self._pending += [self._event(e) for e in events]

    def update_weights(self, version: int) -> None:
        """Say that the model's weights are now those of `version`; call it after they changed.

        The module is the trainer's own, so nothing is copied; what was computed with other weights
        is forgotten: no kept prefix of an earlier version is ever found again. Raises RequestError
        while a request is unfinished, since its states are of the old weights.
        """
        if self.scheduler.has_unfinished():
            raise RequestError(
                f"the weights cannot become version {version} while requests are unfinished; step "
                "to their end or abort them first"
            )
        if version != self.weights_version:
            self.scheduler.clear_prefix_cache()
            self.weights_version = version

    def tally(self, request_id: int) -> Tally:
        """Return the vote of a thinking request as it stands."""
        return self.scheduler.tally(request_id)

    def abort(self, request_id: int, trace_index: int | None = None) -> None:
        """Stop a request or one trace; its blocks and slots are free when this returns."""
        events = self.scheduler.abort(request_id, trace_index)
        self._pending += [self._event(e) for e in events]

    def output(
        self, request_id: int, trace_index: int, reason: "str | None" = None
    ) -> CompletionOutput:
        """Return what a trace has produced."""
        ids, confidences = self.scheduler.trace_output(request_id, trace_index)
        token_ids = ids.tolist()
        record = self.traces.record(request_id, trace_index)
        if record.text is not None:
            text = record.text.text
        elif self.traces.tokenizer is not None:
            said = token_ids[:-1] if record.has_end_token else token_ids
            text = decode_known(self.traces.tokenizer, said)
        else:
            text = ""
        wants_logprobs = self.sampler.requests[request_id].params.logprobs is not None
        stop_reason = record.text.stop_reason if record.text is not None else None
        return CompletionOutput(
            index=trace_index,
            text=text,
            token_ids=token_ids,
            cumulative_logprob=record.cumulative_logprob if wants_logprobs else None,
            logprobs=record.logprobs if wants_logprobs else None,
            finish_reason=reason,  # type: ignore[arg-type]
            stop_reason=stop_reason if stop_reason is not None else record.stop_token,
            confidences=confidences.tolist(),
        )

    def release(self, request_id: int) -> None:
        """Forget a finished request's records, and what was still to be told of it."""
        self.scheduler.release(request_id)
        self._pending = [event for event in self._pending if event.request_id != request_id]
        self.sampler.remove(request_id)
        self.traces.remove(request_id)

    def stats(self) -> dict[str, int]:
        """Return the scheduler's counters and the memory planned."""
        return {
            **self.scheduler.stats(),
            "weight_bytes": self.memory.weight_bytes,
            "planned_bytes": self.memory.total_bytes,
        }


def _columns(
    sample: SampleOutput,
) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    return (
        sample.token_ids.numpy().astype(np.uint32),
        sample.confidences.numpy().astype(np.float32),
    )
