"""The choice of a vote's weights: each part against a slow definition, then the whole choice."""

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from falcon_h1r import ConfidenceTracker, reference_model_path
from falcon_h1r.errors import ConfigError, FalconH1RError
from falcon_h1r.thinking.deepconf import DeepConf
from falcon_h1r.thinking.record import read_record, replay_record
from falcon_h1r.train import calibrate as room
from falcon_h1r.train.calibration import (
    KEEPS,
    MEASURES,
    POWERS,
    START,
    WINDOWS,
    JudgedTrace,
    by_problem,
    calibration_section,
    choose,
    lowest_group,
    right_by_halves,
    score,
    voted,
)
from falcon_h1r.train.checkpoint import verify_folder


@pytest.mark.parametrize("window", [1, 4, 9])
def test_lowest_group_is_the_trackers(window: int) -> None:
    rng = np.random.default_rng(window)
    for length in (1, 3, 4, 5, 30):
        values = rng.normal(size=length)
        tracker = ConfidenceTracker(window=window)
        for value in values:
            tracker.push(value)
        assert lowest_group(values, window) == pytest.approx(tracker.lowest_group, abs=1e-12)


def traces(rng: np.random.Generator, count: int) -> list[JudgedTrace]:
    """Right and wrong traces that only a dip of four tokens in the log-probability tells apart."""
    made = []
    for i in range(count):
        is_right = i % 2 == 0
        logprob = rng.normal(-0.2, 0.05, 60)
        if not is_right:
            start = rng.integers(0, 50)
            logprob[start : start + 8] -= 1.0
        confidences = {
            "logprob": logprob,
            "entropy": rng.normal(size=60),
            "top_logprobs": rng.normal(size=60),
        }
        made.append(judged(i // 10, is_right, confidences))
    return made


def judged(
    problem: int, is_right: bool, confidences: dict[str, Any], answer: int = 1
) -> JudgedTrace:
    return JudgedTrace(
        problem=problem,
        answer_class=0 if is_right else answer,
        is_right=is_right,
        confidences=confidences,
    )


def test_a_telling_measure_wins_votes_and_noise_does_not() -> None:
    """Half of the traces are right: only weights can decide."""
    problems = by_problem(traces(np.random.default_rng(0), 80))
    assert score(problems, "logprob", 8, [32]) == [1.0]
    assert score(problems, "entropy", 8, [1])[0] < 0.8


@pytest.mark.parametrize("count", [1, 2, 7, 12])
def test_votes_by_halves_are_those_of_the_scheduler(count: int) -> None:
    """Every half as a vote of its own, by the policy that the engine runs."""
    rng = np.random.default_rng(count)
    for _ in range(4):
        made = []
        for _ in range(count):
            answer = int(rng.integers(0, 4))
            values = {m: rng.random(int(rng.integers(3, 30))) for m in MEASURES}
            values["logprob"] *= -1
            values["entropy"] *= -1
            made.append(judged(0, answer == 0, values, answer))
        made[0] = dataclasses.replace(made[0], answer_class=None, is_right=False)
        half = max(1, count // 2)
        for measure in MEASURES:
            shares = right_by_halves(made, measure, 5, [1, 7, 16])
            for power, share in zip((1, 7, 16), shares, strict=True):
                config = DeepConf(
                    mode="offline", keep=1.0, window=5, confidence=measure, power=power,
                    consensus=None, budget=half, warmup=1,
                )  # fmt: skip
                halves = [[made[(at + i) % count] for i in range(half)] for at in range(count)]
                assert share == sum(voted([each], config).right for each in halves) / count


def test_votes_are_those_of_the_replayed_record(tmp_path: Path) -> None:
    """Against `replay_record`, which makes whole results of a record."""
    rng = np.random.default_rng(3)
    made, lines = [], []
    for problem in range(6):
        config = {"type": "request", "prompt_index": problem, "prompt_token_ids": [1],
                  "deepconf": {}, "sampling_params": {}}  # fmt: skip
        lines.append(config)
        for index in range(12):
            logprob = rng.normal(-0.3, 0.2, int(rng.integers(5, 40)))
            answer = int(rng.integers(0, 3))
            made.append(judged(problem, answer == 0, {"logprob": logprob}, answer))
            lines.append({"type": "trace", "prompt_index": problem, "index": index, "text": "",
                          "token_ids": [1] * len(logprob), "answer": str(answer),
                          "confidences": logprob.tolist(), "stopped_by": "stop"})  # fmt: skip
    path = tmp_path / "record.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for keep in KEEPS:
        policy = DeepConf(
            budget=12, warmup=6, confidence="logprob", window=4, keep=keep, consensus=0.9
        )
        results = [replay_record(prompt, policy) for prompt in read_record(path)]
        found = voted(by_problem(made), policy)
        assert found.right == sum(result.answer == "0" for result in results)
        assert found.tokens == sum(result.num_tokens for result in results)
    policy = DeepConf(confidence="logprob", window=4, keep=1.0)
    offline = dataclasses.replace(policy, mode="offline", vote="majority", consensus=None)
    assert voted(by_problem(made), offline).tokens == sum(
        len(t.confidences["logprob"]) for t in made
    )
    offline_results = [
        replay_record(prompt, dataclasses.replace(offline, budget=12, warmup=6))
        for prompt in read_record(path)
    ]
    majority = sum(result.majority_answer == "0" for result in offline_results)
    assert voted(by_problem(made), offline).right == majority


def test_every_trace_is_the_first_once() -> None:
    problems = by_problem(traces(np.random.default_rng(2), 40))
    config = DeepConf(confidence="logprob", window=4, keep=0.6, power=1, consensus=0.8)
    turned = [[*p[i:], *p[:i]] for p in problems for i in range(len(p))]
    every = [voted([traces], config) for traces in turned]
    found = voted(problems, config, turns=True)
    assert found.right == pytest.approx(sum(each.right for each in every) / 10)
    assert found.tokens == pytest.approx(sum(each.tokens for each in every) / 10)


def test_keep_is_the_thriftiest_that_costs_no_answer() -> None:
    """Weak traces are wrong in one set, and right in the other."""
    rng = np.random.default_rng(4)
    for weak_is_wrong in (True, False):
        made = []
        for i in range(320):
            is_weak = i % 16 % 3 == 0
            logprob = rng.normal(-0.2, 0.02, 40)
            logprob[10:20] -= is_weak
            is_right = is_weak != weak_is_wrong
            confidences = {"logprob": logprob}
            confidences |= {name: rng.random(40) for name in ("entropy", "top_logprobs")}
            made.append(judged(i // 16, is_right, confidences, 1 + i % 7))
        found = choose(made, {"keep": 0.9}, search_keep=True)
        assert found.thinking["keep"] in KEEPS
        chosen = next(each for each in found.keeps if each.keep == found.thinking["keep"])
        lost = [max(0, round(found.full.right - each.right)) for each in found.keeps]
        assert max(0, round(found.full.right - chosen.right)) == min(lost)
        assert chosen.tokens == min(
            each.tokens for each, n in zip(found.keeps, lost, strict=True) if n == min(lost)
        )
        if weak_is_wrong:
            assert lost == [0] * len(KEEPS)
            assert chosen.tokens < 0.8 * found.full.tokens
        assert f"`keep` {chosen.keep}" in calibration_section(found)
    found = choose(made, {"keep": 0.4}, search_keep=False)
    assert (found.thinking["keep"], found.keeps) == (0.4, [])
    assert "`keep`" not in calibration_section(found)


class NoModel:
    """Stands for an LLM whose traces are given."""

    def __init__(self, folder: Path) -> None:
        assert json.loads((folder / "thinking.json").read_text())["keep"] == 0.5

    def __enter__(self) -> "NoModel":
        return self

    def __exit__(self, *details: object) -> None:
        pass


def judged_as(given: list[JudgedTrace], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LLM", NoModel)
    monkeypatch.setattr(room, "judged_traces", lambda llm, **ways: given)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "thinking.json", "manifest.json"):
        (folder / name).write_text("{}")
    save_file({"x": np.zeros(1)}, folder / "model.safetensors")
    return folder


def test_the_best_measure_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_as(traces(np.random.default_rng(1), 60), monkeypatch)
    for _ in range(2):  # again over its own output
        found = room.calibrate(source, tmp_path / "out", keep=0.5)
    written = json.loads((tmp_path / "out" / "thinking.json").read_text())
    assert written == found.thinking
    assert written["confidence"] == "logprob"
    assert written["window"] in WINDOWS
    assert written["power"] in POWERS
    assert (found.problems, found.traces) == (6, 60)
    assert verify_folder(tmp_path / "out") is None
    assert {"config.json", "model.safetensors", "calibration.json"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    assert (source / "thinking.json").read_text() == "{}"
    section = calibration_section(found)
    assert f"logprob, window {written['window']}, power {written['power']}:" in section
    assert "most often, in 100.0 %" in section and "6 held-out problems" in section
    assert "| logprob | 100.0 (" in section


def test_without_wrong_traces_the_start_stays(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_as([t for t in traces(np.random.default_rng(1), 20) if t.is_right], monkeypatch)
    found = room.calibrate(source, tmp_path / "out", keep=0.5)
    assert found.thinking.items() >= START.items()
    assert "| entropy | 100.0 (1) |" in calibration_section(found)


def test_without_problems_the_start_stays(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_as([], monkeypatch)
    assert room.calibrate(source, tmp_path / "out", keep=0.5).thinking.items() >= START.items()


def test_refusals_come_before_anything_is_made(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean sums"):
        room.calibrate(source, tmp_path / "out", families=["sum"])
    with pytest.raises(ConfigError, match="keep is"):
        room.calibrate(source, tmp_path / "out", keep=1.5)
    with pytest.raises(ConfigError, match="was not written by calibrate"):
        room.calibrate(source, source)
    assert not (tmp_path / "out").exists()


def test_ctrl_c_and_the_same_command_goes_on(tmp_path: Path) -> None:
    output = tmp_path / "made" / "calibrated"
    command = [
        sys.executable, "-m", "falcon_h1r.cli.main", "calibrate",
        "--model", str(reference_model_path()), "--output", str(output),
        "--families", "sums,navigate,lies", "--levels", "2", "--problems", "3", "--traces", "4",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline().startswith("1/3 sums@2: ")
        first.send_signal(signal.SIGINT)
        assert "stopped; the same command goes on" in first.stdout.read()
    assert first.returncode == 130
    assert not output.exists()
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1/3 sums@2: " in second.stdout and "(of an earlier run)" in second.stdout
    assert verify_folder(output) is None
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_the_models_own_system_prompt_stays(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_as([], monkeypatch)
    (source / "thinking.json").write_text('{"system_prompt": "Think.", "temperature": 0.1}')
    thinking = room.calibrate(source, tmp_path / "out", keep=0.5).thinking
    assert (thinking["system_prompt"], thinking["temperature"]) == ("Think.", 0.7)


def test_nothing_is_left_of_a_model_that_cannot_be_read(source: Path, tmp_path: Path) -> None:
    with pytest.raises(FalconH1RError):
        room.calibrate(source, tmp_path / "out", keep=0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
