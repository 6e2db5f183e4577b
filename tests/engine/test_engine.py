"""The engine as a user meets it: sampling parameters, stopping, cancelling, refusing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from falcon_h1r import FalconH1ForCausalLM, SamplingParams
from falcon_h1r.engine.engine import Engine
from falcon_h1r.errors import OutOfMemoryPlanError, RequestError

Run = Callable[..., dict[tuple[int, int], Any]]
PROMPT = [5, 9, 33, 70, 12]


def greedy(model: FalconH1ForCausalLM, prompt: list[int], steps: int) -> list[int]:
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(steps):
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[len(prompt) :]


def test_greedy_equals_the_plain_loop(run: Run, model: FalconH1ForCausalLM) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True)
    outputs = run([(PROMPT, params), (PROMPT[:1] * 40, params)])
    assert outputs[(0, 0)].token_ids == greedy(model, PROMPT, 20)
    assert outputs[(1, 0)].token_ids == greedy(model, PROMPT[:1] * 40, 20)
    assert outputs[(0, 0)].finish_reason == "length"


def test_prompt_is_computed_once(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(max_num_seqs=64, enable_prefix_caching=False)
    prompt = [3 + i % 90 for i in range(512)]
    engine.add_request(prompt, SamplingParams(n=64, max_tokens=4, ignore_eos=True))
    while engine.has_unfinished():
        engine.step()
    stats = engine.stats()
    assert stats["num_prompt_tokens_computed"] == 512
    assert stats["num_generated_tokens"] == 64 * 4
    assert stats["num_blocks_used"] == stats["num_slots_used"] == 0


def test_end_of_sequence_and_stop_tokens(run: Run, model: FalconH1ForCausalLM) -> None:
    path = greedy(model, PROMPT, 12)
    stop = path[5]
    first = path.index(stop)
    params = SamplingParams(temperature=0.0, max_tokens=12, stop_token_ids=(stop,), ignore_eos=True)
    output = run([(PROMPT, params)])[(0, 0)]
    assert output.token_ids == path[: first + 1]
    assert (output.finish_reason, output.stop_reason) == ("stop", stop)
    late = SamplingParams(
        temperature=0.0, max_tokens=12, stop_token_ids=(stop,), ignore_eos=True, min_tokens=12
    )
    assert stop not in run([(PROMPT, late)])[(0, 0)].token_ids


def test_stop_strings_cut_the_text(
    run: Run, make_engine: Callable[..., Engine], model: FalconH1ForCausalLM
) -> None:
    text = "".join(chr(97 + t % 26) for t in greedy(model, PROMPT, 20))
    stop = text[6:9]
    cut = text[: text.index(stop)]
    params = SamplingParams(temperature=0.0, max_tokens=20, stop=(stop, "!!"), ignore_eos=True)
    output = run([(PROMPT, params)])[(0, 0)]
    assert (output.text, output.finish_reason, output.stop_reason) == (cut, "stop", stop)
    engine = make_engine()
    engine.add_request(PROMPT, params, stream=True)
    streamed = ""
    while engine.has_unfinished():
        streamed += "".join(e.text for e in engine.step())
    assert streamed == cut


def test_penalties_follow_their_formula(run: Run, model: FalconH1ForCausalLM) -> None:
    params = SamplingParams(
        temperature=0.0, max_tokens=15, ignore_eos=True,
        presence_penalty=0.7, frequency_penalty=0.4, repetition_penalty=1.3,
    )  # fmt: skip
    tokens = list(PROMPT)
    with torch.no_grad():
        for _ in range(15):
            line = model(torch.tensor([tokens]))[0, -1]
            counts = torch.bincount(
                torch.tensor(tokens[len(PROMPT) :], dtype=torch.long), minlength=96
            )
            for token in set(tokens):
                line[token] = line[token] / 1.3 if line[token] > 0 else line[token] * 1.3
            line -= 0.4 * counts + 0.7 * (counts > 0)
            tokens.append(int(line.argmax()))
    assert run([(PROMPT, params)])[(0, 0)].token_ids == tokens[len(PROMPT) :]


def test_top_k_one_is_greedy_and_logprobs_are_listed(run: Run, model: FalconH1ForCausalLM) -> None:
    params = SamplingParams(temperature=1.0, top_k=1, max_tokens=6, logprobs=3, ignore_eos=True)
    output = run([(PROMPT, params)])[(0, 0)]
    assert output.token_ids == greedy(model, PROMPT, 6)
    assert len(output.logprobs) == 6
    for token, step in zip(output.token_ids, output.logprobs, strict=True):
        assert step[token].logprob == 0.0
        assert step[token].raw_logprob < 0.0
        assert step[token].rank == 1
        assert sorted(v.rank for v in step.values()) == [1, 2, 3]
    assert output.cumulative_logprob == 0.0


def test_cancelling_frees_at_once(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(enable_prefix_caching=False)
    request = engine.add_request(PROMPT, SamplingParams(n=8, max_tokens=50, ignore_eos=True))
    for _ in range(4):
        engine.step()
    engine.abort(request, 3)
    engine.abort(request)
    stats = engine.stats()
    assert stats["num_blocks_used"] == stats["num_slots_used"] == 0
    events = engine.step()
    assert {e.reason for e in events if e.kind == "finished"} == {"abort"}
    assert not engine.has_unfinished()


def test_a_trace_with_nan_logits_ends_alone(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def go(poison: bool) -> dict[int, list[int]]:
        engine = make_engine()
        request = engine.add_request(PROMPT, SamplingParams(n=4, max_tokens=8, ignore_eos=True))
        plain = engine.runner.run

        def run(plan: Any) -> torch.Tensor:
            logits = plain(plan).clone()
            hit = (plan.sample_traces == 2) & (plan.sample_output_lens == 3)
            if poison and hit.any():
                logits[torch.from_numpy(np.flatnonzero(hit))] = torch.nan
            return logits

        monkeypatch.setattr(engine.runner, "run", run)
        reasons = {}
        while engine.has_unfinished():
            reasons |= {e.trace_index: e.reason for e in engine.step() if e.kind == "finished"}
        assert (reasons[2] == "error") == poison
        return {t: engine.output(request, t).token_ids for t in range(4)}

    clean, poisoned = go(False), go(True)
    assert all(clean[t] == poisoned[t] for t in (0, 1, 3))
    assert poisoned[2] == clean[2][:3]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0),
        ("n", 10**6),
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("min_p", 2.0),
        ("max_tokens", 0),
        ("min_tokens", -1),
        ("logprobs", -1),
        ("repetition_penalty", 0.0),
        ("presence_penalty", float("nan")),
        ("stop", ("",)),
        ("stop", 5),
        ("stop", (5,)),
        ("stop_token_ids", (-1,)),
        ("stop_token_ids", (True,)),
        ("stop_token_ids", 5),
        ("seed", 1.5),
    ],
)
def test_refused_parameters(field: str, value: Any) -> None:
    with pytest.raises(RequestError, match=field) as caught:
        SamplingParams(**{field: value})
    shown = value[0] if isinstance(value, tuple) else value
    assert repr(shown) in str(caught.value)


def test_none_is_no_stop() -> None:
    assert SamplingParams(stop=None, stop_token_ids=None) == SamplingParams()


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "empty"),
        ([3, 96], "token id 96"),
        ([-1], "token id -1"),
        ([3] * 1024, "context"),
        ([[3], [4]], "flat"),
        ([0.5], r"\[0\.5\]; .*integers"),
        ([3, True], "True.*integers"),
        (5, "5; .*flat"),
    ],
)
def test_refused_prompts(make_engine: Callable[..., Engine], prompt: Any, message: str) -> None:
    engine = make_engine()
    with pytest.raises(RequestError, match=message):
        engine.add_request(prompt, SamplingParams())
    assert not engine.has_unfinished()


def test_refused_products_and_memory(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    with pytest.raises(RequestError, match="logprobs"):
        engine.add_request(PROMPT, SamplingParams(n=16000, logprobs=1000))
    with pytest.raises(OutOfMemoryPlanError, match="memory_bytes is 1000"):
        make_engine(memory_bytes=1000)
