"""Metrics hold every step once; a stop is clean; recipes of any class load."""

import json
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from falcon_h1r.errors import ConfigError
from falcon_h1r.train.config import load_recipe
from falcon_h1r.train.loop import (
    METRICS,
    MetricsLog,
    Progress,
    make_folder,
    sole_run,
    stop_on_interrupt,
)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def test_steps_that_run_again_and_torn_lines_are_dropped(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, 0) as log:
        for step in range(4):
            log.write(step, {"loss": float("nan") if step == 1 else 1.5, "held": {"sums": 0.5}})
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 4, "lo')
    with MetricsLog(tmp_path, 3) as log:
        log.write(3, {"loss": 2.5})
    assert [line["step"] for line in lines(tmp_path)] == [0, 1, 2, 3]
    assert lines(tmp_path)[1] == {"step": 1, "loss": None, "held": {"sums": 0.5}}
    assert lines(tmp_path)[3]["loss"] == 2.5


def test_a_signal_asks_for_a_stop() -> None:
    said: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_interrupt(said.append) as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
    assert said == ["stopping after this step; the same command resumes"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stop_counts_also_when_nobody_reads(tmp_path: Path) -> None:
    def gone(line: str) -> None:
        raise BrokenPipeError

    with stop_on_interrupt(gone) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)


def test_a_folder_is_held_by_one_run(tmp_path: Path) -> None:
    refused = pytest.raises(ConfigError, match="another process works on")
    with sole_run(tmp_path), refused, sole_run(tmp_path):
        pass
    with sole_run(tmp_path):
        pass


def test_a_folder_that_is_needed_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    (tmp_path / "checkpoints").mkdir()
    for needed in (tmp_path / "final", tmp_path / "checkpoints/../final/x"):
        with pytest.raises(ConfigError, match=r"--fresh would remove .*name another --output"):
            make_folder(tmp_path, ("checkpoints", "final"), [needed])
    assert (tmp_path / "checkpoints").is_dir()
    make_folder(tmp_path, ("checkpoints",), [tmp_path / "final"])
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "final"]


def test_nothing_is_removed_under_a_run(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with sole_run(tmp_path), pytest.raises(ConfigError, match="another process works on"):
        make_folder(tmp_path, ("checkpoints",))
    assert (tmp_path / "checkpoints").is_dir()


def test_progress_tells_rate_and_time_left() -> None:
    said: list[str] = []
    progress = Progress(said.append, 3, interval=0.0)
    progress.began -= 2.0
    progress.update(1, 100, "loss 1.0")
    assert said[0].startswith("step 1/3 loss 1.0, 50 tokens/s, 4 s left")
    quiet = Progress(said.append, 3, interval=60.0)
    quiet.update(2, 100, "")
    assert len(said) == 1
    quiet.update(3, 100, "")
    assert len(said) == 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    folder: str | None = None
    inner: Inner = field(default_factory=Inner)
    names: tuple[str, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("inner.rat=1", "inner.rat is not a key of a recipe; did you mean rate?"),
        ("inner.kind=c", "inner.kind is 'c'; it must be one of a, b"),
        ("folder=3", "folder is 3; it must be of type str"),
        ("weights={a: x}", "weights.a is 'x'; it must be of type float"),
        ("names=[a, 2]", "names[1] is 2; it must be of type str"),
        ("names=a", "names is 'a'; it must be of type tuple"),
        ("inner=3", "inner is 3; it must be a mapping"),
        ("inner.rate=[", "is not valid YAML"),
    ],
)
def test_any_dataclass_is_a_recipe(tmp_path: Path, override: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("inner: {rate: 2}\nnames: [x, y]\nweights: {a: 1}\n")
    loaded = load_recipe(Outer, path, ["folder=there"])
    assert loaded == Outer(
        folder="there", inner=Inner(rate=2.0), names=("x", "y"), weights={"a": 1.0}
    )
    assert isinstance(loaded.inner.rate, float)
    assert load_recipe(Outer, path, ["folder=null"]).folder is None
    with pytest.raises(ConfigError) as raised:
        load_recipe(Outer, path, [override])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
