"""The loops of GRPO and PPO: engine and trainer agree, a resumed run equals an unbroken one."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from falcon_h1r import FalconH1ForCausalLM
from falcon_h1r.errors import ConfigError, RequestError, TrainingError
from falcon_h1r.train.checkpoint import write_folder
from falcon_h1r.train.config import load_recipe
from falcon_h1r.train.grpo import GrpoRun, run_grpo
from falcon_h1r.train.ppo import PpoRun, run_ppo
from falcon_h1r.train.recipe_rl import GrpoRecipe, PpoRecipe
from falcon_h1r.train.rl import BAD_SAMPLE, RlRun
from falcon_h1r.train.samples import Sample, write_samples

METHODS = {"grpo": (run_grpo, GrpoRun, GrpoRecipe), "ppo": (run_ppo, PpoRun, PpoRecipe)}
TIMES = {"step_time", "rollout_time", "train_time", "seconds"}


def quiet(text: str) -> None:
    pass


def lines_of(output: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def make_run(method: str, recipe: Path, output: Path, *overrides: str) -> RlRun:
    output.mkdir(exist_ok=True)
    _, run_class, recipe_class = METHODS[method]
    return run_class(load_recipe(recipe_class, recipe, overrides), output, quiet)  # type: ignore[arg-type]


def interrupt_after(steps: int, method: str, recipe: Path, output: Path, *overrides: str) -> None:
    """Run some steps and stop, as Ctrl-C does."""
    run = make_run(method, recipe, output, *overrides)
    run.resume()
    stop = threading.Event()
    update: Callable[..., Any] = run.update  # type: ignore[attr-defined]

    def counted(groups: Any) -> Any:
        if run.step + 1 >= steps:
            stop.set()
        return update(groups)

    run.update = counted  # type: ignore[attr-defined]
    run.train(stop)  # type: ignore[attr-defined]
    assert run.step == steps


@pytest.mark.parametrize(
    "method, overrides",
    [
        ("grpo", ()),
        ("grpo", ("epochs=2", "minibatches=2", "loss.kl_coef=0.1", "loss.entropy_coef=0.01",
                  "loss.positive_ce_coef=0.1", "rollout.temperature=0.8")),
        ("ppo", ("epochs=2", "minibatches=2", "loss.entropy_coef=0.01")),
    ],
)  # fmt: skip
def test_a_resumed_run_equals_an_unbroken_one_to_the_bit(
    method: str, overrides: tuple[str, ...], rl_recipe: Path, tmp_path: Path
) -> None:
    train = METHODS[method][0]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train(rl_recipe, whole, overrides, report=quiet) == whole / "final"
    interrupt_after(2, method, rl_recipe, broken, *overrides)
    with (broken / "metrics.jsonl").open("a") as metrics:  # a step that no checkpoint holds
        metrics.write(json.dumps({"step": 2, "loss": 0.0}) + "\n")
    assert train(rl_recipe, broken, overrides, report=quiet) == broken / "final"
    a, b = (load_file(d / "final" / "model.safetensors") for d in (whole, broken))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert lines_of(whole) == lines_of(broken)
    assert len(lines_of(whole)) == 6
    FalconH1ForCausalLM.from_pretrained(whole / "final")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_engine_and_the_trainer_agree(
    method: str, temperature: float, rl_recipe: Path, tmp_path: Path
) -> None:
    """At every step, for the weights that sampled: the first line of the log and the last."""
    overrides = [f"rollout.temperature={temperature}", "rollout.max_staleness=0"]
    METHODS[method][0](rl_recipe, tmp_path / "run", overrides, report=quiet)
    for line in lines_of(tmp_path / "run"):
        assert line["sampling/sampling_logp_difference/max"] < 1e-5
        assert line["sampling/importance_sampling_ratio/mean"] == pytest.approx(1.0, abs=1e-5)
        assert 0 <= line["mismatch_kl"] < 1e-9


def test_grpo_learns_what_is_rewarded(rl_recipe: Path, tmp_path: Path) -> None:
    run_grpo(
        rl_recipe, tmp_path / "run", ["optimizer.steps=24", "rollout.group_size=8"], report=quiet
    )
    lengths = [line["completions/mean_length"] for line in lines_of(tmp_path / "run")]
    assert sum(lengths[-4:]) > 1.3 * sum(lengths[:4])


def test_ppo_stops_a_step_whose_kl_runs_off(rl_recipe: Path, tmp_path: Path) -> None:
    overrides = ["epochs=4", "minibatches=2", "loss.target_kl=1e-6", "optimizer.steps=2"]
    run_ppo(rl_recipe, tmp_path / "run", overrides, report=quiet)
    lines = lines_of(tmp_path / "run")
    assert [line["stopped_by_kl"] for line in lines] == [1.0, 1.0]
    assert all(1 <= line["num_updates"] < 8 for line in lines)


def test_a_nan_in_sampling_stops_with_the_sample_saved(rl_recipe: Path, tmp_path: Path) -> None:
    run = make_run("grpo", rl_recipe, tmp_path / "run")
    with torch.no_grad():
        run.model.model.final_layernorm.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="NaN"):
        run.train(threading.Event())  # type: ignore[attr-defined]
    saved = json.loads((tmp_path / "run" / BAD_SAMPLE).read_text())
    assert saved["step"] == 0
    assert "NaN" in saved["error"]


def test_a_nan_in_the_trainer_stops_with_the_sample_saved(rl_recipe: Path, tmp_path: Path) -> None:
    run = make_run("grpo", rl_recipe, tmp_path / "run")
    assert isinstance(run, GrpoRun)
    groups = run.sample(range(2))
    with torch.no_grad():
        run.model.model.final_layernorm.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="trainer's log-probabilities hold NaN"):
        run.update(groups)
    assert "input_ids" in json.loads((tmp_path / "run" / BAD_SAMPLE).read_text())


def test_new_weights_forget_kept_prefixes(rl_recipe: Path, tmp_path: Path) -> None:
    run = make_run("grpo", rl_recipe, tmp_path / "run")
    engine, prompt = run.engine, list(range(5, 205))
    from falcon_h1r import SamplingParams

    def cached_tokens() -> int:
        before = engine.stats()["num_cached_tokens"]
        engine.add_request(prompt, SamplingParams(max_tokens=1))
        with pytest.raises(RequestError, match="unfinished"):
            engine.update_weights(9)
        while engine.has_unfinished():
            engine.step()
        return engine.stats()["num_cached_tokens"] - before

    assert cached_tokens() == 0
    assert cached_tokens() == 128
    engine.update_weights(engine.weights_version)  # the same weights: nothing is forgotten
    assert cached_tokens() == 128
    engine.update_weights(1)
    assert cached_tokens() == 0


def test_prompts_of_a_curated_set(rl_recipe: Path, tmp_path: Path) -> None:
    samples = [
        Sample(
            problem=f"What is {i}?", thought=f"{i}", answer=str(i), family="school", level=0,
            source="s", style="t",
        )
        for i in range(5)
    ]  # fmt: skip
    write_folder(
        tmp_path / "set", lambda path: write_samples(path / "samples-00000.jsonl", samples)
    )
    source = f"data.source={tmp_path / 'set'}"
    run = make_run("grpo", rl_recipe, tmp_path / "run", source)
    epochs = [[run.problem(5 * e + i).answer for i in range(5)] for e in range(3)]
    assert all(sorted(epoch) == list("01234") for epoch in epochs)
    assert epochs[0] != epochs[1] or epochs[1] != epochs[2]
    assert run_grpo(rl_recipe, tmp_path / "run", [source, "optimizer.steps=1"], report=quiet)
    with pytest.raises(ConfigError, match="no such folder"):
        make_run("grpo", rl_recipe, tmp_path / "run", "data.source=/nowhere")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rollouts.group_size=3", "did you mean rollout?"),
        ("loss.clip_hi=3", "did you mean clip_high?"),
        ("rollout.max_prompts=1", "rollout.max_prompts is 1; it must be at least num_prompts"),
        ("loss.clip_low=1.5", "loss.clip_low is 1.5; it must be in (0, 1)"),
        ("reward.brevity_from=0", "reward.brevity_from is 0.0; it must be in (0, 1]"),
        ("optimizer.adam_lr=0", "optimizer.adam_lr is 0.0; it must be positive"),
        ("rollout.group_size=1", "rollout.group_size is 1; it must be at least 2"),
        ("reward={correctness: 0, format: 0, depth: 0, brevity: 0}", "one positive weight"),
        ("data.families={riddles: 1}", "data.families.riddles is not a family of tasks"),
    ],
)
def test_a_bad_key_is_named(rl_recipe: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_recipe(GrpoRecipe, rl_recipe, [override])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_shipped_recipes_load() -> None:
    published = load_recipe(GrpoRecipe, "falcon_h1r_grpo")
    assert (published.loss.clip_low, published.loss.clip_high) == (0.2, 0.28)
    assert published.loss.kl_coef == published.loss.entropy_coef == 0
    assert (published.rollout.group_size, published.rollout.temperature) == (16, 0.85)
    assert (published.rollout.num_prompts, published.optimizer.adam_lr) == (128, 2e-6)
    assert published.loss.tis_cap == 2
    for name, recipe_class in (("smoke_grpo", GrpoRecipe), ("reference_grpo", GrpoRecipe),
                               ("smoke_ppo", PpoRecipe)):  # fmt: skip
        assert load_recipe(recipe_class, name).optimizer.kind == "adamw"


@pytest.mark.parametrize("method", METHODS)
def test_gradients_in_half_precision_leave_the_logprobs_alone(
    method: str, rl_recipe: Path, tmp_path: Path
) -> None:
    lines = []
    for name in ("same", "medium"):
        run = make_run(method, rl_recipe, tmp_path / name, f"gradient_precision={name}")
        lines.append(run.update(run.sample(range(3))))  # type: ignore[attr-defined]
        assert torch.get_float32_matmul_precision() == "highest"
    exact, rounded = lines
    for name in ("mismatch_kl", "sampling/sampling_logp_difference/max", "loss"):
        assert rounded[name] == exact[name]
    assert rounded["grad_norm"] == pytest.approx(exact["grad_norm"], rel=0.02)
