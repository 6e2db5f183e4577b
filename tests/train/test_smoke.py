"""The smoke recipe learns: its loss falls well below that of its first steps."""

import json
from pathlib import Path

from falcon_h1r.train.sft import run_sft


def test_smoke_recipe_learns(tmp_path: Path) -> None:
    overrides = ["optimizer.steps=16", "optimizer.warmup_steps=3", "evaluate_every=16"]
    final = run_sft("smoke_sft", tmp_path / "run", overrides, report=lambda text: None)
    assert final is not None
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in metrics.splitlines()]
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert set(lines[-1]["held_out"]) == {"sums", "equations"}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= {
        p.name for p in final.iterdir()
    }
