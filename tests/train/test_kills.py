"""Killed at any moment, a run goes on to the bits of an unbroken one."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file

from falcon_h1r.errors import TrainingError
from falcon_h1r.train import checkpoint
from falcon_h1r.train.config import load_recipe
from falcon_h1r.train.recipe_sft import SftRecipe
from falcon_h1r.train.sft import SftRun, run_sft
from falcon_h1r.train.start import CHECKPOINTS, VOCABULARY

STEPS = 24
OVERRIDES = (f"optimizer.steps={STEPS}", "checkpoint_seconds=0", "parallel.threads=1")
TRAIN = """
import sys
from falcon_h1r.train.sft import run_sft
run_sft(sys.argv[1], sys.argv[2], sys.argv[3:])
"""


def quiet(text: str) -> None:
    pass


def steps_logged(output: Path) -> list[int]:
    path = output / "metrics.jsonl"
    whole = [line for line in path.read_text().splitlines(True) if line.endswith("\n")]
    return [json.loads(line)["step"] for line in whole]


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "final" / "model.safetensors")


def wait_for_step(output: Path, step: int, process: "subprocess.Popen[str]") -> None:
    path = output / "metrics.jsonl"
    while not path.exists() or path.read_text().count("\n") < step:
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.002)


def wait_for_save(output: Path, process: "subprocess.Popen[str]") -> None:
    saves = output / CHECKPOINTS
    while process.poll() is None:
        if saves.exists() and any(name.endswith(".partial") for name in os.listdir(saves)):
            return


def kill_once(recipe: Path, output: Path, rng: Random, inside_save: bool) -> bool:
    """Start, kill -9 at a random point, resume; True when a half-written save was left."""
    command = [sys.executable, "-P", "-c", TRAIN, str(recipe), str(output), *OVERRIDES]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    wait_for_step(output, rng.randint(1, STEPS - 6), process)
    if inside_save:
        wait_for_save(output, process)
    time.sleep(rng.random() * (0.004 if inside_save else 0.06))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    left = [p.name for p in (output / CHECKPOINTS).glob(".*.partial")]
    logged = len(steps_logged(output))

    said: list[str] = []
    assert run_sft(recipe, output, OVERRIDES, report=said.append) == output / "final"
    # Killed before the first save was whole, a run begins anew.
    resumed = next((int(line.rpartition(" ")[2]) for line in said if "resumed" in line), 0)
    assert logged - resumed <= 1, "more than one save interval was repeated"
    assert steps_logged(output) == list(range(STEPS))
    return any(name.startswith(".step-") for name in left)


@pytest.fixture
def prepared(tmp_path: Path, vocabulary: Path) -> Callable[[str], Path]:
    """Makes an output folder that already has its vocabulary."""

    def make(name: str) -> Path:
        shutil.copytree(vocabulary, tmp_path / name / VOCABULARY)
        return tmp_path / name

    return make


def kill_trials(
    count: int, recipe: Path, prepared: Callable[[str], Path], seed: int
) -> tuple[int, int]:
    """`count` kills, every third aimed at a save; (runs equal to the bit, kills inside a save)."""
    whole = prepared("whole")
    run_sft(recipe, whole, OVERRIDES, report=quiet)
    expected = weights(whole)
    equal = inside = 0
    for trial in range(count):
        output = prepared(f"killed-{trial}")
        inside += kill_once(recipe, output, Random(f"{seed} {trial}"), trial % 3 == 0)
        found = weights(output)
        equal += all(torch.equal(found[name], expected[name]) for name in expected)
        shutil.rmtree(output)
    return equal, inside


def test_killed_runs_end_with_the_same_bits(
    tiny_recipe: Path, prepared: Callable[[str], Path]
) -> None:
    equal, _ = kill_trials(3, tiny_recipe, prepared, seed=1)
    assert equal == 3


@pytest.mark.campaign
def test_fifty_killed_runs_end_with_the_same_bits(
    tiny_recipe: Path,
    prepared: Callable[[str], Path],
    record_property: Callable[[str, object], None],
) -> None:
    equal, inside = kill_trials(51, tiny_recipe, prepared, seed=2)
    record_property("kills", 51)
    record_property("kills_inside_a_save", inside)
    record_property("equal_to_the_bit", equal)
    assert equal == 51
    assert inside >= 15


def test_a_full_disk_stops_the_run_and_keeps_the_earlier_save(
    tiny_recipe: Path, prepared: Callable[[str], Path]
) -> None:
    output = prepared("full")
    run_sft(tiny_recipe, output, ["optimizer.steps=2"], report=quiet)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = SftRun(load_recipe(SftRecipe, tiny_recipe, ["checkpoint_seconds=0"]), output, quiet)
    assert run.resume()
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))  # writes beyond it fail, as if full
    try:
        with pytest.raises(TrainingError, match="earlier saves are intact") as raised:
            run.train(threading.Event())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "step-00000003" in str(raised.value)
    saves = output / CHECKPOINTS
    assert checkpoint.latest_checkpoint(saves, quiet) == saves / "step-00000002"
    assert list(saves.glob(".*partial")) == []
    assert run_sft(tiny_recipe, output, report=quiet) is not None


def test_after_a_fall_back_only_sound_saves_count_as_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 5):
        checkpoint.save_checkpoint(tmp_path, step, {"model": {"w": torch.ones(2)}}, {"step": step})
    (tmp_path / "step-00000005" / "state.json").write_text("{}")
    assert checkpoint.latest_checkpoint(tmp_path, quiet) == tmp_path / "step-00000002"
    checkpoint.save_checkpoint(tmp_path, 3, {"model": {"w": torch.ones(2)}}, {"step": 3}, keep=1)
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-00000003"]
