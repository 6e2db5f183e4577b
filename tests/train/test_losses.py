"""Losses and advantages against plain loops and finite facts."""

import math
import random

import pytest
import torch

from falcon_h1r.train import advantages, losses


def numbers(seed: int, count: int = 40) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, generator=generator) for _ in range(4)]


def test_policy_loss_is_the_lower_of_the_two_surrogates() -> None:
    logprobs, start, advantage, _ = numbers(0)
    got = losses.policy_loss(logprobs * 0.3, start * 0.3, advantage, 0.2, 0.28)
    for i in range(len(got)):
        ratio = math.exp(float(logprobs[i] - start[i]) * 0.3)
        a = float(advantage[i])
        assert float(got[i]) == pytest.approx(-min(ratio * a, min(max(ratio, 0.8), 1.28) * a), 1e-5)
    low, high = losses.clipped_tokens(logprobs * 0.3, start * 0.3, advantage, 0.2, 0.28)
    changed = losses.policy_loss(logprobs * 0.3 + 1e-3, start * 0.3, advantage, 0.2, 0.28) != got
    assert torch.equal(low | high, ~changed)


def test_weights_sum_to_one_and_split() -> None:
    lengths = torch.tensor([3, 5, 1])
    sequence = losses.token_weights(lengths, "sequence")
    assert sequence.tolist() == pytest.approx([1 / 9] * 3 + [1 / 15] * 5 + [1 / 3])
    assert losses.token_weights(lengths, "token").tolist() == pytest.approx([1 / 9] * 9)
    assert losses.token_weights(lengths, "constant", 10).tolist() == pytest.approx([1 / 30] * 9)
    with pytest.raises(ValueError, match="aggregation"):
        losses.token_weights(lengths, "mean")


def test_kl_estimators_agree_in_expectation() -> None:
    generator = torch.Generator().manual_seed(1)
    policy, reference = torch.randn(2, 7, generator=generator, dtype=torch.float64).log_softmax(-1)
    true = float((policy.exp() * (policy - reference)).sum())
    for estimator in ("k1", "k3"):
        each = losses.kl(policy, reference, estimator)
        assert float((policy.exp() * each).sum()) == pytest.approx(true, rel=1e-9)
    assert (losses.kl(policy, reference, "k3") >= 0).all()
    near = policy + 1e-3 * reference
    assert torch.allclose(
        losses.kl(policy, near, "k2"), losses.kl(policy, near, "k3"), rtol=0.02, atol=1e-9
    )
    with pytest.raises(ValueError, match="estimator"):
        losses.kl(policy, reference, "k4")


def test_value_loss_takes_the_larger_error() -> None:
    values, old, returns, _ = numbers(2)
    got = losses.value_loss(values, old, returns, 0.2)
    for i in range(len(got)):
        clipped = float(old[i]) + min(max(float(values[i] - old[i]), -0.2), 0.2)
        errors = (float(values[i] - returns[i]) ** 2, (clipped - float(returns[i])) ** 2)
        assert float(got[i]) == pytest.approx(0.5 * max(errors), rel=1e-5)


def test_small_terms() -> None:
    start, old, _, _ = numbers(3)
    weights = losses.truncated_importance_weights(start, old, 2.0)
    assert float(weights.max()) == 2.0
    assert torch.allclose(weights[weights < 2], (start - old).exp()[weights < 2])
    assert losses.entropy(torch.zeros(2, 8)).tolist() == pytest.approx([math.log(8)] * 2)
    positive = losses.positive_cross_entropy(start, old > 0)
    assert torch.equal(positive, torch.where(old > 0, -start, torch.zeros(40)))


@pytest.mark.parametrize("gamma, lam", [(1.0, 0.95), (0.9, 1.0), (0.97, 0.5)])
def test_gae_equals_the_sum_of_discounted_deltas(gamma: float, lam: float) -> None:
    rewards, values, _, _ = numbers(4, 12)
    cu_seqlens = torch.tensor([0, 5, 6, 12])
    got, returns = advantages.gae(rewards, values, cu_seqlens, gamma, lam)
    for start, end in ((0, 5), (5, 6), (6, 12)):
        deltas = [
            float(rewards[t] + (gamma * values[t + 1] if t + 1 < end else 0.0) - values[t])
            for t in range(start, end)
        ]
        for t in range(start, end):
            want = sum((gamma * lam) ** (k - t) * deltas[k - start] for k in range(t, end))
            assert float(got[t]) == pytest.approx(want, rel=1e-4, abs=1e-5)
    assert torch.allclose(returns, got + values)


def test_group_advantages() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    scaled = advantages.group_advantages(rewards)
    std = rewards[0].std().item()
    assert scaled[0].tolist() == pytest.approx([x * 0.5 / (std + 1e-4) for x in (1, -1, -1, 1)])
    assert scaled[1].tolist() == [0.0] * 4
    assert advantages.group_advantages(rewards, "none")[0].tolist() == [0.5, -0.5, -0.5, 0.5]
    with pytest.raises(ValueError, match="scale"):
        advantages.group_advantages(rewards, "batch")


def branch_by_prefix(worth: list[float], responses: list[list[int]]) -> list[list[float]]:
    """The definition: mean worth of those that begin alike, with the token less without it."""

    def mean(prefix: list[int]) -> float:
        through = [w for w, r in zip(worth, responses, strict=True) if r[: len(prefix)] == prefix]
        return sum(through) / len(through)

    return [[mean(r[: t + 1]) - mean(r[:t]) for t in range(len(r))] for r in responses]


@pytest.mark.parametrize("seed", range(20))
def test_branch_advantages(seed: int) -> None:
    rng = random.Random(seed)
    responses = [[rng.randrange(2) for _ in range(rng.randint(1, 12))] for _ in range(8)]
    responses[3] = list(responses[2])
    worth = torch.tensor([rng.random() for _ in range(8)])
    got = advantages.branch_advantages(worth, responses)
    for ours, want in zip(got, branch_by_prefix(worth.tolist(), responses), strict=True):
        assert ours.tolist() == pytest.approx(want, abs=1e-6)


def test_a_mistake_is_blamed_on_the_token_that_made_it() -> None:
    right, wrong = [5, 6, 7, 8], [5, 9, 7, 8]
    worth = torch.tensor([0.25, 0.25, 0.25, -0.75])
    credit = advantages.branch_advantages(worth, [right, right, right, wrong])
    assert credit[0].tolist() == pytest.approx([0, 0.25, 0, 0])
    assert credit[3].tolist() == pytest.approx([0, -0.75, 0, 0])
    distinct = [[1, 2, 3], [4, 5], [6]]  # each alone from its end on: the sum is the advantage
    credit = advantages.branch_advantages(torch.tensor([0.5, -0.25, -0.25]), distinct)
    assert [each.sum().item() for each in credit] == pytest.approx([0.5, -0.25, -0.25])


def test_whiten() -> None:
    x = numbers(5)[0] * 3 + 2
    white = advantages.whiten(x)
    assert white.mean().item() == pytest.approx(0, abs=1e-6)
    assert white.std().item() == pytest.approx(1, rel=1e-5)
    assert advantages.whiten(x, False).mean().item() == pytest.approx(x.mean().item(), rel=1e-5)
