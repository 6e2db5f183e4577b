"""Several processes train as one: the same batch, the same weights, and nobody is waited for."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from falcon_h1r.errors import ConfigError, WorkerDied
from falcon_h1r.train import distributed
from falcon_h1r.train.config import load_recipe
from falcon_h1r.train.gradients import FlatGradients
from falcon_h1r.train.optimizer import make_optimizer
from falcon_h1r.train.packing import PackedRows
from falcon_h1r.train.recipe_sft import SftRecipe
from falcon_h1r.train.sft import LEARNT, LOSS, SftRun, run_sft
from falcon_h1r.train.start import VOCABULARY

STEPS = 16
OVERRIDES = [f"optimizer.steps={STEPS}", "checkpoint_seconds=0", "parallel.threads=1"]
TWO = [*OVERRIDES, "parallel.processes=2"]


def quiet(text: str) -> None:
    pass


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "final" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def folder(tmp_path: Path, vocabulary: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        shutil.copytree(vocabulary, tmp_path / name / VOCABULARY)
        return tmp_path / name

    return make


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[distributed.Rank]:
    """The processes that `launch` starts."""
    ranks: list[distributed.Rank] = []

    class Watched(distributed.Rank):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            ranks.append(self)

    monkeypatch.setattr(distributed, "Rank", Watched)
    return ranks


def signal_at_step(ranks: list[distributed.Rank], output: Path, number: int) -> threading.Thread:
    """Send a signal to the second rank after some steps."""

    def act() -> None:
        path = output / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while not path.exists() or path.read_text().count("\n") < 3:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(ranks[1].process.pid, number)

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_a_dead_process_ends_the_run_and_the_resumed_one_has_the_bits_of_an_unbroken(
    tiny_recipe: Path, folder: Callable[[str], Path], started: list[distributed.Rank]
) -> None:
    alone, killed = folder("alone"), folder("killed")
    run_sft(tiny_recipe, alone, [*OVERRIDES, "parallel.accumulation=2"], report=quiet)
    thread = signal_at_step(started, killed, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="process 1 of 2 was ended by SIGKILL; the same command"):
        run_sft(tiny_recipe, killed, TWO, report=quiet)
    thread.join()
    assert all(rank.process.poll() is not None for rank in started)
    said: list[str] = []
    assert run_sft(tiny_recipe, killed, TWO, report=said.append) == killed / "final"
    assert any(line.startswith("resumed at step") for line in said)
    assert any("tokens/s" in line for line in said)
    # Two summands have one sum in any order: two processes equal two micro-batches to the bit.
    assert same(weights(alone), weights(killed))
    lines = [json.loads(line) for line in (killed / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(STEPS))


@pytest.mark.campaign
def test_a_silent_process_is_given_up(
    tiny_recipe: Path,
    folder: Callable[[str], Path],
    started: list[distributed.Rank],
    record_property: Callable[[str, object], None],
) -> None:
    output = folder("silent")
    thread = signal_at_step(started, output, signal.SIGSTOP)
    with pytest.raises(WorkerDied, match="ended or is silent"):
        run_sft(tiny_recipe, output, [*TWO, "parallel.timeout_seconds=5"], report=quiet)
    thread.join()
    seconds = time.time() - (output / "metrics.jsonl").stat().st_mtime
    record_property("seconds_from_last_step_to_end", round(seconds, 1))
    assert seconds < 30


def test_a_stop_before_the_processes_have_begun_is_no_failure(
    tiny_recipe: Path, folder: Callable[[str], Path]
) -> None:
    stop = threading.Event()
    stop.set()
    output = folder("stopped")
    distributed.launch("falcon_h1r.train.worker", [str(output)], 2, 1, stop, quiet)


@pytest.mark.campaign
def test_torchrun_starts_the_same_run(tiny_recipe: Path, folder: Callable[[str], Path]) -> None:
    ours, theirs = folder("ours"), folder("torchrun")
    run_sft(tiny_recipe, ours, TWO, report=quiet)
    settings = [f"--set={override}" for override in TWO]
    command = [
        sys.executable, "-P", "-m", "torch.distributed.run", "--nproc-per-node=2", "-m",
        "falcon_h1r.cli.main", "train", "sft", f"--recipe={tiny_recipe}", f"--output={theirs}",
    ]  # fmt: skip
    subprocess.run([*command, *settings], check=True, capture_output=True)
    assert same(weights(ours), weights(theirs))


def test_the_error_of_a_process_is_that_of_the_run(
    tiny_recipe: Path, folder: Callable[[str], Path]
) -> None:
    with pytest.raises(ConfigError, match="mamba_n_heads"):
        run_sft(tiny_recipe, folder("bad"), [*TWO, "model.mamba_n_heads=3"], report=quiet)


def test_processes_must_share_the_rows(tiny_recipe: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.rows is 2; it must be a multiple of .* = 6"):
        overrides = ["parallel.processes=3", "parallel.accumulation=2"]
        load_recipe(SftRecipe, tiny_recipe, overrides)


def joined(parts: list[PackedRows]) -> PackedRows:
    """Micro-batches as one batch."""
    offsets = np.cumsum([0, *(p.input_ids.size for p in parts)])
    bounds = [p.cu_seqlens[1:] + offset for p, offset in zip(parts, offsets, strict=False)]
    return PackedRows(
        input_ids=np.concatenate([p.input_ids for p in parts]),
        targets=np.concatenate([p.targets for p in parts]),
        loss_mask=np.concatenate([p.loss_mask for p in parts]),
        cu_seqlens=np.concatenate([[0], *bounds]).astype(np.int32),
        row_length=parts[0].row_length,
        num_documents=sum(p.num_documents for p in parts),
    )


def test_every_token_weighs_the_same_wherever_it_is_computed(
    tiny_recipe: Path, folder: Callable[[str], Path]
) -> None:
    recipe = load_recipe(SftRecipe, tiny_recipe, ["parallel.accumulation=2", "device=cpu"])
    run = SftRun(recipe, folder("run"), quiet)
    run.model.double()
    run.optimizer = make_optimizer(run.model, recipe.optimizer)
    run.gradients = FlatGradients(run.optimizer, 5)
    parts = run.batches.draw()
    counts = [int(part.loss_mask.sum()) for part in parts]
    assert counts[0] != counts[1]
    run.accumulate(parts)
    apart = run.gradients.buffer.clone()
    run.accumulate([joined(parts)])
    torch.testing.assert_close(apart, run.gradients.buffer, rtol=1e-12, atol=1e-12)
    assert run.gradients.sums[LEARNT] == sum(counts)
    norm = run.gradients.average_and_clip(sum(counts), 1e9)
    run.model.zero_grad()
    (run.loss(joined(parts)) / sum(counts)).backward()
    gradients = torch.cat([p.grad.flatten() for p in run.optimizer.parameters.values()])  # type: ignore[union-attr]
    torch.testing.assert_close(run.gradients.flat, gradients, rtol=1e-10, atol=1e-12)
    assert norm == pytest.approx(float(gradients.norm()), rel=1e-10)
    assert float(run.gradients.sums[LOSS]) > 0
