"""A tiny random model and ways to run it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from falcon_h1r import FalconH1Config, FalconH1ForCausalLM, SamplingParams
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
def model() -> FalconH1ForCausalLM:
    config = FalconH1Config(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        mamba_d_ssm=64,
        mamba_n_heads=4,
        mamba_d_state=16,
        max_position_embeddings=1024,
        eos_token_id=2,
        key_multiplier=1.5,
        ssm_out_multiplier=0.75,
    )
    model = FalconH1ForCausalLM(config)
    model.reset_parameters(seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    return model.eval()


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
