"""The driver over scripted traces, held against the slow transcription of the paper."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import thinking_oracle as oracle
from thinking_fake import FakeEngine, Script, random_scripts

from falcon_h1r.engine.params import SamplingParams
from falcon_h1r.errors import RequestError, TokenizerError
from falcon_h1r.thinking import think as driver
from falcon_h1r.thinking.answers import extract
from falcon_h1r.thinking.deepconf import DeepConf, ThinkingDefaults
from falcon_h1r.thinking.record import read_record, replay_record
from falcon_h1r.thinking.results import ThinkingEvent, ThinkingResult
from falcon_h1r.thinking.think import Thinking

BUDGET = 24


def config(**changes: Any) -> DeepConf:
    options: dict[str, Any] = {"budget": BUDGET, "window": 8}
    return DeepConf(**(options | changes)).resolved(ThinkingDefaults(warmup=6))


def run(script: Script, deepconf: DeepConf, **options: Any) -> ThinkingResult:
    (result,) = think(FakeEngine({1: script}, **options), [[1, 2, 3]], deepconf)
    return result


def think(engine: FakeEngine, prompts: Any, deepconf: DeepConf, **options: Any) -> Any:
    return Thinking(engine, prompts, deepconf, **options).run()


def full_traces(script: Script) -> list[tuple[str | None, list[float]]]:
    return [(extract(text), values) for text, values in script]


@pytest.mark.parametrize("vote", ["majority", "mean", "tail", "bottom_groups", "lowest_group"])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("keep", [0.9, 0.5, 0.1])
def test_online_is_the_paper(vote: Any, seed: int, keep: float) -> None:
    script = random_scripts(seed, BUDGET)
    deepconf = config(
        vote=vote, keep=keep, power=1 + seed % 4, consensus=[None, 0.8, 0.95][seed % 3]
    )
    result = run(script, deepconf)
    expected = oracle.online(full_traces(script), deepconf)
    assert result.answer == expected["answer"]
    assert result.majority_answer == expected["majority"]
    assert result.threshold == pytest.approx(expected["threshold"], rel=1e-12)
    assert result.votes == pytest.approx(expected["votes"], rel=1e-12)
    assert (result.consensus and result.consensus[0]) == expected["consensus"]
    counted = BUDGET if expected["consensus"] is None else expected["consensus"] + 1
    for trace in result.traces[:counted]:
        assert trace.stopped_by == ("confidence" if trace.index in expected["stopped"] else "stop")
        length = expected["stopped"].get(trace.index, len(script[trace.index][1]))
        assert len(trace.token_ids) == len(trace.confidences) == length
        assert trace.lowest_group == pytest.approx(min(oracle.groups(trace.confidences, 8)))
    assert all(trace.weight is None for trace in result.traces[counted:])


@pytest.mark.parametrize("vote", ["majority", "mean", "tail", "bottom_groups", "lowest_group"])
@pytest.mark.parametrize("confidence", ["top_logprobs", "logprob"])
@pytest.mark.parametrize("keep", [1.0, 0.5, 0.1])
def test_offline_is_the_paper(vote: Any, confidence: Any, keep: float) -> None:
    script = random_scripts(7, BUDGET)
    deepconf = config(mode="offline", vote=vote, confidence=confidence, keep=keep, power=2.5)
    result = run(script, deepconf)
    expected = oracle.offline(full_traces(script), deepconf)
    assert result.answer == expected["answer"]
    assert result.majority_answer == expected["majority"]
    assert result.votes == pytest.approx(expected["votes"], rel=1e-12)
    assert result.threshold is None
    assert not any(trace.is_warmup for trace in result.traces)
    assert [len(t.token_ids) for t in result.traces] == [len(text) for text, _ in script]


def test_the_outcome_does_not_depend_on_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow answers, another batch size: the same vote; only the tokens spent may differ."""
    script = random_scripts(3, BUDGET)
    results = [run(script, config(consensus=0.8), max_num_seqs=n) for n in (1, 3, 8, 64)]
    gate = threading.Event()

    def slow(text: str, **options: Any) -> str | None:
        gate.wait(0.02)
        return extract(text, **options)

    monkeypatch.setattr(driver, "extract", slow)
    monkeypatch.setattr(driver, "ANSWER_GRACE", 0.0)
    results.append(run(script, config(consensus=0.8), max_num_seqs=8))
    assert results[0].consensus is not None
    for result in results[1:]:
        for name in ("answer", "votes", "majority_answer", "threshold", "consensus"):
            assert getattr(result, name) == getattr(results[0], name)
        assert [t.weight for t in result.traces] == [t.weight for t in results[0].traces]
    assert results[-1].num_tokens >= results[0].num_tokens


def test_consensus_stops_the_rest() -> None:
    script: Script = [("the answer is 7", [9.0] * 15)] * BUDGET
    result = run(script, config(window=4), max_num_seqs=6)
    assert result.consensus == (5, 1.0)
    assert {t.stopped_by for t in result.traces[6:]} == {"consensus"}
    assert result.num_tokens < 15 * BUDGET
    assert result.num_tokens_saved == 15 * BUDGET - result.num_tokens


def test_equal_answers_count_as_one() -> None:
    answers = ["1/2", "0.5", r"\frac{1}{2}", "3", "3.0"]
    script: Script = [(rf"so \boxed{{{a}}}", [5.0] * 30) for a in answers]
    result = run(script, config(budget=5, warmup=5, consensus=None, vote="majority", keep=1.0))
    assert result.votes == {"1/2": 3.0, "3": 2.0}
    assert [t.answer for t in result.traces] == ["1/2", "1/2", "1/2", "3", "3"]


class Letters:
    """`</think>` is the one token "|", left out of decoded text."""

    def token_to_id(self, token: str) -> int | None:
        return ord("|") if token == "</think>" else None

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(i) for i in ids if i != ord("|"))


def test_a_control_token_may_end_the_thought() -> None:
    texts = [r"\boxed{1}|The answer is 2", "2|3||4", "answer is 5", "answer is 6|"]
    script: Script = [(text, [5.0] * len(text)) for text in texts]
    result = think(
        FakeEngine({1: script}), [[1]], config(budget=4, consensus=None), tokenizer=Letters()
    )[0]
    assert [t.answer for t in result.traces] == ["2", "4", "5", None]


def test_a_token_that_the_tokenizer_lacks_ends_no_vote() -> None:
    class Narrow(Letters):
        def decode(self, ids: list[int]) -> str:
            if max(ids) >= 128:
                raise TokenizerError("unknown id")
            return super().decode(ids)

        def decode_stream(self) -> "Narrow":
            return self

        def push(self, token_id: int) -> str:
            return self.decode([token_id])

        def flush(self) -> str:
            return ""

    texts = ["3|The answer is 4\u0222", "3|The answer is \u02224"]
    script: Script = [(text, [5.0] * len(text)) for text in texts]
    deepconf = config(budget=2, warmup=1, consensus=None)
    (result,) = think(FakeEngine({1: script}), [[1, 900]], deepconf, tokenizer=Narrow())
    assert [t.answer for t in result.traces] == ["4", "4"]


def test_an_open_thought_that_is_cut_off_has_no_answer() -> None:
    """What it would say in its middle is no answer; closed, or where none was opened, it is."""

    class Opening(Letters):
        def token_to_id(self, token: str) -> int | None:
            return ord("{") if token == "<think>" else super().token_to_id(token)

    texts = [f"{start} so on and on and on and on" for start in (r"\boxed{5}", r"1|\boxed{6}")]
    script: Script = [(text, [5.0] * len(text)) for text in texts]
    for prompt, answers in (([1, ord("{")], [None, "6"]), ([1, 2], ["5", "6"])):
        (result,) = think(
            FakeEngine({1: script}),
            [prompt],
            config(budget=2, warmup=1, consensus=None),
            tokenizer=Opening(),
            sampling_params=SamplingParams(max_tokens=14),
        )
        assert [t.stopped_by for t in result.traces] == ["length", "length"]
        assert [t.answer for t in result.traces] == answers


def test_no_answer_at_all() -> None:
    script: Script = [("<think> and so on", [5.0] * 17)] * 4
    result = run(script, config(budget=4, warmup=2))
    assert result.answer is None and result.votes == {} and result.majority_answer is None
    assert all(t.answer is None and t.weight is None for t in result.traces)


def test_several_prompts_run_in_one_engine_each_as_alone() -> None:
    scripts = {i: random_scripts(i, BUDGET) for i in (1, 2, 3)}
    together = think(FakeEngine(scripts), [[1, 5], [2, 5], [3, 5]], config())
    for i, result in zip((1, 2, 3), together, strict=True):
        (alone,) = think(FakeEngine(scripts), [[i, 5]], config())
        assert (result.votes, result.threshold) == (alone.votes, alone.threshold)


def test_events_tell_the_story() -> None:
    engine = FakeEngine({1: random_scripts(4, BUDGET)})
    thinking = Thinking(engine, [[1, 2]], config(consensus=None), text=True)
    events: list[ThinkingEvent] = list(thinking.events())
    result = thinking.results[0]
    assert result is not None and events[-1].kind == "result" and events[-1].result is result
    by_kind = {kind: [e for e in events if e.kind == kind] for kind in {e.kind for e in events}}
    assert len(by_kind["started"]) == len(by_kind["stopped"]) == BUDGET
    assert [e.value for e in by_kind["threshold"]] == [result.threshold]
    assert [e.trace_index for e in by_kind["answered"]] == [
        t.index for t in result.traces if t.stopped_by == "stop"
    ]
    assert by_kind["vote"][-1].votes == result.votes
    for trace in result.traces:
        text = "".join(e.text for e in events if e.trace_index == trace.index)
        assert text == trace.text
    assert sum(len(e.token_ids) for e in by_kind["tokens"]) == result.num_tokens


@pytest.mark.parametrize("at", [1, 2, 9, 25, 40])
def test_ctrl_c_returns_what_is_done(at: int) -> None:
    engine = FakeEngine({1: random_scripts(4, BUDGET), 2: random_scripts(5, BUDGET)})
    engine.interrupt_at = at
    results = think(engine, [[1, 2], [2, 2]], config())
    assert len(results) == 2 and all(result.partial for result in results)
    for result in results:
        done = [t for t in result.traces if t.stopped_by == "stop"]
        assert all(t.answer is not None for t in done)
        assert bool(result.answer) == any(t.weight for t in result.traces)
    stats = engine.scheduler.stats()
    assert stats["num_blocks_used"] == 0 and stats["num_slots_used"] == 0
    assert engine.scheduler.has_unfinished() is False


def test_a_second_ctrl_c_leaves_no_prompt_without_a_word() -> None:
    """A list shorter than the prompts would pair answers with other prompts' questions."""
    engine = FakeEngine({i: random_scripts(3 + i, BUDGET) for i in (1, 2, 3)})
    engine.interrupt_at = 25
    release, released = engine.release, []

    def interrupted(request_id: int) -> None:
        release(request_id)
        released.append(request_id)
        if len(released) == 1:
            raise KeyboardInterrupt

    engine.release = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        think(engine, [[1, 2], [2, 2], [3, 2]], config())
    assert sorted(released) == [0, 1, 2]
    assert engine.scheduler.stats()["num_blocks_used"] == 0


def test_closing_the_stream_cancels() -> None:
    engine = FakeEngine({1: random_scripts(4, BUDGET)})
    thinking = Thinking(engine, [[1, 2]], config())
    events = thinking.events()
    for _ in range(30):
        next(events)
    events.close()
    assert engine.scheduler.stats()["num_blocks_used"] == 0
    assert thinking.results[0] is not None and thinking.results[0].partial


def test_a_refused_prompt_queues_none() -> None:
    engine = FakeEngine({1: random_scripts(4, BUDGET)})
    with pytest.raises(RequestError, match="empty"):
        think(engine, [[1, 2], []], config())
    assert not engine.scheduler.has_unfinished()


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize("seed", range(4))
def test_a_replay_is_the_run(mode: Any, seed: int, tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    script = random_scripts(seed, BUDGET)
    deepconf = config(mode=mode, keep=0.6, consensus=0.8)
    (live,) = think(FakeEngine({1: script}), [[1, 2]], deepconf, record=path)
    (recorded,) = read_record(path)
    assert recorded.deepconf == deepconf and recorded.prompt_token_ids == [1, 2]
    again = replay_record(recorded)
    for name in ("answer", "votes", "majority_answer", "threshold", "consensus"):
        assert getattr(again, name) == getattr(live, name)
    assert [t.weight for t in again.traces] == [t.weight for t in live.traces]
    assert again.num_tokens <= live.num_tokens


@pytest.mark.parametrize("keep", [0.9, 0.4])
def test_a_full_record_tells_what_another_policy_would_do(keep: float, tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    script = random_scripts(11, BUDGET)
    think(FakeEngine({1: script}), [[1, 2]], config(mode="offline"), record=path)
    (recorded,) = read_record(path)
    online = config(keep=keep, vote="tail")
    guess, live = replay_record(recorded, online), run(script, online)
    for name in ("answer", "votes", "majority_answer", "threshold", "consensus"):
        assert getattr(guess, name) == getattr(live, name)


def test_a_replay_takes_the_measure_that_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    deepconf = config(mode="offline", confidence="top_logprobs", keep=1.0)
    think(FakeEngine({1: random_scripts(3, BUDGET)}), [[1, 2]], deepconf, record=path)
    (recorded,) = read_record(path)
    unsaid = DeepConf(budget=BUDGET, warmup=2, window=deepconf.window, keep=1.0, mode="offline")
    said = replace(unsaid, confidence="top_logprobs")
    assert replay_record(recorded, unsaid).votes == replay_record(recorded, said).votes
    with pytest.raises(RequestError, match="confidence is 'logprob' but the record holds"):
        replay_record(recorded, replace(unsaid, confidence="logprob"))


def test_a_replay_says_why_traces_did_not_run(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    script = random_scripts(3, BUDGET)
    think(FakeEngine({1: script}), [[1, 2]], config(mode="offline"), record=path)
    (recorded,) = read_record(path)
    limited = config(total_tokens=13, consensus=None)
    result = replay_record(recorded, limited)
    left_out = [trace for trace in result.traces if not trace.token_ids]
    assert len(left_out) > 2
    assert {trace.stopped_by for trace in left_out} == {"length"}


def test_a_record_is_read_in_the_order_of_its_prompts(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    scripts = {i: random_scripts(i, 4) for i in (1, 2, 3)}
    think(FakeEngine(scripts), [[1], [2], [3]], config(budget=4, warmup=2), record=path)
    lines = path.read_text().splitlines()
    assert len(lines) == 3 * 6
    path.write_text("\n".join(lines[12:] + lines[:12]))  # as if the last had finished first
    assert [prompt.prompt_token_ids for prompt in read_record(path)] == [[1], [2], [3]]


def test_a_broken_record_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    think(FakeEngine({1: random_scripts(1, 4)}), [[1]], config(budget=4, warmup=2), record=path)
    lines = path.read_text().splitlines()
    lines[2] = lines[2][:-5]
    path.write_text("\n".join(lines))
    with pytest.raises(RequestError, match="line 3"):
        read_record(path)


def test_a_refused_call_leaves_an_earlier_record_alone(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    path.write_text("kept")
    with pytest.raises(RequestError):
        think(FakeEngine({1: [("5", [5.0])] * 2}), [[]], config(budget=2), record=path)
    assert path.read_text() == "kept"


def test_an_unwritable_record_is_refused_before_anything_runs(tmp_path: Path) -> None:
    engine = FakeEngine({1: random_scripts(1, 4)})
    with pytest.raises(RequestError, match="cannot be written"):
        think(engine, [[1]], config(budget=4, warmup=2), record=tmp_path / "no" / "record")
    assert not engine.scheduler.has_unfinished()
