"""Rollouts packed with each prompt once, against every rollout by itself."""

from random import Random

import pytest
import torch
from torch import Tensor

from falcon_h1r import FalconH1Config, FalconH1ForCausalLM
from falcon_h1r.train.responses import TOKEN_MULTIPLE, micro_batches, pack, response_hidden

Pairs = list[tuple[tuple[int, ...], tuple[int, ...]]]
BOUNDS = {torch.float64: 1e-10, torch.float32: 2e-4}


def pairs_of(rng: Random) -> Pairs:
    """Groups of one prompt each; some responses are of one token, prompts of the second recur."""
    prompts = [tuple(rng.randrange(60) for _ in range(rng.randint(1, 30))) for _ in range(3)]
    return [
        (prompt, tuple(rng.randrange(60) for _ in range(rng.choice([1, 2, 5, 40]))))
        for prompt in [*prompts, prompts[1]]
        for _ in range(rng.randint(1, 4))
    ]


def model_of(dtype: torch.dtype) -> FalconH1ForCausalLM:
    config = FalconH1Config(
        vocab_size=60, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, mamba_d_ssm=32, mamba_n_heads=4,
        mamba_n_groups=2, mamba_d_state=8, mamba_chunk_size=16, tie_word_embeddings=True,
    )  # fmt: skip
    model = FalconH1ForCausalLM(config).to(dtype)
    model.reset_parameters(seed=4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8.0)
    return model


def error(got: Tensor, want: Tensor) -> float:
    return float((got - want).detach().norm() / want.detach().norm())


def gradients(model: FalconH1ForCausalLM, hidden: Tensor, factors: Tensor) -> list[Tensor]:
    loss = (model.logits(hidden).log_softmax(-1) * factors).sum()
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_shared_prompts_change_neither_hidden_states_nor_gradients(
    dtype: torch.dtype, seed: int
) -> None:
    pairs, model = pairs_of(Random(seed)), model_of(dtype)
    if seed == 0:  # responses of one token alone: none of them has a row of its own
        pairs = [(prompt, response[:1]) for prompt, response in pairs]
    packed = pack(pairs)
    shared = response_hidden(model, packed)
    alone = []
    for prompt, response in pairs:
        ids = torch.tensor([*prompt, *response])
        bounds = torch.tensor([0, len(ids)], dtype=torch.int32)
        alone.append(model.hidden_packed(ids, bounds)[len(prompt) - 1 : -1])
    plain = torch.cat(alone)
    assert packed.targets.tolist() == [token for _, response in pairs for token in response]
    assert shared.shape == plain.shape
    bound = BOUNDS[dtype]
    assert error(shared, plain) < bound
    factors = torch.randn(len(plain), 60, generator=torch.Generator().manual_seed(seed))
    for got, want in zip(
        gradients(model, shared, factors), gradients(model, plain, factors), strict=True
    ):
        assert error(got, want) < bound


@pytest.mark.parametrize("seed", range(20))
def test_micro_batches_hold_what_they_may(seed: int) -> None:
    rng = Random(seed)
    pairs, limit = pairs_of(rng), rng.choice([1, 40, 90, 10**6])
    runs = micro_batches(pairs, limit)
    assert [i for run in runs for i in run] == list(range(len(pairs)))
    for run in runs:
        packed = pack([pairs[i] for i in run])
        size = packed.input_ids.numel()
        assert size % TOKEN_MULTIPLE == 0
        assert size == packed.batch.cu_seqlens[-1] == packed.batch.positions.numel()
        used = round(packed.fill * size)
        prompts = {pairs[i][0] for i in run}
        assert used == sum(map(len, prompts)) + sum(len(pairs[i][1]) - 1 for i in run)
        assert used <= limit or len(run) == 1
