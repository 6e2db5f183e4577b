"""Curation from end to end: same bytes from the same recipe, also after a kill; bad input."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from curation_helpers import SILENT, chain, contents, make_recipe, only_chains, write_lines

from falcon_h1r.errors import ConfigError, TrainingError
from falcon_h1r.train.curate import run_curate
from falcon_h1r.train.curation.gym import GymJudge
from falcon_h1r.train.curation.recipe import DifficultyRecipe
from falcon_h1r.train.curation.rollouts import Roller, Rollout
from falcon_h1r.train.samples import CuratedStream, read_samples


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return make_recipe(tmp_path)


def test_a_set_is_made_and_reported(recipe: Path, tmp_path: Path) -> None:
    made = run_curate(recipe, tmp_path / "set", **SILENT)
    assert made is not None
    assert made["read"] == {"chains": 41, "ours": 60, "school": 30}
    assert made["dropped"]["exact duplicate"]["chains"] == 1
    assert made["overlap"]["evaluation_problems"] == made["overlap"]["item"]["school"] == 1
    assert made["dropped"]["overlap"]["school"] == made["overlap"]["ngram"]["school"] < 20
    assert min(made["verified_by"][by] for by in ("reference", "verifier", "nothing")) > 0
    for name in ("rephrase", "renumber", "compose"):
        counts = made["augmented"][name]
        assert counts["proposed"] >= counts["verified"] >= counts["kept"] > 0
    assert made["samples"] == 100
    styles = {name: v["taken"] for name, v in made["mix"]["style"].items()}
    assert set(styles) == {"generated", "gsm8k", "jsonl", "rephrased", "renumbered", "composed"}
    assert sum(styles.values()) == 100
    samples = [
        s for p in sorted((tmp_path / "set").glob("samples-*.jsonl")) for s in read_samples(p)
    ]
    assert len(samples) == len({(s.problem, s.thought) for s in samples}) == 100
    assert sum(made["lengths"]["histogram"].values()) == 100
    stream = CuratedStream(tmp_path / "set", seed=0, max_length=700)
    assert sum(len(stream.document(i).token_ids) for i in range(100)) == made["tokens"]
    assert not (tmp_path / "set.work").exists()
    text = (tmp_path / "set/report.md").read_text()
    for part in ("## Dropped", "## Augmented", "## Overlap", "| difficulty |", "```"):
        assert part in text


def test_same_recipe_same_bytes_also_after_any_stop(recipe: Path, tmp_path: Path) -> None:
    run_curate(recipe, tmp_path / "whole", **SILENT)
    whole = contents(tmp_path / "whole")

    class Stopped(Exception):
        pass

    for stop_after in (1, 4, 6):
        output = tmp_path / f"stopped-{stop_after}"
        told: list[object] = []

        def watch(*words: object, told: list[object] = told, last: int = stop_after) -> None:
            told.append(words)
            if len(told) == last:
                raise Stopped

        with pytest.raises(Stopped):
            run_curate(recipe, output, watch=watch, **SILENT)
        run_curate(recipe, output, **SILENT)
        assert contents(output) == whole


def test_kill_minus_nine_resumes(recipe: Path, tmp_path: Path) -> None:
    run_curate(recipe, tmp_path / "whole", **SILENT)
    command = [sys.executable, "-m", "falcon_h1r.cli.main", "curate", "--recipe", str(recipe)]
    output = tmp_path / "killed"
    process = subprocess.Popen(
        [*command, "--output", str(output)], stdout=subprocess.DEVNULL, cwd=tmp_path
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed.work/read-00001").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    lines: list[str] = []
    run_curate(recipe, output, report=lines.append)
    assert contents(output) == contents(tmp_path / "whole")
    assert "resumed after" in lines[0] or "already made" in lines[0]


class Killed(BaseException):
    pass


def kill_while_removing(monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """Die as soon as the first file of the folder of work is gone."""
    remove = shutil.rmtree

    def torn(path: Any, *args: Any, **kwargs: Any) -> None:
        if suffix in Path(path).name and (Path(path) / "run.json").exists():
            (Path(path) / "run.json").unlink()
            raise Killed
        remove(path, *args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", torn)


def test_a_kill_while_the_work_is_removed(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the set was made, and before the first shard: a half-removed folder stops nothing."""
    run_curate(recipe, tmp_path / "whole", **SILENT)
    with monkeypatch.context() as patch:
        kill_while_removing(patch, "set.work")
        with pytest.raises(Killed):
            run_curate(recipe, tmp_path / "set", **SILENT)
    assert run_curate(recipe, tmp_path / "set", **SILENT) is not None
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")
    assert list(tmp_path.glob("*set.work*")) == []

    def kill_first(source: str, num_read: int, num_kept: int, share: float | None) -> None:
        raise Killed

    with pytest.raises(Killed):
        run_curate(recipe, tmp_path / "early", watch=kill_first, **SILENT)
    shutil.rmtree(tmp_path / "early.work/read-00000")
    with monkeypatch.context() as patch:
        kill_while_removing(patch, "early.work")
        with pytest.raises(Killed):
            run_curate(recipe, tmp_path / "early", **SILENT)
    run_curate(recipe, tmp_path / "early", **SILENT)
    assert contents(tmp_path / "early") == contents(tmp_path / "whole")


def test_an_interrupt_ends_after_a_shard_and_resumes(recipe: Path, tmp_path: Path) -> None:
    lines: list[str] = []

    def watch(source: str, num_read: int, num_kept: int, share: float | None) -> None:
        signal.raise_signal(signal.SIGINT)

    words = {"report": lines.append, "watch": watch}
    assert run_curate(recipe, tmp_path / "set", **words) is None  # type: ignore[arg-type]
    assert lines == ["stopping after this step; the same command resumes"]
    assert not (tmp_path / "set").exists()
    made = run_curate(recipe, tmp_path / "set", **SILENT)
    assert made == run_curate(recipe, tmp_path / "whole", **SILENT)
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


def test_an_interrupted_fresh_start_goes_on(recipe: Path, tmp_path: Path) -> None:
    """The set that it will replace stands beside it; neither is lost."""
    whole = run_curate(recipe, tmp_path / "set", **SILENT)
    before = contents(tmp_path / "set")

    def watch(source: str, num_read: int, num_kept: int, share: float | None) -> None:
        signal.raise_signal(signal.SIGINT)

    assert run_curate(recipe, tmp_path / "set", fresh=True, watch=watch, **SILENT) is None
    assert contents(tmp_path / "set") == before
    lines: list[str] = []
    assert run_curate(recipe, tmp_path / "set", report=lines.append) == whole
    assert lines[0].startswith("resumed after 25 records")
    assert contents(tmp_path / "set") == before
    assert not (tmp_path / "set.work").exists()


def test_another_mix_is_made_of_the_shards_that_were_read(recipe: Path, tmp_path: Path) -> None:
    words = ["mix={by: family, shares: {sums: 1, riddles: 1}}"]
    with pytest.raises((ConfigError, TrainingError), match="riddles"):
        run_curate(recipe, tmp_path / "set", words, **SILENT)
    words = ["mix={by: family, shares: {sums: 1, booleans: 1}}"]
    lines: list[str] = []
    made = run_curate(recipe, tmp_path / "set", words, report=lines.append)
    assert lines[0].startswith("resumed after")
    assert made == run_curate(recipe, tmp_path / "whole", words, **SILENT)
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


def test_what_was_dropped_does_not_come_back_augmented(recipe: Path, tmp_path: Path) -> None:
    """A short evaluation problem is known as a whole only: in a frame of words it would pass."""
    rows = [{"problem": f"{i} + {i} = ?", "thought": f"twice {i}", "answer": str(2 * i)}
            for i in range(2, 12)]  # fmt: skip
    seen = write_lines(tmp_path / "seen.jsonl", [{"question": row["problem"]} for row in rows[:9]])
    words = [*only_chains(tmp_path, rows), f"evaluation=[{seen}]",
             "augment={enabled: true, rephrase: 4, renumber: 0, compose: 4}"]  # fmt: skip
    made = run_curate(recipe, tmp_path / "set", words, **SILENT)
    assert made is not None
    assert made["dropped"]["overlap"] == {"c": 9}
    for sample in read_samples(tmp_path / "set/samples-00000.jsonl"):
        assert "11 + 11 = ?" in sample.problem
        assert not any(row["problem"] in sample.problem.replace("11 + 11 = ?", "") for row in rows)


def test_a_damaged_shard_is_made_again(recipe: Path, tmp_path: Path) -> None:
    run_curate(recipe, tmp_path / "whole", **SILENT)

    class Stopped(Exception):
        pass

    def watch(source: str, num_read: int, num_kept: int, share: float | None) -> None:
        if source == "chains":
            raise Stopped

    with pytest.raises(Stopped):
        run_curate(recipe, tmp_path / "set", watch=watch, **SILENT)
    shard = tmp_path / "set.work/read-00001/samples.jsonl"
    shard.write_bytes(shard.read_bytes()[:-9])
    lines: list[str] = []
    run_curate(recipe, tmp_path / "set", report=lines.append)
    assert any("read-00001: samples.jsonl has another size" in line for line in lines)
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


# Rollouts


def fake_roll(problems: Any) -> list[list[Rollout]]:
    """Knows sums; on every third problem it is sure of a wrong answer."""
    results = []
    for number, problem in enumerate(problems):
        if number % 3 == 2:
            results.append([Rollout("no idea", "-12345", True)] * 8)
            continue
        answer = next((a for p, a in KNOWN if p == problem), "0")
        right = Rollout("because", answer, True)
        results.append([right] * (number % 9) + [Rollout("", None, False)] * (8 - number % 9))
    return results


KNOWN: list[tuple[str, str]] = [(chain(i)["problem"], chain(i)["answer"]) for i in range(40)]


def test_pass_rates_weigh_and_wrong_references_go(recipe: Path, tmp_path: Path) -> None:
    overrides = ["sources={chains: {kind: jsonl, path: " + str(tmp_path / "chains.jsonl") + "}}"]
    overrides += ["evaluation=[]", "mix={}", "augment={enabled: true, rephrase: 0, renumber: 0, "
                  "compose: 0, distil: 1}"]  # fmt: skip
    made = run_curate(recipe, tmp_path / "set", overrides, roll=fake_roll, **SILENT)
    assert made is not None
    assert made["dropped"]["consistent error"]["chains"] == 13
    assert made["rollouts"]["problems"] == 27
    assert made["augmented"]["distil"]["kept"] == made["mix"]["style"]["distilled"]["available"] > 0
    difficulty = made["mix"]["difficulty"]
    assert difficulty["easy"]["taken"] == round(difficulty["easy"]["available"] / 2)
    assert difficulty["hard"]["taken"] == pytest.approx(
        1.5 * difficulty["hard"]["available"], abs=1
    )
    distilled = [
        s for s in read_samples(tmp_path / "set/samples-00000.jsonl") if s.style == "distilled"
    ]
    assert {s.thought for s in distilled} == {"because"}
    assert all(s.pass_rate and 0 < s.pass_rate <= 1 for s in distilled)


def test_what_rollouts_dropped_is_remembered_after_a_stop(recipe: Path, tmp_path: Path) -> None:
    """A wrong reference goes in the first shard; its near-duplicate in the second is still one."""
    words = "red blue tall small round flat warm cold old new long short"
    rows = [{"problem": f"Which word is last of {words} number {i}?", "thought": "cold comes last",
             "answer": "cold"} for i in (1, 1)]  # fmt: skip
    rows[1]["thought"] += " here"
    path = write_lines(tmp_path / "near.jsonl", [rows[0], chain(1), rows[1], chain(2)])
    overrides = [f"sources={{c: {{kind: jsonl, path: {path}}}}}", "evaluation=[]", "mix={}",
                 "augment={}", "shard_size=2", "filters.similarity=0.6",
                 "difficulty.weights={unsolved: 1, unknown: 1}"]  # fmt: skip

    def roll(problems: Any) -> list[list[Rollout]]:
        wrong = [Rollout("", "-1", True)] * 8
        return [wrong if "number 1" in p else [Rollout("", None, False)] * 8 for p in problems]

    def stop(source: str, num_read: int, num_kept: int, share: float | None) -> None:
        signal.raise_signal(signal.SIGINT)

    whole = run_curate(recipe, tmp_path / "whole", overrides, roll=roll, **SILENT)
    assert whole is not None
    assert whole["dropped"] == {"consistent error": {"c": 1}, "near-duplicate": {"c": 1}}
    assert run_curate(recipe, tmp_path / "set", overrides, roll=roll, watch=stop, **SILENT) is None
    assert run_curate(recipe, tmp_path / "set", overrides, roll=roll, **SILENT) == whole
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


def test_what_rollouts_dropped_is_remembered_without_a_thought_too(
    recipe: Path, tmp_path: Path
) -> None:
    """Where thoughts are not asked for, the problem of a wrong reference is still a duplicate."""
    rows = [{"problem": "Which is it?", "answer": answer} for answer in ("7", "5")]
    path = write_lines(tmp_path / "bare.jsonl", [rows[0], chain(1), rows[1], chain(2)])
    overrides = [f"sources={{c: {{kind: jsonl, path: {path}}}}}", "evaluation=[]", "mix={}",
                 "augment={}", "shard_size=2", "filters.empty_thought=false",
                 "difficulty.weights={unsolved: 1, unknown: 1}"]  # fmt: skip

    def roll(problems: Any) -> list[list[Rollout]]:
        wrong = [Rollout("", "-1", True)] * 8
        return [wrong if p == "Which is it?" else [Rollout("", None, False)] * 8 for p in problems]

    def stop(source: str, num_read: int, num_kept: int, share: float | None) -> None:
        signal.raise_signal(signal.SIGINT)

    whole = run_curate(recipe, tmp_path / "whole", overrides, roll=roll, **SILENT)
    assert whole is not None
    assert run_curate(recipe, tmp_path / "set", overrides, roll=roll, watch=stop, **SILENT) is None
    assert run_curate(recipe, tmp_path / "set", overrides, roll=roll, **SILENT) == whole
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


def test_rollouts_of_the_reference_model_depend_on_the_problem_alone() -> None:
    roller = Roller(DifficultyRecipe(model="reference", rollouts=2, max_tokens=150), seed=1)
    first = "What is 17 + 25 - 9?"
    together = roller([first, "What is 3 + 4?"])
    assert together[1][0].answer == "7"
    assert "+71:p71" in together[0][0].thought
    assert roller([first])[0] == together[0]
    assert roller(["word " * 3000]) == [[]]


def test_math_is_a_folder_of_files(recipe: Path, tmp_path: Path) -> None:
    for i in range(30):
        folder = tmp_path / "MATH" / ("algebra" if i % 3 else "geometry")
        folder.mkdir(parents=True, exist_ok=True)
        row = {
            "problem": f"Compute $\\frac{{{i}}}{{7}}+{chain(i)['problem']}$",
            "level": f"Level {1 + i % 5}",
            "type": "Algebra" if i % 3 else "Geometry",
            "solution": f"{chain(i)['thought']} So it is $\\boxed{{\\frac{{{i}}}{{7}}}}$.",
        }
        (folder / f"{i}.json").write_text(json.dumps(row) if i != 5 else "{")
    source = f"sources={{contest: {{kind: math, path: {tmp_path / 'MATH'}}}}}"
    overrides = ["evaluation=[]", "mix={}", "augment={}", "shard_size=7", source]
    made = run_curate(recipe, tmp_path / "set", overrides, **SILENT)
    assert made is not None
    assert made["broken"] == ["algebra/5.json: not JSON (Expecting property name enclosed in "
                              "double quotes)"]  # fmt: skip
    families = {name: v["taken"] for name, v in made["mix"]["family"].items()}
    assert families == {"math_algebra": 19, "math_geometry": 10}
    assert set(made["mix"]["level"]) == {"1", "2", "3"}
    with pytest.raises(ConfigError, match=r"holds no \.json file"):
        (tmp_path / "none").mkdir()
        path = f"sources.contest.path={tmp_path / 'none'}"
        run_curate(recipe, tmp_path / "set2", [*overrides, path], **SILENT)


@pytest.mark.campaign
def test_killed_at_many_moments(
    recipe: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Kill at random moments until done, saves included; the bytes are those of one run."""
    run_curate(recipe, tmp_path / "whole", **SILENT)
    whole, rng = contents(tmp_path / "whole"), Random(0)
    command = [sys.executable, "-m", "falcon_h1r.cli.main", "curate", "--recipe", str(recipe)]
    kills = inside = 0
    for round_number in range(10):
        output = tmp_path / f"killed-{round_number}"
        for _ in range(20):
            process = subprocess.Popen(
                [*command, "--output", str(output)], stdout=subprocess.DEVNULL, cwd=tmp_path
            )
            work = output.with_name(output.name + ".work")
            while process.poll() is None and not work.exists():
                time.sleep(0.005)
            try:
                process.wait(timeout=rng.uniform(0, 1.2))
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
                inside += any(tmp_path.glob(f".{output.name}*")) or any(work.glob(".*"))
        else:
            run_curate(recipe, output, **SILENT)
        assert contents(output) == whole
    record_property("rounds_equal_to_the_byte", 10)
    record_property("kills", kills)
    record_property("kills_inside_a_save", inside)
    assert kills > 10


# Extras


def test_parquet_and_reasoning_gym_by_extras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Path
) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"")
    for kind, package in (("parquet", "pyarrow"), ("reasoning_gym", "reasoning_gym")):
        monkeypatch.setitem(sys.modules, package, None)
        sources = f"sources={{x: {{kind: {kind}, path: {path}, task: chain_sum, count: 9}}}}"
        with pytest.raises(ConfigError, match=r"pip install 'falcon-h1r\[curate\]'"):
            run_curate(recipe, tmp_path / "set", [sources], **SILENT)


GYM = """
import time

def create_dataset(task, seed, size):
    return Gym()

class Gym:
    def __getitem__(self, index):
        cot = {"answer_cot": f"{index} and 1 make {index + 1}.\\n#### {index + 1}"}
        return {"question": f"What follows {index}?", "answer": str(index + 1),
                "metadata": cot if index % 2 else {}}

    def score_answer(self, answer, entry):
        if answer == "hang":
            time.sleep(60)
        return float(answer.strip("+") == entry["answer"] and 1 / (answer != "crash"))
"""


@pytest.fixture
def fake_gym(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that answers as reasoning-gym does, also in a process of its own."""
    (tmp_path / "gym").mkdir()
    (tmp_path / "gym/reasoning_gym.py").write_text(GYM)
    monkeypatch.syspath_prepend(tmp_path / "gym")
    monkeypatch.delitem(sys.modules, "reasoning_gym", raising=False)


def test_a_verifier_that_hangs_or_crashes_says_no(fake_gym: None) -> None:
    judge = GymJudge("after", "1", "9", "{}", seconds=0.3)
    assert judge.is_right(3, "+4")
    assert not judge.is_right(3, "5")
    assert not judge.is_right(3, "hang")
    assert not judge.is_right(3, "crash")
    assert not judge.is_right(3, "4" * 10_000)
    assert judge.is_right(4, "5")
    judge.close()


def test_reasoning_gym_problems_without_thought(
    recipe: Path, tmp_path: Path, fake_gym: None
) -> None:
    sources = "sources={gym: {kind: reasoning_gym, task: after, count: 20}}"
    plain = ["evaluation=[]", "mix={}", "augment={}", sources]
    made = run_curate(recipe, tmp_path / "plain", plain, **SILENT)
    assert made is not None
    assert made["dropped"] == {"empty thought": {"gym": 10}}
    assert made["verified_by"] == {"verifier": 10}

    def roll(problems: Any) -> list[list[Rollout]]:
        numbers = [int(p.removeprefix("What follows ").rstrip("?")) for p in problems]
        return [[Rollout(f"after {n}", str(n + 1), True)] * 8 for n in numbers]

    overrides = [*plain, "augment={enabled: true, rephrase: 0, renumber: 0, compose: 0}"]
    made = run_curate(recipe, tmp_path / "distilled", overrides, roll=roll, **SILENT)
    assert made is not None
    assert made["augmented"]["distil"]["kept"] == 20
    assert made["mix"]["style"] == {
        "distilled": {"available": 20, "taken": made["mix"]["style"]["distilled"]["taken"]},
        "reasoning_gym": {"available": 10, "taken": made["mix"]["style"]["reasoning_gym"]["taken"]},
    }
