"""A tiny random model and ways to run it."""

from collections.abc import Callable
from typing import Any

import pytest

from falcon_h1r import FalconH1ForCausalLM, SamplingParams
from falcon_h1r.engine.engine import Engine, EngineConfig
from falcon_h1r.engine.outputs import CompletionOutput, EngineEvent

Outputs = dict[tuple[int, int], CompletionOutput]


class ByteTokenizer:
    """Token i is the character chr(97 + i % 26); enough to test text."""

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return "".join(chr(97 + i % 26) for i in ids)

    def decode_stream(self) -> "ByteTokenizer":
        return ByteTokenizer()

    def push(self, token_id: int) -> str:
        return self.decode([token_id])

    def flush(self) -> str:
        return ""


@pytest.fixture(scope="session")
def model(make_tiny_model: Callable[..., FalconH1ForCausalLM]) -> FalconH1ForCausalLM:
    multipliers = {"key_multiplier": 1.5, "ssm_out_multiplier": 0.75}
    return make_tiny_model(seed=1, scale=4.0, eos_token_id=2, **multipliers)


@pytest.fixture
def make_engine(model: FalconH1ForCausalLM) -> Callable[..., Engine]:
    def make(**config: Any) -> Engine:
        return Engine(model, ByteTokenizer(), EngineConfig(**config))

    return make


def drain(engine: Engine, params: dict[int, SamplingParams]) -> tuple[Outputs, list[EngineEvent]]:
    """Step to the end; return every trace's output and all events."""
    events: list[EngineEvent] = []
    while engine.has_unfinished():
        events += engine.step()
    reasons = {(e.request_id, e.trace_index): e.reason for e in events if e.kind == "finished"}
    outputs = {
        (request_id, t): engine.output(request_id, t, reasons[(request_id, t)])
        for request_id, p in params.items()
        for t in range(p.n)
    }
    return outputs, events


@pytest.fixture
def run(make_engine: Callable[..., Engine]) -> Callable[..., Outputs]:
    """Run requests [(prompt, params)] on a fresh engine; return outputs by (request, trace)."""

    def go(requests: list[tuple[list[int], SamplingParams]], **config: Any) -> Outputs:
        engine = make_engine(**config)
        params = {engine.add_request(prompt, p): p for prompt, p in requests}
        return drain(engine, params)[0]

    return go
