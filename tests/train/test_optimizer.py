"""Optimizers equal torch's on the same gradients; half precision keeps float32 masters."""

import math

import pytest
import torch
from torch import nn

from falcon_h1r.errors import TrainingError
from falcon_h1r.train.optimizer import AdamW, MuonAdamW, OptimizerRecipe, make_optimizer


def small(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)).to(dtype)


def loss(model: nn.Module, step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    dtype = next(model.parameters()).dtype
    return model(torch.randn(4, 6, generator=generator).to(dtype)).float().square().sum()


def test_adamw_equals_torch() -> None:
    ours, theirs = small(), small()
    optimizer = AdamW(ours, lr=0.01, weight_decay=0.1, eps=1e-8)
    matrices = [p for p in theirs.parameters() if p.ndim == 2]
    vectors = [p for p in theirs.parameters() if p.ndim == 1]
    expected = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=0.01,
        betas=(0.9, 0.95),
    )
    for step in range(12):
        optimizer.zero_grad()
        expected.zero_grad()
        loss(ours, step).backward()
        loss(theirs, step).backward()
        optimizer.step(1.0, step)
        expected.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_updates_too_small_for_bfloat16_add_up_in_the_master(kind: str) -> None:
    recipe = OptimizerRecipe(kind=kind, adam_lr=1e-5, muon_lr=5e-5, weight_decay=0.0)  # type: ignore[arg-type]
    model = small(torch.bfloat16)
    with torch.no_grad():
        model[0].weight.fill_(1.0)  # type: ignore[index]
    optimizer = make_optimizer(model, recipe)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    masters = {n: m.clone() for n, m in optimizer.masters.items()}
    optimizer.zero_grad()
    loss(model, 0).backward()
    optimizer.step(1.0, 0)
    name = "0.weight"
    assert torch.equal(before[name], model.state_dict()[name])
    assert not torch.equal(masters[name], optimizer.masters[name])
    for step in range(1, 400):
        optimizer.zero_grad()
        loss(model, 0).backward()
        optimizer.step(1.0, step)
    assert not torch.equal(before[name], model.state_dict()[name])
    assert torch.equal(optimizer.masters[name].bfloat16(), model.state_dict()[name])
    assert f"{name}.master" in optimizer.state


def test_frozen_parameters_have_no_state_and_stay() -> None:
    model = small()
    model[0].weight.requires_grad_(False)  # type: ignore[index]
    optimizer = MuonAdamW(model, muon_lr=0.1, adam_lr=0.1, weight_decay=0.0)
    assert not any(name.startswith("0.weight") for name in optimizer.state)
    before = model[0].weight.clone()  # type: ignore[index]
    loss(model, 0).backward()
    optimizer.step(1.0, 0)
    assert torch.equal(before, model[0].weight)  # type: ignore[index]


def test_state_of_another_shape_is_refused() -> None:
    optimizer = AdamW(small(), lr=0.1, weight_decay=0.0)
    state = {name: tensor.clone() for name, tensor in optimizer.state.items()}
    state["0.weight.mean"] = torch.zeros(2, 2)
    with pytest.raises(TrainingError, match=r"0\.weight\.mean of the checkpoint is \(2, 2\)"):
        optimizer.load_state(state)
    del state["0.weight.mean"]
    with pytest.raises(TrainingError, match="is missing"):
        optimizer.load_state(state)


def test_schedules() -> None:
    wsd = OptimizerRecipe(steps=100, warmup_steps=10, decay_start=0.5, final_lr=0.1)
    assert [wsd.scale(s) for s in (0, 4, 9, 49, 50)] == [0.1, 0.5, 1.0, 1.0, 1.0]
    assert math.isclose(wsd.scale(75), 0.55)
    linear = OptimizerRecipe(schedule="linear", steps=110, warmup_steps=10, final_lr=0.0)
    assert linear.scale(10) == 1.0
    assert math.isclose(linear.scale(60), 0.5)
    assert math.isclose(linear.scale(109), 0.01)
