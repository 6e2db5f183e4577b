"""Thinking over the real engine and a tiny random model: confidences, votes, Ctrl-C, sharing.

T tokens of prompt and answer, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import thinking_oracle as oracle
import torch

from falcon_h1r import FalconH1ForCausalLM, SamplingParams
from falcon_h1r.engine.engine import Engine, EngineConfig
from falcon_h1r.thinking.answers import extract
from falcon_h1r.thinking.deepconf import DeepConf, ThinkingDefaults
from falcon_h1r.thinking.results import ThinkingResult
from falcon_h1r.thinking.think import Thinking

PROMPT = [5, 90, 33, 7, 250, 61]
VOCABULARY = 300
EOS = tuple(range(240, 300))
"""A fifth of the vocabulary ends a trace, so random traces stay short."""
PARAMS = SamplingParams(temperature=1.0, seed=11, max_tokens=48)


class Digits:
    """Token i is a digit; a trace's answer is its last three tokens modulo 3."""

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return "".join(f"answer: {i % 3}\n" for i in ids)

    def decode_stream(self) -> "Digits":
        return self

    def push(self, token_id: int) -> str:
        return self.decode([token_id])

    def flush(self) -> str:
        return ""


@pytest.fixture(scope="module")
def model(make_tiny_model: Callable[..., FalconH1ForCausalLM]) -> FalconH1ForCausalLM:
    return make_tiny_model(seed=3, scale=6.0, vocab_size=VOCABULARY, max_position_embeddings=256)


@pytest.fixture
def make_engine(model: FalconH1ForCausalLM) -> Callable[..., Engine]:
    def make(**config: Any) -> Engine:
        return Engine(model, Digits(), EngineConfig(**config), EOS)

    return make


def config(**changes: Any) -> DeepConf:
    options: dict[str, Any] = {"budget": 24, "warmup": 6, "window": 4}
    return DeepConf(**(options | changes)).resolved(ThinkingDefaults())


def run(engine: Engine, deepconf: DeepConf, prompts: Any = (PROMPT,)) -> list[ThinkingResult]:
    return Thinking(engine, prompts, deepconf, PARAMS).run()


def test_confidences_are_those_of_the_raw_logits(
    model: FalconH1ForCausalLM, make_engine: Callable[..., Engine]
) -> None:
    """Temperature and top-p must not touch them."""
    params = SamplingParams(temperature=0.5, top_p=0.7, seed=1, max_tokens=24)
    deepconf = config(mode="offline", budget=6, warmup=1)
    (result,) = Thinking(make_engine(), [PROMPT], deepconf, params).run()
    for trace in result.traces:
        ids = torch.tensor(PROMPT + trace.token_ids)  # [T]
        with torch.no_grad():
            logits = model.forward_packed(ids, torch.tensor([0, len(ids)]))  # [T, V]
        logprobs = torch.log_softmax(logits.double(), dim=-1)[len(PROMPT) - 1 : -1]
        expected = -logprobs.topk(20, dim=-1).values.mean(dim=-1)
        assert np.allclose(trace.confidences, expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("vote", ["lowest_group", "tail", "majority"])
@pytest.mark.parametrize("confidence", ["top_logprobs", "logprob", "entropy"])
def test_online_is_the_paper_over_the_full_traces(
    vote: Any, confidence: Any, make_engine: Callable[..., Engine]
) -> None:
    """An offline run at the same seed gives the full traces: law 1."""
    offline = config(mode="offline", vote=vote, confidence=confidence)
    online = config(keep=0.6, vote=vote, confidence=confidence, consensus=0.7)
    engine = make_engine()
    ((full,), (live,)) = run(engine, offline), run(engine, online)
    traces = [
        (extract(t.text, final_line=t.stopped_by == "stop"), t.confidences) for t in full.traces
    ]
    expected = oracle.online(traces, online)
    assert live.answer == expected["answer"] and live.majority_answer == expected["majority"]
    assert live.votes == pytest.approx(expected["votes"], rel=1e-5)
    assert live.threshold == pytest.approx(expected["threshold"], rel=1e-5)
    assert (live.consensus and live.consensus[0]) == expected["consensus"]
    for trace, whole in zip(live.traces, full.traces, strict=True):
        assert trace.token_ids == whole.token_ids[: len(trace.token_ids)]
        same = whole.confidences[: len(trace.confidences)]
        assert trace.confidences == pytest.approx(same, rel=1e-5, abs=1e-5)
    assert live.num_tokens < full.num_tokens


def test_the_vote_does_not_depend_on_the_batch(make_engine: Callable[..., Engine]) -> None:
    first, *others = (
        run(make_engine(max_num_seqs=n), config(consensus=0.7))[0] for n in (1, 5, 64)
    )
    for other in others:
        assert (other.answer, other.consensus) == (first.answer, first.consensus)
        assert other.votes == pytest.approx(first.votes, rel=1e-5)
        assert other.threshold == pytest.approx(first.threshold, rel=1e-5)


def test_the_prompt_is_computed_once(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    run(engine, config(mode="offline"))
    assert engine.stats()["num_prompt_tokens_computed"] == len(PROMPT)
    assert engine.stats()["num_blocks_used"] == engine.stats()["num_slots_used"] == 0


@pytest.mark.parametrize("part", ["runner.run", "sampler.sample", "scheduler.commit"])
def test_ctrl_c_in_the_middle_of_a_step(
    part: str, make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(max_num_seqs=4)
    owner_name, _, name = part.partition(".")
    owner = getattr(engine, owner_name)
    calls = 0

    class Interrupting:
        def __getattr__(self, other: str) -> Any:
            return interrupted if other == name else getattr(owner, other)

    def interrupted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 15:
            raise KeyboardInterrupt
        return getattr(owner, name)(*args)

    monkeypatch.setattr(engine, owner_name, Interrupting())
    (result,) = run(engine, config())
    assert result.partial and any(t.stopped_by == "abort" for t in result.traces)
    assert engine.stats()["num_blocks_used"] == engine.stats()["num_slots_used"] == 0
    monkeypatch.undo()
    again = run(engine, config())[0]
    (expected,) = run(make_engine(), config())
    assert not again.partial and again.answer == expected.answer
    assert again.votes == pytest.approx(expected.votes, rel=1e-5)


def test_other_requests_of_the_engine_are_left_alone(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    other = engine.add_request([9, 9, 9], SamplingParams(max_tokens=5, ignore_eos=True, seed=2))
    run(engine, config())
    while engine.has_unfinished():
        engine.step()
    assert len(engine.output(other, 0).token_ids) == 5
