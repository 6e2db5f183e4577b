"""GRPO and PPO killed at any moment, out of disk, or with damaged saves: they go on to the bits of
an unbroken run.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from falcon_h1r.errors import FalconH1RError, TrainingError
from falcon_h1r.thinking.judge import Judge
from falcon_h1r.train import checkpoint, rewards
from falcon_h1r.train.checkpoint import write_folder
from falcon_h1r.train.config import load_recipe
from falcon_h1r.train.grpo import GrpoRun, run_grpo
from falcon_h1r.train.loop import CHECKPOINTS
from falcon_h1r.train.ppo import PpoRun, run_ppo
from falcon_h1r.train.recipe_rl import GrpoRecipe, PpoRecipe
from falcon_h1r.train.rl import VERDICTS, RlRun
from falcon_h1r.train.samples import Sample, write_samples

METHODS: dict[str, tuple[Callable[..., Path | None], Any, Any]] = {
    "grpo": (run_grpo, GrpoRun, GrpoRecipe),
    "ppo": (run_ppo, PpoRun, PpoRecipe),
}
EVERY_STEP = "checkpoint_seconds=0"
TRAIN = """
import sys
from falcon_h1r.train import grpo, ppo, rewards
method, recipe, output, algebra, *overrides = sys.argv[1:]
if algebra == "algebra":
    rewards.response_answer = lambda text: f"{len(text) % 5}+x"
{"grpo": grpo.run_grpo, "ppo": ppo.run_ppo}[method](recipe, output, overrides)
"""


def quiet(text: str) -> None:
    pass


def make_run(method: str, recipe: Path, output: Path, *overrides: str) -> RlRun:
    output.mkdir(exist_ok=True)
    _, run_class, recipe_class = METHODS[method]
    run: RlRun = run_class(load_recipe(recipe_class, recipe, overrides), output, quiet)
    return run


def steps_logged(output: Path) -> list[int]:
    path = output / "metrics.jsonl"
    whole = [line for line in path.read_text().splitlines(True) if line.endswith("\n")]
    return [json.loads(line)["step"] for line in whole]


def same_weights(a: Path, b: Path) -> bool:
    one, two = (load_file(folder / "final" / "model.safetensors") for folder in (a, b))
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


# Kills


@pytest.fixture
def algebra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Prompts and answers that only math-verify can compare; the override that draws them."""
    samples = [
        Sample(problem=f"What is {i}?", thought=f"{i}", answer=f"x+{i % 5}", family="school",
               level=0, source="s", style="t")
        for i in range(6)
    ]  # fmt: skip
    folder = tmp_path / "algebra"
    write_folder(folder, lambda path: write_samples(path / "samples-00000.jsonl", samples))
    monkeypatch.setattr(rewards, "response_answer", lambda text: f"{len(text) % 5}+x")
    return f"data.source={folder}"


def kill_once(
    method: str,
    recipe: str,
    output: Path,
    overrides: Sequence[str],
    rng: Random,
    last_step: int,
    inside_save: bool,
) -> bool:
    """Start and kill -9 at a random point; True when a half-written save was left."""
    kind = "algebra" if any("algebra" in word for word in overrides) else "plain"
    command = [sys.executable, "-P", "-c", TRAIN, method, recipe, str(output), kind, *overrides]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    metrics, saves = output / "metrics.jsonl", output / CHECKPOINTS
    step = rng.randint(0, last_step)
    while not metrics.exists() or metrics.read_text().count("\n") < step:
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.002)
    while inside_save and process.poll() is None:
        if saves.exists() and any(name.endswith(".partial") for name in os.listdir(saves)):
            break
    time.sleep(rng.random() * (0.004 if inside_save else 0.1))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return any(saves.glob(".step-*.partial"))


def test_a_killed_ppo_run_ends_with_the_same_bits(rl_recipe: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_ppo(rl_recipe, whole, [EVERY_STEP], report=quiet)
    kill_once("ppo", str(rl_recipe), killed, [EVERY_STEP], Random(1), 3, inside_save=True)
    assert run_ppo(rl_recipe, killed, [EVERY_STEP], report=quiet) == killed / "final"
    assert same_weights(whole, killed)
    assert steps_logged(killed) == list(range(6))


def test_a_killed_grpo_run_ends_with_the_same_bits_and_keeps_its_verdicts(
    rl_recipe: Path, tmp_path: Path, algebra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    overrides = [EVERY_STEP, algebra, "reward.correctness=0.1"]
    run_grpo(rl_recipe, whole, overrides, report=quiet)
    kill_once("grpo", str(rl_recipe), killed, overrides, Random(1), 3, inside_save=True)
    stored = {tuple(json.loads(line)[:2]) for line in (killed / VERDICTS).read_text().splitlines()}
    assert stored
    with (killed / VERDICTS).open("a") as file:
        file.write('["x+1", "1')  # what a kill inside a write leaves
    asked: list[tuple[str, str]] = []
    equal = Judge.equal

    def watched(judge: Judge, a: str, b: str) -> bool | None:
        asked.append((a, b))
        return equal(judge, a, b)

    monkeypatch.setattr(Judge, "equal", watched)
    assert run_grpo(rl_recipe, killed, overrides, report=quiet) == killed / "final"
    assert same_weights(whole, killed)
    assert steps_logged(killed) == list(range(6))
    assert not stored & set(asked), "a stored verdict was asked for again"
    lines = [json.loads(line) for line in (killed / VERDICTS).read_text().splitlines()]
    assert len(lines) == len({tuple(line[:2]) for line in lines}) >= len(stored)


@pytest.mark.campaign
@pytest.mark.parametrize("method", METHODS)
def test_twenty_killed_runs_of_the_smoke_recipe_end_with_the_same_bits(
    method: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Every third kill is aimed at a save; a run may be killed twice before it ends."""
    train, whole, recipe = METHODS[method][0], tmp_path / "whole", f"smoke_{method}"
    train(recipe, whole, report=quiet)
    steps = len(steps_logged(whole))
    kills = inside = equal = trial = 0
    while kills < 21:
        output, rng = tmp_path / f"killed-{trial}", Random(f"{method} {trial}")
        for last_step in (steps // 2, steps - 2)[: 1 + trial % 2]:
            inside += kill_once(
                method, recipe, output, [EVERY_STEP], rng, last_step, inside_save=kills % 3 == 0
            )
            kills += 1
        train(recipe, output, [EVERY_STEP], report=quiet)
        assert steps_logged(output) == list(range(steps))
        assert same_weights(whole, output)
        equal += 1
        trial += 1
        shutil.rmtree(output)
    record_property("kills", kills)
    record_property("kills_inside_a_save", inside)
    record_property("runs_equal_to_the_bit", equal)
    assert inside >= 5


# The disk


@pytest.mark.parametrize("method", METHODS)
def test_a_full_disk_stops_the_run_and_keeps_the_earlier_save(
    method: str, rl_recipe: Path, tmp_path: Path
) -> None:
    train, whole, full = METHODS[method][0], tmp_path / "whole", tmp_path / "full"
    train(rl_recipe, whole, report=quiet)
    with pytest.raises(StopIteration):
        interrupted(method, rl_recipe, full, after=2).train(threading.Event())  # type: ignore[attr-defined]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = make_run(method, rl_recipe, full, EVERY_STEP)
    assert run.resume()
    resource.setrlimit(resource.RLIMIT_FSIZE, (16384, hard))  # writes beyond it fail, as if full
    try:
        with pytest.raises(TrainingError, match="earlier saves are intact") as raised:
            run.train(threading.Event())  # type: ignore[attr-defined]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "step-00000003" in str(raised.value)
    assert "\n" not in str(raised.value)
    saves = full / CHECKPOINTS
    assert checkpoint.latest_checkpoint(saves, quiet) == saves / "step-00000002"
    assert list(saves.glob(".*")) == []
    train(rl_recipe, full, report=quiet)
    assert same_weights(whole, full)
    assert steps_logged(full) == list(range(6))


@pytest.mark.parametrize("method", METHODS)
def test_a_disk_that_is_still_full_is_told_in_one_line(
    method: str, rl_recipe: Path, tmp_path: Path
) -> None:
    """Resuming without having made room: the metrics cannot be trimmed, nothing is lost."""
    output = tmp_path / "run"
    METHODS[method][0](rl_recipe, output, ["optimizer.steps=2"], report=quiet)
    before = (output / "metrics.jsonl").read_bytes()
    run = make_run(method, rl_recipe, output)
    assert run.resume()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(TrainingError, match=r"could not write .*; make room and resume"):
            run.train(threading.Event())  # type: ignore[attr-defined]
        with pytest.raises(TrainingError, match=r"could not write .*; make room and resume"):
            METHODS[method][0](rl_recipe, output, report=quiet)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (output / "metrics.jsonl").read_bytes() == before
    assert METHODS[method][0](rl_recipe, output, report=quiet) == output / "final"


def interrupted(method: str, recipe: Path, output: Path, after: int, *overrides: str) -> RlRun:
    """A run that saves every step and breaks off, without a save of its own, after some."""
    run = make_run(method, recipe, output, EVERY_STEP, *overrides)
    sample = run.sample

    def until(ordinals: Sequence[int]) -> Any:
        if run.step == after:
            raise StopIteration
        return sample(ordinals)

    run.sample = until  # type: ignore[method-assign]
    return run


# Damage


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_checkpoint_falls_back_one_and_says_so(
    method: str, rl_recipe: Path, tmp_path: Path
) -> None:
    train, whole, broken = METHODS[method][0], tmp_path / "whole", tmp_path / "broken"
    train(rl_recipe, whole, report=quiet)
    with pytest.raises(StopIteration):
        interrupted(method, rl_recipe, broken, after=3).train(threading.Event())  # type: ignore[attr-defined]
    path = broken / CHECKPOINTS / "step-00000003" / "optimizer.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    said: list[str] = []
    train(rl_recipe, broken, report=said.append)
    assert said[:2] == [
        "skipped checkpoint step-00000003: optimizer.safetensors has another SHA-256 than the "
        "manifest says",
        "resumed at step 2",
    ]
    assert same_weights(whole, broken)
    assert steps_logged(broken) == list(range(6))


@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_of_another_shape_is_refused(
    method: str, rl_recipe: Path, tmp_path: Path
) -> None:
    """Another model, another method, another optimizer: one line that names the tensor."""
    output = tmp_path / "run"
    train, other = METHODS[method][0], METHODS["ppo" if method == "grpo" else "grpo"][0]
    train(rl_recipe, output, ["optimizer.steps=1"], report=quiet)
    before = {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}
    for again, words, message in (
        (train, ["model=''"], r"embed_tokens.weight is \[512, 16\], the recipe's model needs"),
        (other, [], f"is of {method}, this run of"),
        (train, ["optimizer.kind=muon"], "momentum of the checkpoint is missing"),
    ):
        with pytest.raises(TrainingError, match=message) as raised:
            again(rl_recipe, output, words, report=quiet)
        assert "--fresh" in str(raised.value)
        assert "\n" not in str(raised.value)
    assert before == {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("words", ["data.source=nowhere", "model=./nowhere"])
def test_fresh_removes_nothing_for_a_run_that_cannot_begin(
    method: str, words: str, rl_recipe: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    train = METHODS[method][0]
    train(rl_recipe, output, ["optimizer.steps=1"], report=quiet)
    before = {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}
    with pytest.raises(FalconH1RError, match="nowhere"):
        train(rl_recipe, output, [words], fresh=True, report=quiet)
    assert before == {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}


# Losses and verifiers


@pytest.mark.parametrize("method", METHODS)
def test_a_step_with_a_nan_is_skipped_and_counted(
    method: str, rl_recipe: Path, tmp_path: Path
) -> None:
    run = make_run(method, rl_recipe, tmp_path / "run")
    said: list[str] = []
    run.report = said.append
    poison_loss(run, steps=(2,))
    run.train(threading.Event())  # type: ignore[attr-defined]
    lines = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["skipped"] for line in lines] == [0, 0, 1, 1, 1, 1]
    assert [line["loss"] is None for line in lines] == [i == 2 for i in range(6)]
    assert run.num_updates == 5
    assert any("an update was skipped, gradient norm nan" in line for line in said)
    resumed = make_run(method, rl_recipe, tmp_path / "run")
    assert resumed.resume()
    assert resumed.skipped == 1
    assert all(bool(p.isfinite().all()) for p in resumed.learnt.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_nan_after_nan_stops_the_run_and_keeps_the_weights(
    method: str, rl_recipe: Path, tmp_path: Path
) -> None:
    run = make_run(method, rl_recipe, tmp_path / "run", "max_non_finite=3", EVERY_STEP)
    poison_loss(run, steps=(2, 3, 4, 5))
    with pytest.raises(TrainingError, match="3 steps in a row had a non-finite loss") as raised:
        run.train(threading.Event())  # type: ignore[attr-defined]
    assert "\n" not in str(raised.value)
    saved = checkpoint.latest_checkpoint(tmp_path / "run" / CHECKPOINTS, quiet)
    assert saved is not None
    tensors, state = checkpoint.load_checkpoint(saved)
    assert (state["step"], state["num_updates"], state["skipped"]) == (4, 2, 2)
    now = dict(run.learnt.named_parameters())
    assert all(torch.equal(tensors["model"][name], now[name]) for name in now)


def poison_loss(run: RlRun, steps: tuple[int, ...]) -> None:
    """Make the loss of these steps NaN, and with it its gradients."""
    loss: Callable[..., Any] = run.loss  # type: ignore[attr-defined]

    def poisoned(*args: Any) -> Any:
        found = loss(*args)
        if run.step not in steps:
            return found
        if isinstance(found, tuple):
            run_tally(args).sums["loss"][0] = float("nan")
            return found[0] * float("nan"), found[1]
        run_tally(args).sums["loss"][0] = float("nan")
        return found * float("nan")

    run.loss = poisoned  # type: ignore[attr-defined]


def run_tally(args: tuple[Any, ...]) -> Any:
    """The tally is what a loss writes its metrics to: its last argument."""
    return args[-1]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("where", ["sampling", "training"])
def test_a_nan_in_the_weights_stops_with_the_sample_saved(
    method: str, where: str, rl_recipe: Path, tmp_path: Path
) -> None:
    run = make_run(method, rl_recipe, tmp_path / "run")
    groups = run.sample(range(2))
    with torch.no_grad():
        run.model.model.final_layernorm.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="NaN"):
        if where == "sampling":
            run.train(threading.Event())  # type: ignore[attr-defined]
        else:
            run.update(groups)  # type: ignore[attr-defined]
    saved = json.loads((tmp_path / "run" / "bad_sample.json").read_text())
    assert saved["step"] == 0
    assert ("input_ids" in saved) == (where == "training")


JUDGE = """
import os, sys, time
print("ready", flush=True)
for line in sys.stdin:
    count = len(open(sys.argv[1]).read())
    open(sys.argv[1], "a").write("x")
    if count % 3 == 0:
        time.sleep(600)
    if count % 3 == 1:
        os._exit(3)
    print("equal", flush=True)
"""


@pytest.mark.parametrize("method", METHODS)
def test_a_verifier_that_hangs_or_crashes_does_not_stop_a_run(
    method: str, rl_recipe: Path, tmp_path: Path, algebra: str
) -> None:
    """The first question hangs, the second kills the verifier, the third is answered."""
    (tmp_path / "judge.py").write_text(JUDGE)
    (tmp_path / "asked").write_text("")
    run = make_run(method, rl_recipe, tmp_path / "run", algebra, "optimizer.steps=2")
    judge = run.verdicts.judge
    judge._command = [sys.executable, "-P", str(tmp_path / "judge.py"), str(tmp_path / "asked")]
    judge._patience = 0.5
    began = time.monotonic()
    run.train(threading.Event())  # type: ignore[attr-defined]
    run.verdicts.close()
    assert time.monotonic() - began < 60
    assert run.step == 2
    lines = (tmp_path / "run" / VERDICTS).read_text().splitlines()
    verdicts = [json.loads(line)[2] for line in lines]
    assert verdicts[:3] == [False, False, True]


# Half precision


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_learns_with_masters_and_resumes_exactly(
    method: str, rl_recipe: Path, tmp_path: Path
) -> None:
    train, whole, broken = METHODS[method][0], tmp_path / "whole", tmp_path / "broken"
    overrides = ["dtype=bfloat16", "epochs=2", "minibatches=2"]
    train(rl_recipe, whole, overrides, report=quiet)
    run = interrupted(method, rl_recipe, broken, 3, *overrides)
    with pytest.raises(StopIteration):
        run.train(threading.Event())  # type: ignore[attr-defined]
    assert {p.dtype for p in run.model.parameters()} == {torch.bfloat16}
    masters = {n: m for n, m in run.optimizer.state.items() if n.endswith(".master")}
    assert {m.dtype for m in masters.values()} == {torch.float32}
    parameters = dict(run.learnt.named_parameters())
    assert all(
        torch.equal(parameters[n.removesuffix(".master")], m.bfloat16()) for n, m in masters.items()
    )
    assert any(not torch.equal(m, m.bfloat16().float()) for m in masters.values())
    train(rl_recipe, broken, overrides, report=quiet)
    assert same_weights(whole, broken)
    lines = [json.loads(x) for x in (whole / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    assert all(line["loss"] is not None and line["grad_norm"] is not None for line in lines)
    # A step whose groups are all left over from the one before has no distance to measure.
    distances = [line["mismatch_kl"] for line in lines if line["mismatch_kl"] is not None]
    assert distances
    assert all(0 <= distance < 1e-3 for distance in distances), distances
