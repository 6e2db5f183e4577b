"""Forward and backward of a small model on packed documents: training kernels beside torch.

One model of about 3 million parameters, 4,096 tokens a step in documents of 30 to 250. Every
variant runs in turns in one process on one thread; what is compared is processor time, which
other work on the machine disturbs less than it does the clock. `products in bfloat16` lets oneDNN
multiply float32 matrices with bfloat16 operands (`torch.backends.mkldnn.matmul.fp32_precision`);
sums, states and everything stored stay float32.

Legend: T packed tokens.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from falcon_h1r.model.config import FalconH1Config
from falcon_h1r.model.model import FalconH1ForCausalLM
from falcon_h1r.ops import cpu_train

TOKENS = 4096
ROUNDS = 5
VARIANTS = {
    "torch, float32": (False, "ieee", False),
    "torch, autocast to bfloat16": (False, "ieee", True),
    "kernels, float32": (True, "ieee", False),
    "kernels, products in bfloat16": (True, "bf16", False),
}


def small_model() -> FalconH1ForCausalLM:
    config = FalconH1Config(
        vocab_size=3072, hidden_size=192, intermediate_size=448, num_hidden_layers=5,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, mamba_d_ssm=256,
        mamba_n_heads=8, mamba_d_head=32, mamba_d_state=32, tie_word_embeddings=True,
    )  # fmt: skip
    model = FalconH1ForCausalLM(config)
    model.reset_parameters(seed=0)
    return model


def documents() -> tuple[Tensor, Tensor]:
    """Return input_ids [T] and cu_seqlens of documents of 30 to 250 tokens."""
    generator = torch.Generator().manual_seed(0)
    bounds = [0]
    while bounds[-1] < TOKENS:
        length = int(torch.randint(30, 251, (1,), generator=generator))
        bounds.append(min(TOKENS, bounds[-1] + length))
    ids = torch.randint(0, 3072, (TOKENS,), generator=generator)
    return ids, torch.tensor(bounds, dtype=torch.int32)


@contextlib.contextmanager
def variant(kernels: bool, precision: str, autocast: bool) -> Iterator[None]:
    """Run the body with or without the kernels, in one precision of products."""
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    matmul.fp32_precision = precision
    with pytest.MonkeyPatch.context() as patch:
        if not kernels:
            patch.setattr(cpu_train, "is_served", lambda *tensors: False)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            yield
    matmul.fp32_precision = before


def test_step() -> None:
    model = small_model()
    ids, cu_seqlens = documents()
    targets = ids.roll(-1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    losses: dict[str, float] = {}
    try:
        for _ in range(ROUNDS):
            for name, options in VARIANTS.items():
                model.zero_grad()
                start = time.process_time()
                with variant(*options):
                    hidden = model.hidden_packed(ids, cu_seqlens)
                    loss = model.token_losses(hidden, targets).mean()
                    loss.backward()  # type: ignore[no-untyped-call]
                seconds[name].append(time.process_time() - start)
                losses[name] = loss.item()
    finally:
        torch.set_num_threads(threads)
    best = {name: min(values) for name, values in seconds.items()}
    for name, value in best.items():
        ratio = best["torch, float32"] / value
        print(f"{name:32s} {TOKENS / value:7.0f} tokens/s of processor time  x{ratio:.2f}")
    assert abs(losses["kernels, float32"] - losses["torch, float32"]) < 1e-5
    assert best["kernels, float32"] < best["torch, float32"]
