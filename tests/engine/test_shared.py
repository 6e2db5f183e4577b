"""Several consumers of one engine: streams in turns, threads, and what a failure leaves behind."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from falcon_h1r import LLM, DeepConf, FalconH1ForCausalLM, SamplingParams
from falcon_h1r.engine.engine import Engine
from falcon_h1r.engine.interrupts import held_back
from falcon_h1r.errors import ConfigError, TokenizerError

PROMPTS = [[5, 9, 17], [30, 2, 44, 7], [61]]
PARAMS = SamplingParams(max_tokens=12, seed=4, ignore_eos=True, temperature=1.0)


@pytest.fixture
def llm(model: FalconH1ForCausalLM) -> Iterator[LLM]:
    with LLM(model) as llm:
        yield llm


def alone(llm: LLM, prompt: list[int]) -> list[int]:
    [output] = llm.generate([prompt], PARAMS)
    return output.outputs[0].token_ids


def is_empty(llm: LLM) -> bool:
    stats = llm.stats()
    return (
        not llm.engine.has_unfinished()
        and not llm.engine.sampler.requests
        and (stats["num_slots_used"] == 0)
    )


def test_streams_read_in_turns_lose_nothing(llm: LLM) -> None:
    expected = [alone(llm, prompt) for prompt in PROMPTS]
    streams = [llm.stream(prompt, PARAMS) for prompt in PROMPTS]
    found: list[list[int]] = [[] for _ in PROMPTS]
    while streams:
        for i, stream in reversed(list(enumerate(streams))):
            event = next(stream, None)
            if event is None:
                del streams[i]
            else:
                found[event.request_id % len(PROMPTS)] += event.token_ids
    assert sorted(found) == sorted(expected)
    assert is_empty(llm)


def test_generating_between_two_events_of_a_thinking(llm: LLM) -> None:
    policy = DeepConf(budget=6, warmup=2, window=4)
    prompts: Any = [PROMPTS[0]]
    [expected] = llm.think(prompts, policy, PARAMS)
    events = llm.think_stream(prompts, policy, PARAMS)
    seen = [next(events) for _ in range(3)]
    assert alone(llm, PROMPTS[1])
    seen += list(events)
    assert seen[-1].kind == "result"
    assert seen[-1].result is not None
    assert [t.token_ids for t in seen[-1].result.traces] == [t.token_ids for t in expected.traces]


def test_threads_share_an_llm(llm: LLM) -> None:
    expected = {i: alone(llm, prompt) for i, prompt in enumerate(PROMPTS)}
    found: dict[int, list[list[int]]] = {i: [] for i in expected}

    def work(i: int) -> None:
        for _ in range(5):
            found[i].append(alone(llm, PROMPTS[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {i: [tokens] * 5 for i, tokens in expected.items()}
    assert is_empty(llm)


@pytest.mark.parametrize("call", ["generate", "think", "stream"])
def test_an_error_in_a_step_leaves_nothing_behind(
    llm: LLM, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(llm.engine.runner, "run", lambda plan: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            if call == "generate":
                llm.generate(PROMPTS, PARAMS)
            elif call == "think":
                llm.think(PROMPTS, DeepConf(budget=4), PARAMS)
            else:
                list(llm.stream(PROMPTS[0], PARAMS))
    assert is_empty(llm)
    assert alone(llm, PROMPTS[0])


def test_an_answer_that_cannot_be_judged_leaves_nothing_behind(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object, **options: object) -> None:
        raise ConfigError("no judge")

    monkeypatch.setattr("falcon_h1r.thinking.think.extract", refuse)
    with pytest.raises(ConfigError, match="no judge"):
        llm.think(PROMPTS, DeepConf(budget=4, warmup=2), PARAMS)
    assert is_empty(llm)


def test_numbers_of_numpy_are_numbers(llm: LLM) -> None:
    given = SamplingParams(
        seed=np.int64(4), max_tokens=np.int32(12), temperature=np.float32(1.0), ignore_eos=True  # type: ignore[arg-type]
    )  # fmt: skip
    assert given == PARAMS
    [output] = llm.generate(np.array(PROMPTS[0]), given)  # type: ignore[arg-type]
    assert output.outputs[0].token_ids == alone(llm, PROMPTS[0])
    with pytest.raises(ConfigError, match=r"seed is 1\.5; it must be an integer"):
        LLM(llm.model, seed=1.5)  # type: ignore[arg-type]


def test_closing_twice_is_closing(model: FalconH1ForCausalLM) -> None:
    with LLM(model) as llm:
        llm.close()
    llm.close()


def test_new_weights_after_a_stream_that_was_closed(llm: LLM) -> None:
    stream = llm.stream(PROMPTS[0], PARAMS)
    next(stream)
    stream.close()
    llm.engine.update_weights(1)


class Narrow:
    """Knows the tokens below 48 of 96, as a tokenizer beside padded embeddings."""

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        if any(i >= 48 for i in ids):
            raise TokenizerError("unknown id")
        return "".join(chr(65 + i) for i in ids)

    def decode_stream(self) -> "Narrow":
        return Narrow()

    def push(self, token_id: int) -> str:
        return self.decode([token_id])

    def flush(self) -> str:
        return ""


@pytest.mark.parametrize("stop", [(), ("no such text",)])
def test_tokens_that_the_tokenizer_lacks_say_nothing(
    model: FalconH1ForCausalLM, stop: tuple[str, ...]
) -> None:
    engine = Engine(model, Narrow())
    params = SamplingParams(max_tokens=40, seed=1, ignore_eos=True, logprobs=5, stop=stop)
    request_id = engine.add_request(PROMPTS[0], params)
    while engine.has_unfinished():
        engine.step()
    output = engine.output(request_id, 0, "length")
    assert any(i >= 48 for i in output.token_ids)
    assert output.text == "".join(chr(65 + i) for i in output.token_ids if i < 48)
    assert output.logprobs is not None
    assert any(v.decoded_token is None for step in output.logprobs for v in step.values())


def test_an_ending_token_is_no_text_in_any_way(
    make_engine: Callable[..., Engine], model: FalconH1ForCausalLM
) -> None:
    tokens = _tokens(make_engine, SamplingParams(max_tokens=9, seed=3, ignore_eos=True))
    end = tokens[5]
    cut = "".join(chr(97 + t % 26) for t in tokens[: tokens.index(end)])
    for stop in ((), ("!!",)):
        params = SamplingParams(max_tokens=9, seed=3, ignore_eos=True, stop_token_ids=(end,),
                                stop=stop)  # fmt: skip
        engine = make_engine()
        request_id = engine.add_request(PROMPTS[0], params, stream=True)
        streamed = ""
        while engine.has_unfinished():
            streamed += "".join(e.text for e in engine.step())
        assert engine.output(request_id, 0, "stop").text == streamed == cut
        plain = make_engine()
        request_id = plain.add_request(PROMPTS[0], params)
        while plain.has_unfinished():
            plain.step()
        assert plain.output(request_id, 0, "stop").text == cut


def _tokens(make_engine: Callable[..., Engine], params: SamplingParams) -> list[int]:
    engine = make_engine()
    request_id = engine.add_request(PROMPTS[0], params)
    while engine.has_unfinished():
        engine.step()
    return engine.output(request_id, 0, "length").token_ids


def test_min_tokens_holds_back_stop_strings(make_engine: Callable[..., Engine]) -> None:
    tokens = _tokens(make_engine, SamplingParams(max_tokens=20, seed=3, ignore_eos=True))
    stop = chr(97 + tokens[2] % 26)
    early = _tokens(make_engine, SamplingParams(max_tokens=20, seed=3, ignore_eos=True, stop=stop))
    assert len(early) <= 3
    late = SamplingParams(max_tokens=20, seed=3, ignore_eos=True, stop=stop, min_tokens=10)
    assert len(_tokens(make_engine, late)) > 10


def test_a_row_of_nan_records_nothing(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    params = SamplingParams(max_tokens=8, ignore_eos=True, logprobs=0, stop=("!!",))
    request_id = engine.add_request(PROMPTS[0], params)
    plain = engine.runner.run

    def run(plan: Any) -> torch.Tensor:
        logits = plain(plan).clone()
        return (
            torch.full_like(logits, torch.nan) if (plan.sample_output_lens == 3).any() else logits
        )

    monkeypatch.setattr(engine.runner, "run", run)
    while engine.has_unfinished():
        engine.step()
    output = engine.output(request_id, 0, "error")
    assert output.logprobs is not None
    assert len(output.token_ids) == len(output.logprobs) == len(output.text) == 3


def interrupt_after(count: int) -> Callable[..., Any]:
    """A profile function that sends Ctrl-C at the `count`-th call or return it sees."""
    seen = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)

    return profile


def test_ctrl_c_at_any_moment_of_a_step_loses_nothing_of_others(llm: LLM) -> None:
    """One consumer is interrupted somewhere, the other still gets every token once."""
    params = replace(PARAMS, logprobs=0)
    [expected] = llm.generate([PROMPTS[0]], params)
    interrupted = 0
    for count in range(20, 1600, 37):
        other = llm.stream(PROMPTS[0], params)
        tokens = list(next(other).token_ids)
        sys.setprofile(interrupt_after(count))
        try:
            [output] = llm.generate([PROMPTS[1]], params)
            interrupted += not output.finished
        except KeyboardInterrupt:
            interrupted += 1
        else:
            [trace] = output.outputs
            assert trace.logprobs is not None and len(trace.logprobs) == len(trace.token_ids)
        finally:
            sys.setprofile(None)
        for event in other:
            tokens += event.token_ids
        assert tokens == expected.outputs[0].token_ids
        assert is_empty(llm)
    assert interrupted > 10


def test_a_second_ctrl_c_comes_through_at_once() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), held_back():
        signal.raise_signal(signal.SIGINT)
        reached.append("first")
        signal.raise_signal(signal.SIGINT)
        reached.append("second")
    assert reached == ["first"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_stream_collected_in_the_middle_of_a_step(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = alone(llm, PROMPTS[1])
    for make in (
        lambda: llm.stream(PROMPTS[0], PARAMS),
        lambda: llm.think_stream([PROMPTS[0]], DeepConf(budget=4, warmup=2), PARAMS),
    ):
        left = [make()]
        next(left[0])
        run = llm.engine.runner.run

        def collecting(plan: Any, run: Any = run, left: Any = left) -> Any:
            logits = run(plan)
            left.clear()
            return logits

        with monkeypatch.context() as patch:
            patch.setattr(llm.engine.runner, "run", collecting)
            assert alone(llm, PROMPTS[1]) == expected
        assert is_empty(llm)
