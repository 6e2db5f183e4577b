"""Twenty steps of supervised training stay the curve that was committed.

The documents are made of numbers here, so that only the loop, the model and the optimizers can
move the curve. `pytest tests/train/test_golden.py --regold` writes it anew.
"""

import json
import shutil
from pathlib import Path
from random import Random

import numpy as np
import pytest
from safetensors.numpy import save_file

from falcon_h1r.train.checkpoint import write_folder
from falcon_h1r.train.sft import run_sft

GOLDEN = Path(__file__).parent / "golden" / "sft.json"
STEPS = 20
TOLERANCE = {"adamw": 1e-3, "muon": 1e-2}
"""Relative; Muon's iterations round to bfloat16, in an order that differs between processors."""


def write_set(folder: Path, vocabulary: Path) -> None:
    """Prompts of random tokens whose answer is the prompt backwards."""

    def fill(path: Path) -> None:
        ids: list[int] = []
        offsets, prompts = [0], []
        rng = Random("golden")
        for _ in range(60):
            prompt = [rng.randint(10, 40) for _ in range(rng.randint(3, 30))]
            ids += [*prompt, 5, *reversed(prompt), 6]
            offsets.append(len(ids))
            prompts.append(len(prompt) + 1)
        tensors = {
            "ids": np.array(ids, np.uint32),
            "offsets": np.array(offsets, np.int64),
            "prompt_lengths": np.array(prompts, np.int32),
        }
        save_file(tensors, path / "tokens-00000.safetensors")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(vocabulary / name, path / name)

    write_folder(folder, fill)


def curve(kind: str, recipe: Path, tmp_path: Path) -> dict[str, list[float]]:
    overrides = [
        f"data.source={tmp_path / 'set'}", f"optimizer.kind={kind}", f"optimizer.steps={STEPS}",
        "optimizer.adam_lr=0.01", "parallel.accumulation=2", "device=cpu",
    ]  # fmt: skip
    run_sft(recipe, tmp_path / kind, overrides, report=lambda text: None)
    lines = (tmp_path / kind / "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    return {name: [line[name] for line in metrics] for name in ("loss", "grad_norm")}


def test_the_curve_is_the_committed_one(
    tiny_recipe: Path, vocabulary: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    write_set(tmp_path / "set", vocabulary)
    curves = {kind: curve(kind, tiny_recipe, tmp_path) for kind in TOLERANCE}
    if pytestconfig.getoption("--regold"):
        GOLDEN.write_text(json.dumps(curves, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    for kind, tolerance in TOLERANCE.items():
        for name, values in curves[kind].items():
            assert values == pytest.approx(golden[kind][name], rel=tolerance), (kind, name)
        assert curves[kind]["loss"][-1] < 0.85 * curves[kind]["loss"][0]
