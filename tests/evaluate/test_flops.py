"""The formula beside a count by hand, and beside the sizes of the model's own layers."""

import torch

from falcon_h1r import FalconH1Config, FalconH1ForCausalLM
from falcon_h1r.evaluate.flops import attention_flops, query_flops, scan_flops, weight_flops

CONFIG = FalconH1Config(
    vocab_size=50,
    hidden_size=8,
    intermediate_size=12,
    num_hidden_layers=3,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=4,
    mamba_d_ssm=16,
    mamba_n_heads=4,
    mamba_n_groups=1,
    mamba_d_state=5,
    mamba_d_conv=4,
    mamba_chunk_size=8,
)


def test_by_hand() -> None:
    # q 8x8, k and v 8x4 each, o 8x8; z 16, x 16, B 5, C 5, dt 4 of 8, out 16x8; three of 8x12.
    assert weight_flops(CONFIG) == 3 * 2 * ((64 + 32 + 32 + 64) + (8 * 46 + 128) + 288)
    # 26 channels of 4 taps; 16 x 5 states: decay, two for dt x B, two for C.
    assert scan_flops(CONFIG) == 3 * (2 * 26 * 4 + 5 * 80)
    # 2 heads of 4: 8 multiply-adds for a score, 8 for its value.
    assert attention_flops(CONFIG, 10) == 3 * 2 * (8 + 8) * 10


def test_a_query_is_the_sum_of_its_steps() -> None:
    fixed = weight_flops(CONFIG) + scan_flops(CONFIG)
    head = 2 * 8 * 50
    expected = sum(fixed + attention_flops(CONFIG, t + 1) for t in range(7)) + head
    for length in (1, 4, 0):
        for step in range(max(0, length - 1)):
            expected += fixed + attention_flops(CONFIG, 7 + step + 1) + head
    assert query_flops(CONFIG, 7, [1, 4, 0]) == expected


def test_products_are_those_of_the_models_layers() -> None:
    model = FalconH1ForCausalLM(CONFIG)
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    sizes = [m.weight.numel() for m in linear if m.out_features != CONFIG.vocab_size]
    assert len(sizes) == 3 * 9
    assert weight_flops(CONFIG) == 2 * sum(sizes)
