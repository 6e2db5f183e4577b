"""Losses, advantages and returns equal TRL's on the same numbers, gradients included.

GRPO against the current release, whose `_compute_loss` is called with given log-probabilities. PPO
against 0.11, the last release that had it as functions; it lies beside, in a folder of its own.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from falcon_h1r.train import advantages, losses

pytestmark = pytest.mark.peers
OLD_TRL = Path(__file__).parents[2] / ".venv-peers/trl-0.11"
LENGTHS = [7, 3, 5, 1, 6, 4, 2, 7]

GRPO = """
import collections, json, sys, types, warnings
warnings.simplefilter("ignore")
import torch
from trl.trainer.grpo_trainer import GRPOTrainer, nanstd
cases = json.load(sys.stdin)

def answer(given):
    t = lambda name: torch.tensor(given[name], dtype=torch.float64)
    logps = t("logprobs").requires_grad_()
    entropies = t("entropies").requires_grad_()
    rewards = t("rewards")
    std = nanstd(rewards, dim=1).repeat_interleave(rewards.shape[1])
    centred = (rewards - rewards.mean(1, keepdim=True)).flatten()
    advantages = centred / (std + 1e-4) if given["scale"] == "group" else centred
    args = types.SimpleNamespace(delta=None, use_bias_correction_kl=False)
    one = lambda x, reduction=None: x
    accelerator = types.SimpleNamespace(
        gather=one, reduce=one, num_processes=1, sync_gradients=True
    )
    trainer = types.SimpleNamespace(
        args=args, accelerator=accelerator, aux_loss_enabled=False, top_entropy_quantile=1.0,
        off_policy_mask_threshold=None, importance_sampling_level="token", beta=given["beta"],
        loss_type=given["loss_type"], epsilon_low=0.2, epsilon_high=0.28, use_vllm=True,
        vllm_importance_sampling_correction=True, model=types.SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1, max_completion_length=given["max_tokens"],
        _entropy_bonus_enabled=given["entropy_coef"] > 0, entropy_coef=given["entropy_coef"],
        use_adaptive_entropy=False, _entropy_window_stats=None,
        _metrics={"train": collections.defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *a, **k: (logps, entropies, None),
    )
    mask = t("mask")
    ids = torch.zeros(mask.shape, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1], "prompt_mask": mask[:, :1], "completion_ids": ids,
        "completion_mask": mask, "advantages": advantages, "old_per_token_logps": t("start"),
        "ref_per_token_logps": t("reference"),
        "importance_sampling_ratio": torch.exp(t("start") - t("old")).clamp(max=2.0),
    }
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    loss.backward()
    return {
        "loss": loss.item(), "gradient": logps.grad.tolist(), "advantages": advantages.tolist(),
        "metrics": {k: v[0] for k, v in trainer._metrics["train"].items()},
    }

print(json.dumps([answer(given) for given in cases]))
"""

PPO = """
import json, sys, types, warnings
warnings.simplefilter("ignore")
import torch
cases = json.load(sys.stdin)
sys.path.insert(0, cases[0]["trl"])
from trl import PPOTrainer

def answer(given):
    t = lambda name: torch.tensor(given[name], dtype=torch.float64)
    config = types.SimpleNamespace(
        whiten_rewards=False, gamma=given["gamma"], lam=given["lam"], cliprange=0.2,
        cliprange_value=0.2, vf_coef=0.1, ratio_threshold=1e9,
    )
    trainer = types.SimpleNamespace(config=config)
    mask = t("mask")
    values, advantages, returns = PPOTrainer.compute_advantages(
        trainer, t("values"), t("rewards"), mask
    )
    logprobs = t("logprobs").requires_grad_()
    vpreds = t("vpreds").requires_grad_()
    policy, value, stats = PPOTrainer.loss(
        trainer, t("start"), values, t("logits"), vpreds, logprobs, mask, advantages, returns
    )
    (policy + value).backward()
    return {
        "advantages": (advantages * mask).tolist(), "returns": (returns * mask).tolist(),
        "policy": policy.item(), "value": value.item() / 0.1,
        "logprobs": logprobs.grad.tolist(), "vpreds": vpreds.grad.tolist(),
        "entropy": stats["policy/entropy"].item(), "approxkl": stats["policy/approxkl"].item(),
    }

print(json.dumps([answer(given) for given in cases]))
"""


def padded(seed: int, scale: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(LENGTHS), max(LENGTHS))
    return torch.randn(shape, generator=generator, dtype=torch.float64) * scale


MASK = torch.tensor([[float(i < n) for i in range(max(LENGTHS))] for n in LENGTHS])
FLAT = MASK.bool()


def close(a: Tensor, b: Any) -> bool:
    return torch.allclose(a.double(), torch.as_tensor(b, dtype=torch.float64), rtol=1e-6, atol=1e-8)


AGGREGATIONS = {"grpo": "sequence", "bnpo": "token", "dr_grpo": "constant"}


def test_grpo(peer: Callable[[str, Any], Any]) -> None:
    logprobs, start, old, reference = (padded(i) - 1.0 for i in range(4))
    rewards = padded(4, 1.0).flatten()[:8].view(2, 4)
    numbers = {
        "logprobs": logprobs, "start": start, "old": old, "reference": reference,
        "rewards": rewards, "mask": MASK, "entropies": padded(5).abs(),
    }  # fmt: skip
    given = {name: values.tolist() for name, values in numbers.items()}
    given |= {"entropy_coef": 0.0, "max_tokens": 9}
    cases = [
        {"loss_type": loss_type, "scale": scale, "beta": beta}
        for loss_type in AGGREGATIONS
        for scale in ("group", "none")
        for beta in (0.0, 0.2)
    ]
    for case, theirs in zip(cases, peer(GRPO, [given | case for case in cases]), strict=True):
        check_grpo(theirs, logprobs, start, old, reference, rewards, **case)


def check_grpo(
    theirs: Any,
    logprobs: Tensor,
    start: Tensor,
    old: Tensor,
    reference: Tensor,
    rewards: Tensor,
    loss_type: str,
    scale: str,
    beta: float,
) -> None:
    ours = logprobs[FLAT].clone().requires_grad_()
    advantage = advantages.group_advantages(rewards, scale).flatten()
    assert close(advantage, theirs["advantages"])
    lengths = torch.tensor(LENGTHS)
    per_token = torch.repeat_interleave(advantage, lengths)
    total = losses.policy_loss(
        ours, start[FLAT], per_token, 0.2, 0.28
    ) * losses.truncated_importance_weights(start[FLAT], old[FLAT], 2.0)
    kl = losses.kl(ours, reference[FLAT], "k3")
    weights = losses.token_weights(lengths, AGGREGATIONS[loss_type], 9).double()
    loss = (weights * (total + beta * kl)).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(theirs["loss"], rel=1e-6, abs=1e-7)
    gradient = torch.tensor(theirs["gradient"], dtype=torch.float64)
    assert ours.grad is not None
    assert torch.allclose(ours.grad, gradient[FLAT], rtol=1e-5, atol=1e-8)
    low, high = losses.clipped_tokens(ours.detach(), start[FLAT], per_token, 0.2, 0.28)
    metrics = theirs["metrics"]
    assert low.double().mean().item() == pytest.approx(metrics["clip_ratio/low_mean"])
    assert high.double().mean().item() == pytest.approx(metrics["clip_ratio/high_mean"])
    if beta:
        assert kl.mean().item() == pytest.approx(metrics["kl"], rel=1e-6)


def test_ppo(peer: Callable[[str, Any], Any]) -> None:
    logprobs, start = padded(0) - 1.0, padded(1) - 1.0
    values, rewards, vpreds = (padded(i, 1.0) for i in (2, 3, 4))
    logits = torch.randn((*MASK.shape, 11), generator=torch.Generator().manual_seed(5)).double()
    numbers = {
        "logprobs": logprobs, "start": start, "values": values, "rewards": rewards,
        "vpreds": vpreds, "logits": logits, "mask": MASK,
    }  # fmt: skip
    given: dict[str, Any] = {name: values.tolist() for name, values in numbers.items()}
    given["trl"] = str(OLD_TRL)
    settings = ((1.0, 0.95), (0.9, 0.8))
    answers = peer(PPO, [given | {"gamma": gamma, "lam": lam} for gamma, lam in settings])
    for (gamma, lam), theirs in zip(settings, answers, strict=True):
        check_ppo(theirs, logprobs, start, values, rewards, vpreds, logits, gamma, lam)


def check_ppo(
    theirs: Any,
    logprobs: Tensor,
    start: Tensor,
    values: Tensor,
    rewards: Tensor,
    vpreds: Tensor,
    logits: Tensor,
    gamma: float,
    lam: float,
) -> None:
    bounds = torch.tensor([0, *LENGTHS]).cumsum(0)
    raw, returns = advantages.gae(rewards[FLAT], values[FLAT], bounds, gamma, lam)
    white = advantages.whiten(raw)
    assert close(white, torch.tensor(theirs["advantages"], dtype=torch.float64)[FLAT])
    assert close(returns, torch.tensor(theirs["returns"], dtype=torch.float64)[FLAT])
    ours, predicted = (x[FLAT].clone().requires_grad_() for x in (logprobs, vpreds))
    weights = losses.token_weights(torch.tensor(LENGTHS), "token").double()
    policy = (weights * losses.policy_loss(ours, start[FLAT], white, 0.2, 0.2)).sum()
    value = (weights * losses.value_loss(predicted, values[FLAT], returns, 0.2)).sum()
    (policy + 0.1 * value).backward()
    assert policy.item() == pytest.approx(theirs["policy"], rel=1e-6)
    assert value.item() == pytest.approx(theirs["value"], rel=1e-6)
    for gradient, name in ((ours.grad, "logprobs"), (predicted.grad, "vpreds")):
        assert gradient is not None
        wanted = torch.tensor(theirs[name], dtype=torch.float64)[FLAT]
        assert torch.allclose(gradient, wanted, rtol=1e-5, atol=1e-8)
    assert losses.entropy(logits[FLAT]).mean().item() == pytest.approx(theirs["entropy"], rel=1e-5)
    drift = losses.kl(ours.detach(), start[FLAT], "k2").mean().item()
    assert drift == pytest.approx(theirs["approxkl"], rel=1e-6)
