"""The fast loop equals the plain one, step for step, on a tiny model."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from falcon_h1r import FalconH1ForCausalLM, Tokenizer
from falcon_h1r.train import minimal
from falcon_h1r.train.config import load_recipe
from falcon_h1r.train.grpo import run_grpo
from falcon_h1r.train.recipe_rl import GrpoRecipe

ONE_ROUND = ["rollout.max_prompts=3", "rollout.max_kept=0", "optimizer.adam_lr=0.003"]


@pytest.mark.parametrize(("temperature", "credit"), [(1.0, "sequence"), (0.8, "branch")])
def test_the_fast_loop_equals_the_plain_one(
    temperature: float, credit: str, rl_recipe: Path, tiny_model: Path, tmp_path: Path
) -> None:
    overrides = [*ONE_ROUND, f"rollout.temperature={temperature}", "optimizer.weight_decay=0.01",
                 f"loss.credit={credit}"]  # fmt: skip
    final = run_grpo(rl_recipe, tmp_path / "run", overrides, report=lambda text: None)
    assert final is not None
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    fast = [json.loads(line) for line in metrics]

    model = FalconH1ForCausalLM.from_pretrained(tiny_model)
    tokenizer = Tokenizer.from_pretrained(tiny_model)
    recipe = load_recipe(GrpoRecipe, rl_recipe, overrides)
    plain = minimal.train(model, tokenizer, recipe, set(model.config.eos_token_ids))
    assert len(plain) == len(fast) == 6
    for a, b in zip(plain, fast, strict=True):
        assert a["reward"] == pytest.approx(b["reward"], rel=1e-6)
        assert a["completions/mean_length"] == b["completions/mean_length"]
        assert a["loss"] == pytest.approx(b["loss"], abs=2e-6)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)
    weights = load_file(final / "model.safetensors")
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter, weights[name], atol=2e-4), name


def test_the_plain_loop_is_short() -> None:
    assert len(Path(minimal.__file__).read_text().splitlines()) <= 200
