"""Sampling and learning on a device that is not the CPU, played by the CPU."""

import json
from pathlib import Path

import pytest
import torch
from far_device import FAR, far_device
from safetensors.torch import load_file

from falcon_h1r.errors import ConfigError
from falcon_h1r.train import rl, sft
from falcon_h1r.train.grpo import run_grpo
from falcon_h1r.train.ppo import run_ppo
from falcon_h1r.train.sft import run_sft
from falcon_h1r.train.start import pick_device

RL = {"grpo": run_grpo, "ppo": run_ppo}


def quiet(text: str) -> None:
    pass


def test_the_far_device_refuses_what_a_gpu_refuses() -> None:
    with far_device() as device:
        x = torch.tensor([1.0, 2.0], device=device)
        part = torch.zeros(4, device=device)[1:3]
        part += x
        assert part.tolist() == [1.0, 2.0]
        assert (x * 2).device == FAR
        assert (x + torch.tensor(1.0)).tolist() == [2.0, 3.0]
        with pytest.raises(RuntimeError, match="mixes devices"):
            x + torch.ones(2)
        with pytest.raises((RuntimeError, TypeError)):
            x.numpy()
        assert (x.cpu() + torch.ones(2)).tolist() == [2.0, 3.0]


@pytest.mark.parametrize("method", RL)
def test_rl_runs_off_the_cpu(
    method: str, rl_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the end, stopped and resumed; the first step is the CPU's to rounding."""
    monkeypatch.setattr(rl, "pick_device", lambda wanted: FAR)
    changes = ["loss.kl_coef=0.1", "loss.entropy_coef=0.01"]
    if method == "grpo":
        changes.append("loss.positive_ce_coef=0.1")
    far, near = tmp_path / "far", tmp_path / "near"
    with far_device():
        assert RL[method](rl_recipe, far, [*changes, "optimizer.steps=2"], report=quiet)
        assert RL[method](rl_recipe, far, [*changes, "optimizer.steps=3"], report=quiet)
    monkeypatch.setattr(rl, "pick_device", lambda wanted: torch.device("cpu"))
    assert RL[method](rl_recipe, near, [*changes, "optimizer.steps=1"], report=quiet)
    ours, theirs = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (far, near)
    )
    assert [line["step"] for line in ours] == [0, 1, 2]
    assert ours[0]["mismatch_kl"] < 1e-9
    for name in ("loss", "grad_norm", "reward", "completions/mean_length"):
        assert ours[0][name] == pytest.approx(theirs[0][name], rel=1e-3, abs=1e-5), name
    assert all(t.isfinite().all() for t in load_file(far / "final" / "model.safetensors").values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sft_runs_off_the_cpu(
    precision: str, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps; untied, since `Module.to` unties what it moves to a device of another kind."""
    monkeypatch.setattr(sft, "pick_device", lambda wanted, processes: FAR)
    changes = [f"precision={precision}", "optimizer.steps=2", "model.tie_word_embeddings=false"]
    with far_device():
        assert run_sft(tiny_recipe, tmp_path / "far", changes, report=quiet)
    monkeypatch.setattr(sft, "pick_device", lambda wanted, processes: torch.device("cpu"))
    assert run_sft(tiny_recipe, tmp_path / "near", changes, report=quiet)
    ours, theirs = (
        load_file(tmp_path / name / "final" / "model.safetensors") for name in ("far", "near")
    )
    tolerance = 1e-4 if precision == "fp32" else 3e-2
    for name, tensor in ours.items():
        assert torch.allclose(tensor.float(), theirs[name].float(), atol=tolerance), name


def test_a_gpu_that_is_not_there_is_refused(rl_recipe: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there are GPUs")
    assert pick_device("auto").type == "cpu"
    for run in RL.values():
        with pytest.raises(ConfigError, match="torch sees 0 GPUs"):
            run(rl_recipe, tmp_path / "none", ["device=cuda"], report=quiet)
    assert not (tmp_path / "none").exists()
