"""Runs that are compared: each is trained once, resumed, and measured on the same problems."""

import json
import os
import signal
from pathlib import Path

import pytest

from falcon_h1r.errors import ConfigError
from falcon_h1r.train.experiment import (
    SPENT,
    Board,
    Trained,
    held_out_items,
    mean_tokens,
    measure,
    plain_sampling,
    run_script,
    save_rows,
    train_once,
    values,
    weighted_families,
)
from falcon_h1r.train.recipe_mix import levels_of


def silent(line: str) -> None:
    pass


def test_a_run_is_trained_once_and_resumed(tiny_recipe: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    changes = ["evaluate_every=1", "evaluate_count=1"]

    def stopping(line: str) -> None:
        if line.startswith("step 2"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        train_once("sft", tiny_recipe, output, changes, stopping)
    spent = json.loads((output / SPENT).read_text())
    assert spent > 0
    trained = train_once("sft", tiny_recipe, output, changes, silent)
    assert [line["step"] for line in trained.metrics] == list(range(6))
    assert trained.processor_seconds > spent
    weights = trained.model / "model.safetensors"
    written = weights.stat().st_mtime_ns
    assert train_once("sft", tiny_recipe, output, changes, silent) == trained
    assert weights.stat().st_mtime_ns == written
    with pytest.raises(ConfigError, match="other settings"):
        train_once("sft", tiny_recipe, output, [*changes, "seed=4"], silent)


def test_grpo_runs_are_trained_and_measured(rl_recipe: Path, tmp_path: Path) -> None:
    trained = train_once("grpo", rl_recipe, tmp_path / "run", ["optimizer.steps=2"], silent)
    assert trained.late("completions/mean_length") > 0
    items = held_out_items({"sums": 1.0, "products": 1.0}, (1, 2), 3)
    assert len(items) == 9  # products have no level 1
    keys = [item.id.key for item in items]
    config = plain_sampling(2, 8)
    result = measure(trained.model, items, tmp_path / "eval", config, silent)
    assert (
        result.records == measure(trained.model, items, tmp_path / "eval", config, silent).records
    )
    assert len(values([result, result], keys)[1]) == 9
    assert all(0 < length <= 8 for length in mean_tokens([result, result], keys))


def test_a_misspelt_family_is_named_before_anything_is_measured() -> None:
    with pytest.raises(ConfigError, match="did you mean sums"):
        held_out_items(["sum"], [2], 1)
    with pytest.raises(ConfigError, match="level is 4"):
        held_out_items(["sums"], [4], 1)


def test_late_is_the_last_fifth() -> None:
    metrics = [{"reward": float(i)} for i in range(10)]
    assert Trained(model=Path(), processor_seconds=0, metrics=metrics).late("reward") == 8.5


def test_families_have_the_weights_of_the_recipe() -> None:
    everything = weighted_families()
    assert weighted_families("lies,copying") == {"lies": everything["lies"], "copying": 1.0}


def test_scripts_say_why_they_end(tmp_path: Path) -> None:
    lines: list[str] = []

    def stopped() -> None:
        raise KeyboardInterrupt

    def refused() -> None:
        raise ConfigError("no such folder")

    assert [run_script(work, lines.append) for work in (lines.clear, stopped, refused)] == [
        0,
        130,
        1,
    ]
    assert "goes on" in lines[0]
    assert lines[1] == "error: no such folder"
    lines.clear()
    board = Board(2, lines.append)
    for name in ("one", "two"):
        board.start(name)("done")
    assert [line for line in lines if "left" not in line] == ["[1/2] one: done", "[2/2] two: done"]
    path = save_rows(tmp_path, "ablation", {"steps": 2}, [{"right": 1.0}])
    assert json.loads(path.read_text())["rows"] == [{"right": 1.0}]


def test_levels_are_read_and_checked() -> None:
    assert levels_of("3") == {3: 1.0}
    assert levels_of("1,2") == {1: 1.0, 2: 1.0}
    for wrong in ("", "4", "1,,2", "1;2", "hard"):
        with pytest.raises(ConfigError, match="levels"):
            levels_of(wrong)
