"""The loop: an interrupted run ends with the bits of an unbroken one; damage is noticed."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from falcon_h1r import FalconH1ForCausalLM
from falcon_h1r.errors import ConfigError, TrainingError
from falcon_h1r.train import checkpoint
from falcon_h1r.train.config import load_recipe
from falcon_h1r.train.optimizer import orthogonalize
from falcon_h1r.train.recipe_sft import SftRecipe
from falcon_h1r.train.sft import SftRun, run_sft
from falcon_h1r.train.start import VOCABULARY


def quiet(text: str) -> None:
    pass


@pytest.fixture
def folder(tmp_path: Path, vocabulary: Path) -> Callable[[str], Path]:
    """Makes an output folder that already has its vocabulary."""

    def make(name: str) -> Path:
        shutil.copytree(vocabulary, tmp_path / name / VOCABULARY)
        return tmp_path / name

    return make


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def interrupt_after(steps: int, recipe: Path, output: Path) -> None:
    """Run some steps and stop, as Ctrl-C does."""
    run = SftRun(load_recipe(SftRecipe, recipe), output, quiet)
    run.resume()
    stop = threading.Event()
    accumulate = run.accumulate

    def counted(batch):  # type: ignore[no-untyped-def]
        if run.step + 1 >= steps:
            stop.set()
        accumulate(batch)

    run.accumulate = counted  # type: ignore[method-assign]
    run.train(stop)
    assert run.step == steps


def test_a_resumed_run_equals_an_unbroken_one_to_the_bit(
    tiny_recipe: Path, folder: Callable[[str], Path]
) -> None:
    whole, broken = folder("whole"), folder("broken")
    assert run_sft(tiny_recipe, whole, report=quiet) == whole / "final"
    interrupt_after(2, tiny_recipe, broken)
    interrupt_after(3, tiny_recipe, broken)
    # A kill leaves metrics of steps that no checkpoint holds, and a half-written folder.
    with (broken / "metrics.jsonl").open("a") as metrics:
        metrics.write(json.dumps({"step": 3, "loss": 0.0}) + "\n")
    (broken / "checkpoints" / ".step-00000004.partial").mkdir()
    final = run_sft(tiny_recipe, broken, report=quiet)
    assert final is not None
    assert same(weights(whole / "final"), weights(final))
    losses = [
        [json.loads(line)["loss"] for line in (d / "metrics.jsonl").read_text().splitlines()]
        for d in (whole, broken)
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6
    loaded = FalconH1ForCausalLM.from_pretrained(final)
    assert torch.isfinite(loaded(torch.tensor([[1, 2, 3]]))).all()


def test_a_damaged_checkpoint_is_skipped_by_name(
    tiny_recipe: Path, folder: Callable[[str], Path]
) -> None:
    output = folder("run")
    for steps in (1, 2):
        interrupt_after(steps, tiny_recipe, output)
    saved = output / "checkpoints"
    assert (saved / "LATEST").read_text().strip() == "step-00000002"
    model = saved / "step-00000002" / "model.safetensors"
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(bytes(data))
    said: list[str] = []
    assert checkpoint.latest_checkpoint(saved, said.append) == saved / "step-00000001"
    assert said == [
        "skipped checkpoint step-00000002: model.safetensors has another SHA-256 than the manifest "
        "says"
    ]
    (saved / "step-00000001" / "manifest.json").unlink()
    with pytest.raises(TrainingError, match="no checkpoint in"):
        checkpoint.latest_checkpoint(saved, said.append)


def test_only_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    (tmp_path / ".step-00000001.partial").mkdir()  # a kill left them
    (tmp_path / ".step-00000002.removed").mkdir()
    for step in (1, 2, 3, 4):
        group = {"w": torch.full((2,), float(step))}
        checkpoint.save_checkpoint(tmp_path, step, {"model": group}, {"step": step}, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "LATEST",
        "step-00000003",
        "step-00000004",
    ]
    tensors, state = checkpoint.load_checkpoint(tmp_path / "step-00000004")
    assert state == {"step": 4}
    assert torch.equal(tensors["model"]["w"], torch.full((2,), 4.0))


@pytest.mark.parametrize("keep", range(1, 8))
def test_as_many_checkpoints_stay_as_are_asked_for(tmp_path: Path, keep: int) -> None:
    for step in range(1, 13):
        group = {"w": torch.zeros(1)}
        checkpoint.save_checkpoint(tmp_path, step, {"model": group}, {"step": step}, keep=keep)
        newest = range(max(1, step - keep + 1), step + 1)
        assert sorted(p.name for p in tmp_path.glob("step-*")) == [f"step-{n:08d}" for n in newest]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.steps=3", "optimiser is not a key of a recipe"),
        ("optimizer.step=3", "optimizer.step is not a key of a recipe; did you mean steps?"),
        ("optimizer.adam_lr=0", "optimizer.adam_lr is 0.0; it must be positive and finite"),
        ("optimizer.muon_lr=-1e-3", "optimizer.muon_lr is -0.001; it must be positive"),
        ("optimizer.kind=sgd", "optimizer.kind is 'sgd'; it must be one of muon, adamw"),
        ("model.width=3", "model.width is not a field of FalconH1Config"),
        ("model.vocab_size=300", "model.vocab_size is given; the tokenizer decides"),
        ("data.families={sums: .inf}", "finite weights >= 0"),
        (
            "data.families={sums: 1.0, riddles: 2.0}",
            "data.families.riddles is not a family of tasks",
        ),
        ("data.levels={4: 1.0}", "levels are 1, 2 and 3"),
        ("optimizer.steps=many", "optimizer.steps is 'many'; it must be of type int"),
        ("optimizer.steps=0", "optimizer.steps is 0; it must be at least 1"),
        ("seed=true", "seed is True; it must be of type int"),
        ("seed", "is not of the form a.b=c"),
        ("seed.deep=1", "seed has no keys below it"),
    ],
)
def test_a_bad_key_is_named(tiny_recipe: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_recipe(SftRecipe, tiny_recipe, [override])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_unknown_recipe_and_broken_yaml_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recipe 'nothing'; .*smoke_sft"):
        load_recipe(SftRecipe, "nothing")
    path = tmp_path / "broken.yaml"
    path.write_text("model: [1,\n")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_recipe(SftRecipe, path)


def test_shipped_recipes_load() -> None:
    assert load_recipe(SftRecipe, "reference_sft").optimizer.steps > 1000
    assert load_recipe(SftRecipe, "smoke_sft").optimizer.steps < 200
    assert load_recipe(SftRecipe, "continue_sft").init_from is not None


def test_orthogonalize_drives_singular_values_towards_one() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 24, 8), (2, 8, 24)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape, generator=generator)))
        assert 0.6 < values.min() < values.max() < 1.3


def test_a_non_finite_loss_stops_after_a_few_steps_and_keeps_the_weights(
    tiny_recipe: Path, folder: Callable[[str], Path]
) -> None:
    run = SftRun(load_recipe(SftRecipe, tiny_recipe), folder("run"), quiet)
    with torch.no_grad():
        run.model.model.final_layernorm.weight.fill_(float("nan"))
    before = {k: v.clone() for k, v in run.weights().items() if "final" not in k}
    with pytest.raises(TrainingError, match="5 steps in a row"):
        run.train(threading.Event())
    assert all(torch.equal(before[k], run.weights()[k]) for k in before)
