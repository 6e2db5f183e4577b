"""The ways a run may be asked to go: half precision, recomputation, another start, another set."""

import json
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from falcon_h1r import FalconH1ForCausalLM, Tokenizer
from falcon_h1r.errors import ConfigError, TrainingError
from falcon_h1r.train.checkpoint import write_folder
from falcon_h1r.train.config import load_recipe
from falcon_h1r.train.packing import PackedRows
from falcon_h1r.train.recipe_sft import SftRecipe
from falcon_h1r.train.samples import Sample, write_shard
from falcon_h1r.train.sft import SftRun, run_sft
from falcon_h1r.train.start import VOCABULARY


def quiet(text: str) -> None:
    pass


@pytest.fixture
def train(
    tiny_recipe: Path, tmp_path: Path, vocabulary: Path
) -> Callable[..., tuple[Path, list[dict[str, Any]]]]:
    """Trains in a folder of that name: train(name, *overrides) -> (folder, metrics)."""

    def run(name: str, *overrides: str) -> tuple[Path, list[dict[str, Any]]]:
        output = tmp_path / name
        if not output.exists() and not any("init_from" in o for o in overrides):
            shutil.copytree(vocabulary, output / VOCABULARY)
        assert run_sft(tiny_recipe, output, overrides, report=quiet) == output / "final"
        lines = (output / "metrics.jsonl").read_text().splitlines()
        return output, [json.loads(line) for line in lines]

    return run


def losses(lines: Sequence[dict[str, Any]]) -> list[float]:
    return [line["loss"] for line in lines]


def same_weights(a: Path, b: Path) -> bool:
    first, second = (load_file(p / "final" / "model.safetensors") for p in (a, b))
    return all(torch.equal(first[name], second[name]) for name in first)


def test_activation_checkpointing_changes_no_bit(train: Callable[..., Any]) -> None:
    plain, _ = train("plain")
    again, _ = train("again", "activation_checkpointing=true")
    assert same_weights(plain, again)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_bfloat16_follows_float32_and_resumes_exactly(
    train: Callable[..., Any], tiny_recipe: Path, tmp_path: Path, vocabulary: Path, kind: str
) -> None:
    ways = (f"optimizer.kind={kind}", "optimizer.adam_lr=0.01")
    _, exact = train("exact", *ways)
    rounded, lines = train("rounded", *ways, "precision=bf16")
    assert losses(lines) == pytest.approx(losses(exact), rel=0.02)
    assert losses(lines)[-1] < losses(lines)[0]
    weights = load_file(rounded / "final" / "model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.bfloat16}
    state = load_file(rounded / "checkpoints" / "step-00000006" / "optimizer.safetensors")
    masters = {n.removesuffix(".master"): t for n, t in state.items() if n.endswith(".master")}
    assert masters.keys() == weights.keys()
    assert all(m.dtype == torch.float32 for m in masters.values())
    assert all(torch.equal(masters[n].bfloat16(), weights[n]) for n in masters)

    broken = tmp_path / "broken"
    shutil.copytree(vocabulary, broken / VOCABULARY)
    recipe = load_recipe(SftRecipe, tiny_recipe, [*ways, "precision=bf16"])
    run, stop = SftRun(recipe, broken, quiet), threading.Event()
    stop.set()
    run.train(stop)
    assert run.step == 1
    train("broken", *ways, "precision=bf16")
    assert same_weights(broken, rounded)


def test_a_run_starts_from_a_model_folder_and_refuses_another_shape(
    train: Callable[..., Any], tmp_path: Path
) -> None:
    first, lines = train("first")
    start = f"init_from={first / 'final'}"
    second, more = train("second", start, "model={}", "optimizer.steps=3")
    assert more[0]["loss"] < lines[0]["loss"]
    assert json.loads((second / "final" / "config.json").read_text())["hidden_size"] == 16
    with pytest.raises(ConfigError, match=r"has hidden_size 16, the recipe's model.hidden_size is"):
        train("third", start, "model.hidden_size=32")
    with pytest.raises(ConfigError, match=r"holds no tokenizer.json"):
        train("fourth", f"init_from={tmp_path}", "model={}")
    adapted, _ = train("adapted", start, "model={}", "lora.rank=2", "optimizer.kind=adamw")
    assert (adapted / "adapter" / "adapter_model.safetensors").exists()
    assert not same_weights(adapted, first)
    FalconH1ForCausalLM.from_pretrained(adapted / "final")


def test_a_checkpoint_of_another_shape_is_refused(train: Callable[..., Any]) -> None:
    train("run", "optimizer.steps=1")
    with pytest.raises(TrainingError, match=r"tensor model\.layers\.0.* the recipe's model needs"):
        train("run", "model.intermediate_size=32")
    with pytest.raises(TrainingError, match="must be that many"):
        train("run", "parallel.accumulation=2")


def test_a_context_shorter_than_every_document_is_refused(train: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"no document of \['word_sorting'\] fits into 64 tokens"):
        train(
            "run",
            "data.row_length=64",
            "data.families={word_sorting: 1.0}",
            "data.levels={3: 1.0}",
        )


@pytest.fixture
def curated(tmp_path: Path, vocabulary: Path) -> Path:
    """A small curated set with its tokenizer."""
    tokenizer = Tokenizer.from_pretrained(vocabulary)

    def fill(folder: Path) -> None:
        samples = [
            Sample(
                problem=f"What is {i} + 1?", thought=f"{i}+1={i + 1}", answer=str(i + 1),
                family="sums", level=1, source="here", style="generated",
            )
            for i in range(40)
        ]  # fmt: skip
        write_shard(folder, 0, samples, tokenizer)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(vocabulary / name, folder / name)

    write_folder(tmp_path / "set", fill)
    return tmp_path / "set"


def test_a_curated_set_is_learnt_measured_and_resumed(
    train: Callable[..., Any], curated: Path, tmp_path: Path
) -> None:
    ways = (f"data.source={curated}", f"data.held_out={curated}", "optimizer.adam_lr=0.01")
    measured = ("evaluate_every=3", "evaluate_count=4", "data.families={sums: 1.0}")
    whole, lines = train("whole", *ways, *measured)
    assert losses(lines)[-1] < losses(lines)[0]
    assert set(lines[-1]["held_out"]) == {"sums", "set", "set_loss"}
    assert lines[-1]["held_out"]["set_loss"] == pytest.approx(losses(lines)[-1], rel=0.2)
    train("broken", *ways, *measured, "optimizer.steps=2", "optimizer.decay_start=1.0")
    broken, lines = train("broken", *ways, *measured)
    assert [line["step"] for line in lines] == list(range(6))
    assert same_weights(broken, whole)  # both schedules begin alike

    def altered(folder: Path) -> None:
        for path in curated.iterdir():
            shutil.copy(path, folder / path.name)
        (folder / "tokenizer.json").write_text("{}")

    other = tmp_path / "other"
    write_folder(other, altered)
    with pytest.raises(ConfigError, match="has another tokenizer than"):
        train("mixed", f"data.held_out={other}", f"data.source={curated}")
    with pytest.raises(ConfigError, match="has another tokenizer than"):
        train("other", f"data.tokenizer={other}", f"data.source={curated}")


def test_a_step_with_nan_is_skipped_and_counted(
    tiny_recipe: Path, tmp_path: Path, vocabulary: Path
) -> None:
    shutil.copytree(vocabulary, tmp_path / "run" / VOCABULARY)
    said: list[str] = []
    run = SftRun(load_recipe(SftRecipe, tiny_recipe), tmp_path / "run", said.append)
    loss, calls = run.loss, 0

    def sometimes_nan(rows: PackedRows) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return loss(rows) * (float("nan") if calls in (2, 3) else 1.0)

    run.loss = sometimes_nan  # type: ignore[method-assign]
    run.train(threading.Event())
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["skipped"] for line in lines] == [0, 1, 2, 2, 2, 2]
    assert [json.loads(line)["loss"] is None for line in lines][:4] == [False, True, True, False]
    assert sum("skipped: loss nan" in line for line in said) == 2
    assert all(torch.isfinite(w).all() for w in run.weights().values())


def test_tensorboard_files_are_written_where_asked_for(train: Callable[..., Any]) -> None:
    output, _ = train("board", "tensorboard=true", "optimizer.steps=2")
    events = list((output / "tensorboard").glob("events.out.tfevents.*"))
    assert len(events) == 1
    assert b"grad_norm" in events[0].read_bytes()


def test_fresh_removes_nothing_for_a_run_that_cannot_begin(
    train: Callable[..., Any], tiny_recipe: Path
) -> None:
    output, _ = train("kept", "optimizer.steps=2")
    before = {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match="nowhere"):
        run_sft(tiny_recipe, output, ["init_from=nowhere"], fresh=True, report=quiet)
    assert before == {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}
