"""The stages of `make reference-model`: what they are told, what is skipped, what begins anew."""

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from falcon_h1r.train.config import load_recipe
from falcon_h1r.train.curation.recipe import CurateRecipe
from falcon_h1r.train.recipe_rl import GrpoRecipe
from falcon_h1r.train.recipe_sft import SftRecipe

ROOT = Path(__file__).parents[2]
STAGES = ["curated", "warm", "easy", "sft", "polish", "grpo", "calibrated", "eval"]
MODEL_FILES = ("model", "config", "generation_config", "thinking", "tokenizer", "tokenizer_config")

# Makes what each command would, and notes its stage; BREAK names a stage that is interrupted.
PRETENDER = """#!/bin/sh
output=$(echo " $*" | sed 's/.* --output \\([^ ]*\\).*/\\1/'); stage=$(basename $output)
echo $stage >>CALLS; mkdir -p $output/final
[ "$BREAK" != $stage ] || exit 130
echo "$CONTENT $stage" | tee $output/manifest.json $output/final/manifest.json >/dev/null
for name in config generation_config thinking tokenizer tokenizer_config; do
    echo $stage >$output/$name.json; done
echo $stage >$output/model.safetensors
"""


def make(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", "reference-stages", *arguments],
        cwd=ROOT, env=os.environ | (env or {}), capture_output=True, text=True, check=False,
    )  # fmt: skip


def commands(*arguments: str) -> list[list[str]]:
    """Argument lists of the commands that make would run."""
    shown = make("-n", *arguments).stdout.replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in shown.splitlines() if "/falcon-h1r " in line]


@pytest.mark.parametrize("size", [(), ("SMOKE=1",)])
def test_every_command_is_a_valid_one(size: tuple[str, ...], tmp_path: Path) -> None:
    classes = {"curate": CurateRecipe, "sft": SftRecipe, "grpo": GrpoRecipe}
    seen = []
    for name, *rest in commands(f"REFERENCE={tmp_path}", *size):
        parser = argparse.ArgumentParser()
        import_module(f"falcon_h1r.cli.{name}").add_arguments(parser)
        args = parser.parse_args(rest)
        seen.append(Path(args.output).name)
        if name in ("curate", "train"):
            method = getattr(args, "method", name)
            load_recipe(classes[method], args.recipe, args.overrides)
    assert seen == STAGES


def test_each_stage_starts_from_the_one_before_and_all_share_one_tokenizer() -> None:
    told = {Path(c[c.index("--output") + 1]).name: c for c in commands("REFERENCE=here")}
    assert "data.tokenizer=here/curated" in told["warm"]
    assert {"init_from=here/warm/final", "data.tokenizer=here/curated"} <= set(told["easy"])
    assert {"init_from=here/easy/final", "data.source=here/curated"} <= set(told["sft"])
    assert "init_from=here/sft/final" in told["polish"]
    assert "model=here/polish/final" in told["grpo"]
    assert "here/grpo/final" in told["calibrated"] and "here/calibrated" in told["eval"]


def test_the_recipes_fit_together() -> None:
    names = ("reference_warm", "reference_easy", "reference_sft")
    warm, easy, sft = (load_recipe(SftRecipe, name) for name in names)
    curated = load_recipe(CurateRecipe, "reference_curate")
    (source,) = curated.sources.values()
    assert warm.model == easy.model == sft.model
    assert source.families == sft.data.families == easy.data.families
    assert source.levels == sft.data.levels
    assert curated.mix.caps == {} and curated.mix.shares == {}  # they would flatten the weights
    assert curated.max_length == sft.data.row_length
    assert {r.data.vocabulary_size for r in (warm, easy, sft)} == {curated.vocabulary_size}
    grpo = load_recipe(GrpoRecipe, "reference_grpo")
    polish = load_recipe(SftRecipe, "reference_polish")
    assert set(grpo.data.families) <= set(polish.data.families) <= set(sft.data.families)


@pytest.fixture
def pretend(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "falcon-h1r"
    path.write_text(PRETENDER.replace("CALLS", str(tmp_path / "calls")))
    path.chmod(0o755)
    return {"REFERENCE": str(tmp_path / "reference"), "BIN": str(tmp_path), "SMOKE": "1"}


def run(pretend: dict[str, str], *more: str, **env: str) -> list[str]:
    """Stages that a call of make has begun."""
    calls = Path(pretend["BIN"], "calls")
    calls.unlink(missing_ok=True)
    result = make(*(f"{k}={v}" for k, v in pretend.items()), *more, env=env)
    assert (result.returncode != 0) == bool(env.get("BREAK")), result.stderr
    return calls.read_text().split() if calls.exists() else []


def test_finished_stages_are_skipped_and_an_interrupted_one_is_called_again(
    pretend: dict[str, str],
) -> None:
    folder = Path(pretend["REFERENCE"])
    assert run(pretend, BREAK="sft") == STAGES[:4]
    assert run(pretend) == STAGES[3:]
    assert not list(folder.glob("*.old"))
    assert run(pretend) == []
    (folder / "curated" / "manifest.json").touch()
    assert run(pretend) == []
    for name in MODEL_FILES:
        made = next((folder / "wheel").glob(f"{name}.*"))
        assert made.read_text() == "calibrated\n"
    assert "<!-- evaluation -->" in (folder / "wheel" / "README.md").read_text()


def test_a_stage_whose_input_changed_begins_anew_and_the_earlier_one_is_put_aside(
    pretend: dict[str, str],
) -> None:
    folder = Path(pretend["REFERENCE"])
    run(pretend, CONTENT="a")
    changed = "OPTIONS_easy=--set seed=5"
    assert run(pretend, changed, CONTENT="a") == ["easy"]  # and ends in the same bytes
    assert (folder / "easy.old" / "model.safetensors").exists()
    assert run(pretend, CONTENT="b") == STAGES[2:]
    assert (folder / "sft.old" / "model.safetensors").exists()
    assert run(pretend, changed, CONTENT="c", BREAK="easy") == ["easy"]
    assert run(pretend, changed, CONTENT="c") == STAGES[2:]


@pytest.mark.campaign
def test_killed_and_called_again_it_ends_in_the_weights_of_an_unbroken_run(tmp_path: Path) -> None:
    """All stages at toy size, once unbroken and once killed while each of four was at work."""
    program = tmp_path / "falcon-h1r"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m falcon_h1r.cli.main "$@"\n')
    program.chmod(0o755)
    models = []
    for name, killed_in in (("whole", []), ("killed", ["curated.work", "easy", "sft", "grpo"])):
        folder = tmp_path / name
        call = ["make", "reference-stages", "SMOKE=1", f"REFERENCE={folder}", f"BIN={tmp_path}"]
        for stage in killed_in:
            process = subprocess.Popen(call, cwd=ROOT, start_new_session=True)
            while not list(folder.glob(f"{stage}/*")):
                assert process.poll() is None
                time.sleep(0.02)
            time.sleep(1.0)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        subprocess.run(call, cwd=ROOT, check=True)
        assert not list(folder.glob("*.old"))
        models.append((folder / "wheel" / "model.safetensors").read_bytes())
        tokenizers = {path.read_bytes() for path in folder.glob("**/tokenizer.json")}
        assert len(tokenizers) == 1
        lines = (folder / "sft" / "metrics.jsonl").read_text()
        assert [int(n) for n in re.findall(r'"step": (\d+)', lines)] == list(range(60))
        card = (folder / "wheel" / "README.md").read_text()
        assert "reference/navigate@3" in card and "wrong traces by their lowest" in card
        assert (folder / "eval" / "report.html").exists()
    assert models[0] == models[1]
