"""Curation told what it cannot do, with a full disk, and from the command line."""

import io
import json
import os
import resource
import signal
import sys
from pathlib import Path

import pytest
from curation_helpers import (
    SILENT,
    chain,
    contents,
    make_recipe,
    only_chains,
    write_lines,
)

from falcon_h1r.cli.main import main
from falcon_h1r.errors import ConfigError, TrainingError
from falcon_h1r.train.checkpoint import verify_folder
from falcon_h1r.train.curate import run_curate
from falcon_h1r.train.tasks import FAMILIES


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return make_recipe(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["filters.lopping=true"], "did you mean looping"),
        (["sources.ours.kind=nothing"], "must be one of generator, jsonl"),
        (["sources.ours.count=null"], "give it a count"),
        (["sources.chains.path=nowhere.jsonl"], r"sources\.chains\.path is 'nowhere\.jsonl'"),
        (["evaluation=[nowhere.json]"], "there is no nowhere.json"),
        (["sources.chains.path=."], r"sources\.chains\.path is \., a folder"),
        (["tokenizer=./nowhere"], "nowhere"),
        (["sources={}"], "sources is empty"),
        (["max_length=0"], "max_length is 0"),
        (["difficulty.weights={simple: 1}"], "weights is"),
        (["mix.caps={style: 0}"], "mix.caps is"),
        (["mix.shares={sums: .inf}"], "mix.shares is .* must be finite"),
        (["sources.ours.families={sums: .inf}"], "families is .* must be finite"),
        (["sources.ours.levels={1: .nan}"], "levels is .* must be finite"),
        (["tokenizer=nowhere/at/all", "vocabulary_size=512"], "keep one of them"),
    ],
)
def test_bad_recipes_are_refused_before_anything_is_written(
    recipe: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_curate(recipe, tmp_path / "set", overrides, **SILENT)
    assert not (tmp_path / "set").exists()


def test_broken_lines_are_counted_and_named_up_to_a_limit(recipe: Path, tmp_path: Path) -> None:
    rows = [chain(0), "{", chain(1), {"problem": "p", "thought": "t"}, [], chain(2)]
    overrides = only_chains(tmp_path, rows)
    made = run_curate(recipe, tmp_path / "set", overrides, **SILENT)
    assert made is not None
    assert made["samples"] == 3
    assert made["dropped"] == {"broken line": {"c": 2}, "no answer": {"c": 1}}
    assert made["broken"][0].startswith("line 2 of rows.jsonl: not JSON")
    assert made["broken"][1:] == [
        "line 4 of rows.jsonl: no answer",
        "line 5 of rows.jsonl: not an object",
    ]
    with pytest.raises(TrainingError, match=r"3 records are broken .*line 2 of rows.*max_broken"):
        run_curate(recipe, tmp_path / "few", [*overrides, "filters.max_broken=2"], **SILENT)


def test_nothing_left_and_nothing_short_enough(recipe: Path, tmp_path: Path) -> None:
    overrides = only_chains(tmp_path, [chain(0) | {"thought": ""}, chain(1) | {"thought": " "}])
    with pytest.raises(TrainingError, match=r"nothing is left of 2 records \(2 empty thought\)"):
        run_curate(recipe, tmp_path / "set", overrides, **SILENT)
    overrides = [*only_chains(tmp_path, [chain(0), chain(1)]), "max_length=32"]
    with pytest.raises(TrainingError, match=r"longer than max_length = 32 .*shortest has \d+"):
        run_curate(recipe, tmp_path / "set", overrides, fresh=True, **SILENT)


def test_other_folders_and_other_runs_are_left_alone(recipe: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").write_text("dear")
    for fresh in (False, True):
        with pytest.raises(ConfigError, match="no curated set"):
            run_curate(recipe, home, fresh=fresh, **SILENT)
    assert contents(home) == {"letter.txt": b"dear"}
    overrides = only_chains(tmp_path, [chain(i) for i in range(40)])
    run_curate(recipe, tmp_path / "set", overrides, **SILENT)
    with pytest.raises(ConfigError, match="made by another recipe; give --fresh"):
        run_curate(recipe, tmp_path / "set", [*overrides, "seed=6"], **SILENT)
    (tmp_path / "next.work/read-00000").mkdir(parents=True)
    (tmp_path / "next.work/letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match=r"next\.work holds something"):
        run_curate(recipe, tmp_path / "next", overrides, fresh=True, **SILENT)
    (tmp_path / "next.work/run.json").write_text("{}")
    with pytest.raises(ConfigError, match="begun by another recipe or its input files"):
        run_curate(recipe, tmp_path / "next", overrides, **SILENT)


def test_the_disk_refuses(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match="No space left on device"):
        run_curate(recipe, tmp_path / "set", **SILENT)
    monkeypatch.undo()
    assert run_curate(recipe, tmp_path / "set", **SILENT) is not None


def test_a_full_disk_keeps_the_shards_before(recipe: Path, tmp_path: Path) -> None:
    """The third shard does not fit; the two before stay, and with room the bytes are the same."""
    run_curate(recipe, tmp_path / "whole", **SILENT)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk(source: str, num_read: int, num_kept: int, share: float | None) -> None:
        if len(list((tmp_path / "set.work").glob("read-*"))) == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))  # as if full

    try:
        with pytest.raises(TrainingError, match="earlier saves are intact") as raised:
            run_curate(recipe, tmp_path / "set", watch=fill_disk, **SILENT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "read-00002" in str(raised.value)
    assert "\n" not in str(raised.value)
    work = tmp_path / "set.work"
    assert sorted(p.name for p in work.glob("*read-*")) == ["read-00000", "read-00001"]
    said: list[str] = []
    run_curate(recipe, tmp_path / "set", report=said.append)
    assert said[0].startswith("resumed after 50 records")
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


def test_a_finished_set_whose_inputs_changed_is_not_taken_for_made(
    recipe: Path, tmp_path: Path
) -> None:
    output = tmp_path / "set"
    made = run_curate(recipe, output, **SILENT)
    write_lines(tmp_path / "chains.jsonl", [chain(i) for i in range(41)])
    before = contents(output)
    with pytest.raises(ConfigError, match=r"chains\.jsonl has changed since; give --fresh"):
        run_curate(recipe, output, **SILENT)
    assert contents(output) == before
    (tmp_path / "chains.jsonl").unlink()  # what is gone is not missed
    assert run_curate(recipe, output, **SILENT) == made


# Command line


def test_the_command_prints_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "set"
    words = ["curate", "--recipe", "smoke_curate", "--output", str(output)]
    words += ["--set", "sources.generated.count=40", "--set", "mix.total=20", "--augment"]
    assert main([*words, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == json.loads((output / "report.json").read_text())
    assert json.loads(said.out)["augmented"]
    assert "generated: 40 records read (100%)" in said.err
    assert main(words) == 0
    assert "already made by this recipe" in capsys.readouterr().out
    assert main([*words, "--set", "seed=9"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--fresh" in error


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    words = ["curate", "--recipe", "smoke_curate", "--output", str(tmp_path / "set")]
    assert main([*words, "--set", "sources.generated.count=40"]) == 0
    said = terminal.getvalue()
    assert "generated: 40 read" in said
    assert "\x1b[" in said
    assert "samples of 40 records" in said


def test_every_family_can_be_curated(tmp_path: Path, recipe: Path) -> None:
    overrides = ["evaluation=[]", "mix={}", "augment={}", "max_length=4000",
                 "sources={all: {kind: generator, count: 150}}"]  # fmt: skip
    made = run_curate(recipe, tmp_path / "set", overrides, **SILENT)
    assert made is not None
    assert set(made["mix"]["family"]) == set(FAMILIES)
    assert set(made["dropped"]) <= {"exact duplicate", "solutions of one problem"}


def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    """The second is refused, and the first is whole."""
    overrides = only_chains(tmp_path, [chain(i) for i in range(40)])
    refused = []

    def again(source: str, num_read: int, num_kept: int, share: float | None) -> None:
        if not refused:
            with pytest.raises(ConfigError, match="another process works on"):
                run_curate("smoke_curate", tmp_path / "set", overrides, fresh=True, **SILENT)
            refused.append(source)

    made = run_curate("smoke_curate", tmp_path / "set", overrides, watch=again, **SILENT)
    assert made is not None and refused
    assert verify_folder(tmp_path / "set") is None
    assert not list(tmp_path.glob(".set*")) and not (tmp_path / "set.work").exists()


def test_sources_in_another_order_are_another_run(tmp_path: Path) -> None:
    """A position counts from the first source on."""
    for name in "ab":
        lines = [json.dumps(chain(i if name == "a" else 100 + i)) for i in range(6)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")

    def sources(order: str) -> list[str]:
        each = ", ".join(f"{n}: {{kind: jsonl, path: {tmp_path}/{n}.jsonl}}" for n in order)
        return [f"sources={{{each}}}", "shard_size=2"]

    def stop(source: str, num_read: int, num_kept: int, share: float | None) -> None:
        signal.raise_signal(signal.SIGINT)

    cut = run_curate("smoke_curate", tmp_path / "set", sources("ab"), watch=stop, **SILENT)
    assert cut is None
    with pytest.raises(ConfigError, match="begun by another recipe"):
        run_curate("smoke_curate", tmp_path / "set", sources("ba"), **SILENT)


def test_a_set_in_the_present_folder_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"{tmp_path} holds something"):
        run_curate("smoke_curate", ".", **SILENT)


@pytest.mark.parametrize("is_made", [False, True])
def test_shards_that_nobody_can_go_on_with_are_begun_anew(tmp_path: Path, is_made: bool) -> None:
    overrides = only_chains(tmp_path, [chain(i) for i in range(40)])
    whole = run_curate("smoke_curate", tmp_path / "whole", overrides, **SILENT)
    if is_made:
        run_curate("smoke_curate", tmp_path / "set", overrides, **SILENT)
    for name in ("read-00003", ".read-00004.partial", "write-00000", ".write-00001.removed"):
        (tmp_path / "set.work" / name).mkdir(parents=True)
    assert run_curate("smoke_curate", tmp_path / "set", overrides, **SILENT) == whole
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")
    assert not (tmp_path / "set.work").exists()
