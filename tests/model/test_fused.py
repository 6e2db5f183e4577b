"""The layers in one call against the same layers operation by operation, to the bit."""

import copy
from typing import Any

import pytest
import torch

from falcon_h1r import FalconH1Config, FalconH1ForCausalLM
from falcon_h1r.errors import RequestError
from falcon_h1r.model import fused
from falcon_h1r.model.cache import HybridCache, PackedBatch
from falcon_h1r.train.lora import LoraRecipe, add_adapters

BLOCK, BLOCKS, SLOTS = 4, 40, 5


def model_of(dtype: torch.dtype, **changes: Any) -> FalconH1ForCausalLM:
    sizes: dict[str, Any] = {
        "vocab_size": 50,
        "hidden_size": 40,
        "intermediate_size": 72,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "mamba_d_ssm": 48,
        "mamba_n_heads": 6,
        "mamba_n_groups": 2,
        "mamba_d_state": 16,
        "attention_in_multiplier": 1.25,
        "key_multiplier": 0.7,
        "ssm_in_multiplier": 0.8,
        "ssm_out_multiplier": 1.3,
        "ssm_multipliers": (0.5, 0.75, 1.5, 1.25, 0.9),
        "mlp_multipliers": (1.1, 0.6),
        "embedding_multiplier": 3.0,
        "time_step_limit": (0.002, 0.09),
    }
    model = FalconH1ForCausalLM(FalconH1Config(**{**sizes, **changes}))
    model.reset_parameters(seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
    return model.to(dtype).eval()


def cache_of(model: FalconH1ForCausalLM) -> HybridCache:
    dtype = model.lm_head.weight.dtype
    return HybridCache(
        model.config, num_blocks=BLOCKS, block_size=BLOCK, num_slots=SLOTS, dtype=dtype
    )


def batch_of(lens: list[int], past: list[int], slots: list[int]) -> PackedBatch:
    """Sequence s owns blocks 8 s to 8 s + 7 and has `past[s]` tokens behind it."""
    tables = torch.arange(8 * len(lens), dtype=torch.int32).view(len(lens), 8)
    positions = torch.cat([torch.arange(p, p + n) for n, p in zip(lens, past, strict=True)])
    owner = torch.repeat_interleave(torch.arange(len(lens)), torch.tensor(lens))
    return PackedBatch(
        cu_seqlens=torch.tensor([0, *lens]).cumsum(0).int(),
        positions=positions,
        seq_lens=torch.tensor([n + p for n, p in zip(lens, past, strict=True)]).int(),
        slot_mapping=(owner * 8 * BLOCK + positions),
        block_tables=tables,
        state_slots=torch.tensor(slots),
        has_initial_state=torch.tensor([p > 0 for p in past]),
    )


STEPS = [([7, 1, 20], [0, 0, 0]), ([1, 1, 1], [7, 1, 20]), ([5, 3, 1], [8, 2, 21])]


def run(model: FalconH1ForCausalLM, cache: HybridCache) -> list[torch.Tensor]:
    """Three steps of three sequences: prefill, decode, and a mixture."""
    out = []
    generator = torch.Generator().manual_seed(0)
    for lens, past in STEPS:
        ids = torch.randint(0, 50, (sum(lens),), generator=generator)
        batch = batch_of(lens, past, [2, 0, 4])
        with torch.inference_mode():
            out.append(model.forward_cached(ids, batch, cache, torch.arange(sum(lens))))
    return out


def by_operation(model: FalconH1ForCausalLM, monkeypatch: pytest.MonkeyPatch) -> Any:
    cache = cache_of(model)
    with monkeypatch.context() as patch:
        patch.setattr(fused, "run", lambda *_: False)
        return run(model, cache), cache


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mamba_rms_norm": True, "mamba_norm_before_gate": True},
        {"mamba_rms_norm": True, "mamba_norm_before_gate": False},
        {"mamba_conv_bias": False, "mamba_d_conv": 3, "mamba_n_groups": 1},
    ],
    ids=str,
)
def test_same_bits_as_operation_by_operation(
    dtype: torch.dtype, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(dtype, **changes)
    expected, expected_cache = by_operation(model, monkeypatch)
    cache = cache_of(model)
    served: list[bool] = []
    original = fused.run
    monkeypatch.setattr(fused, "run", lambda *given: served.append(original(*given)) or served[-1])
    for given, exact in zip(run(model, cache), expected, strict=True):
        assert torch.equal(given, exact)
    assert served == [True] * len(STEPS)
    for mine, theirs in zip(cache.layers, expected_cache.layers, strict=True):
        for name in ("k_cache", "v_cache", "conv_state", "ssm_state"):
            assert torch.equal(getattr(mine, name), getattr(theirs, name)), name


@pytest.mark.parametrize("changes", [{"attention_bias": True}, {"mamba_proj_bias": True}], ids=str)
def test_biases_go_operation_by_operation(changes: dict[str, Any]) -> None:
    model = model_of(torch.float32, **changes)
    with torch.inference_mode():
        batch = batch_of([2], [0], [1])
        assert not fused.run(model.model, torch.randn(2, 40), batch, cache_of(model))


def test_adapters_are_not_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that are put on after the first step."""
    model = model_of(torch.float32)
    before = run(model, cache_of(model))
    add_adapters(model, LoraRecipe(rank=2), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    for given, exact, old in zip(
        run(model, cache_of(model)), by_operation(model, monkeypatch)[0], before, strict=True
    ):
        assert torch.equal(given, exact)
        assert not torch.allclose(given, old)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_new_weights_are_seen(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place, behind autograd's back, by a new tensor, and by another dtype and back."""
    model = model_of(dtype)
    before = run(model, cache_of(model))

    def check() -> list[torch.Tensor]:
        given = run(model, cache_of(model))
        expected = by_operation(model, monkeypatch)[0]
        fresh = FalconH1ForCausalLM(model.config).to(model.lm_head.weight.dtype)
        fresh.load_state_dict(model.state_dict())
        for a, b, c in zip(given, expected, run(fresh, cache_of(fresh)), strict=True):
            assert torch.equal(a, b)
            assert torch.equal(a, c)
        return given

    mixer = model.model.layers[1].mamba
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    after = check()
    assert not torch.equal(after[-1], before[-1])
    mixer.A_log.data.mul_(0.5)
    again = check()
    assert not torch.equal(again[-1], after[-1])
    state = {k: v.clone() + 0.01 for k, v in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    check()
    model.to(torch.float64)
    double = run(model, cache_of(model))
    assert double[0].dtype is torch.float64
    model.to(torch.float32)
    check()
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied.model.layers[0].mamba.D.add_(1.0)
    check()
    assert not torch.equal(run(copied, cache_of(copied))[-1], run(model, cache_of(model))[-1])


def test_what_does_not_fit_is_refused() -> None:
    model = model_of(torch.float32)
    other = model_of(torch.float32, num_hidden_layers=2)
    ids = torch.tensor([1, 2])
    good = batch_of([2], [0], [1])
    rows = torch.arange(2)
    with torch.inference_mode():
        with pytest.raises(RequestError, match="caches of 2 layers"):
            model.forward_cached(ids, good, cache_of(other), rows)
        wide = model_of(torch.float32, mamba_d_state=32)
        with pytest.raises(RequestError, match=r"a cache is torch.float32 \[5, 176, 3\]"):
            model.forward_cached(ids, good, cache_of(wide), rows)
        with pytest.raises(RequestError, match="positions is"):
            model.forward_cached(ids[:1], good, cache_of(model), rows)
        with pytest.raises(RequestError, match="state_slots is 7"):
            model.forward_cached(ids, batch_of([2], [0], [7]), cache_of(model), rows)
