"""Logits and gradients equal transformers' FalconH1ForCausalLM, over random configurations.

In float32 as it is; in float64 with transformers' casts to float32 lifted here, so that rounding
cannot hide a difference of meaning.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from falcon_h1r import FalconH1ForCausalLM

transformers = pytest.importorskip("transformers")
SEEDS = range(8)


def random_config(seed: int) -> dict[str, Any]:
    """Return the fields of a small config.json in transformers 5's form."""
    rng = random.Random(seed)

    def scale() -> float:
        return rng.randint(20, 110) / 64  # exact in float32, so that float64 can be compared

    kv_heads, groups = rng.choice([1, 2]), rng.choice([1, 2, 3])
    heads, ssm_heads = kv_heads * rng.choice([1, 2, 3]), groups * rng.choice([1, 2])
    return {
        "vocab_size": rng.randint(50, 200),
        "hidden_size": rng.choice([24, 40, 48]),
        "intermediate_size": rng.randint(20, 90),
        "num_hidden_layers": rng.choice([1, 2]),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": rng.choice([8, 16]),
        "rms_norm_eps": rng.choice([1e-5, 1e-4]),
        "max_position_embeddings": 512,
        "tie_word_embeddings": rng.random() < 0.5,
        "attention_bias": rng.random() < 0.5,
        "mlp_bias": rng.random() < 0.5,
        "projectors_bias": rng.random() < 0.5,
        "mamba_d_ssm": ssm_heads * 16,
        "mamba_n_heads": ssm_heads,
        "mamba_d_head": 16,
        "mamba_n_groups": groups,
        "mamba_d_state": rng.choice([8, 16]),
        "mamba_d_conv": rng.choice([2, 3, 4]),
        "mamba_chunk_size": rng.choice([8, 16]),
        "mamba_conv_bias": rng.random() < 0.5,
        "mamba_proj_bias": rng.random() < 0.5,
        "mamba_norm_before_gate": rng.random() < 0.5,
        "mamba_rms_norm": rng.random() < 0.5,
        "time_step_limit": [0.0078125, 0.75],
        "rope_parameters": {"rope_theta": rng.choice([1e4, 1e6]), "rope_type": "default"},
        "embedding_multiplier": scale(),
        "lm_head_multiplier": scale(),
        "key_multiplier": scale(),
        "attention_in_multiplier": scale(),
        "attention_out_multiplier": scale(),
        "ssm_in_multiplier": scale(),
        "ssm_out_multiplier": scale(),
        "ssm_multipliers": [scale() for _ in range(5)],
        "mlp_multipliers": [scale(), scale()],
    }


def hugging_face(seed: int, dtype: torch.dtype = torch.float32) -> Any:
    config = transformers.FalconH1Config(**random_config(seed))
    torch.manual_seed(seed)
    model = transformers.FalconH1ForCausalLM(config).eval().to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def ours(model: Any, folder: Path, dtype: torch.dtype | None = None) -> FalconH1ForCausalLM:
    model.save_pretrained(folder)
    return FalconH1ForCausalLM.from_pretrained(folder, dtype=dtype)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.detach(), b.detach()
    return float((a - b).norm() / b.norm())


@contextmanager
def float64_throughout(model: Any) -> Iterator[None]:
    """Lift transformers' casts to float32 and its float32 constants while a float64 model runs."""
    plain_to, plain_float = torch.Tensor.to, torch.Tensor.float

    def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.dtype == torch.float64:
            args = tuple(torch.float64 if a is torch.float32 else a for a in args)
            kwargs = {k: torch.float64 if v is torch.float32 else v for k, v in kwargs.items()}
        return plain_to(self, *args, **kwargs)

    def to_float(self: torch.Tensor) -> torch.Tensor:
        return plain_to(self, torch.float64)

    config = model.config
    width = config.head_dim
    theta = config.rope_parameters["rope_theta"]
    exponent = torch.arange(0, width, 2, dtype=torch.float64) / width
    model.model.rotary_emb.inv_freq = 1.0 / theta**exponent
    torch.Tensor.to, torch.Tensor.float = to, to_float  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.to, torch.Tensor.float = plain_to, plain_float  # type: ignore[method-assign]


@pytest.mark.parametrize("seed", SEEDS)
def test_float32_logits(seed: int, tmp_path: Path) -> None:
    theirs = hugging_face(seed)
    model = ours(theirs, tmp_path)
    input_ids = torch.randint(1, model.config.vocab_size, (2, 37))
    with torch.no_grad():
        expected, got = theirs(input_ids).logits, model(input_ids)
    assert relative(got, expected) < 1e-5


@pytest.mark.parametrize("seed", SEEDS)
def test_float64_logits_and_gradients(seed: int, tmp_path: Path) -> None:
    theirs = hugging_face(seed, torch.float64)
    model = ours(theirs, tmp_path)
    assert model.lm_head.weight.dtype == torch.float64
    input_ids = torch.randint(1, model.config.vocab_size, (2, 21))
    with float64_throughout(theirs):
        expected = theirs(input_ids).logits
        expected.logsumexp(-1).square().mean().backward()
    got = model(input_ids)
    got.logsumexp(-1).square().mean().backward()
    assert relative(got, expected) < 1e-11
    for name, parameter in theirs.named_parameters():
        gradient = model.get_parameter(name).grad
        assert gradient is not None, name
        scale = max(float(parameter.grad.norm()), 1e-6)
        assert float((gradient - parameter.grad).norm()) / scale < 1e-9, name


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_round_trip_through_our_files(seed: int, tmp_path: Path) -> None:
    theirs = hugging_face(seed)
    model = ours(theirs, tmp_path / "a")
    model.save_pretrained(tmp_path / "b")
    back = transformers.FalconH1ForCausalLM.from_pretrained(tmp_path / "b").eval()
    input_ids = torch.randint(1, model.config.vocab_size, (1, 19))
    with torch.no_grad():
        assert torch.equal(back(input_ids).logits, theirs(input_ids).logits)


def test_packed_equals_batch_and_does_not_leak(tmp_path: Path) -> None:
    model = ours(hugging_face(3, torch.float64), tmp_path)
    vocab = model.config.vocab_size
    sequences = [torch.randint(1, vocab, (n,)) for n in (1, 2, 40, 3, 17)]
    cu_seqlens = torch.tensor([0, 1, 3, 43, 46, 63], dtype=torch.int32)
    with torch.no_grad():
        packed = model.forward_packed(torch.cat(sequences), cu_seqlens)
        alone = torch.cat([model(s[None])[0] for s in sequences])
    assert relative(packed, alone) < 1e-12


def test_bfloat16_stays_close(tmp_path: Path) -> None:
    theirs = hugging_face(1)
    exact = ours(theirs, tmp_path)
    half = FalconH1ForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    input_ids = torch.randint(1, exact.config.vocab_size, (2, 30))
    with torch.no_grad():
        reference = exact(input_ids)
        error = relative(half(input_ids).float(), reference)
        their_error = relative(theirs.to(torch.bfloat16)(input_ids).logits.float(), reference)
    assert error < 2 * their_error
