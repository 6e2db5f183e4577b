"""Twenty steps of GRPO and of PPO stay the curves that were committed.

Prompts are made of numbers and the reward is a length, so that neither generators nor a vocabulary
can move the curves. `pytest tests/train/test_golden_rl.py --regold` writes them anew.
"""

import json
from pathlib import Path
from random import Random

import pytest

from falcon_h1r.train.grpo import run_grpo
from falcon_h1r.train.ppo import run_ppo

GOLDEN = Path(__file__).parent / "golden"
METHODS = {"grpo": run_grpo, "ppo": run_ppo}
OVERRIDES = [
    "reward={correctness: 0, format: 0, depth: 0, brevity: 0, length: 1}",
    "optimizer.steps=20", "optimizer.adam_lr=0.003",
]  # fmt: skip
EXTRA = {"grpo": ["loss.positive_ce_coef=0.1"], "ppo": ["epochs=2", "minibatches=2"]}
CURVES = {
    "grpo": ("reward", "grad_norm", "completions/mean_length"),
    "ppo": ("reward", "grad_norm", "loss/value_avg", "policy/approxkl_avg", "objective/kl"),
}


def prompt_of(tokenizer: object, problem: str) -> list[int]:
    rng = Random(problem)
    return [rng.randint(10, 250) for _ in range(rng.randint(3, 20))]


@pytest.mark.parametrize("method", METHODS)
def test_the_curve_is_the_committed_one(
    method: str,
    rl_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pytestconfig: pytest.Config,
) -> None:
    ordinals = iter(range(10**6))
    monkeypatch.setattr(
        "falcon_h1r.train.rollouts.encode_prompt",
        lambda tokenizer, problem, system: prompt_of(tokenizer, f"golden {next(ordinals)}"),
    )
    METHODS[method](
        rl_recipe, tmp_path / "run", [*OVERRIDES, *EXTRA[method]], report=lambda text: None
    )
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    curves = {name: [json.loads(line)[name] for line in lines] for name in CURVES[method]}
    path = GOLDEN / f"{method}.json"
    if pytestconfig.getoption("--regold"):
        path.write_text(json.dumps(curves, indent=1) + "\n")
    golden = json.loads(path.read_text())
    for name, values in curves.items():
        assert values == pytest.approx(golden[name], rel=2e-3, abs=1e-7), name
