"""Grouped-query attention with RoPE, over packed sequences, with or without KV blocks.

Legend: T packed tokens, D model width, H heads, K kv heads, P head width.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from falcon_h1r import ops
from falcon_h1r.model.cache import LayerCache, PackedBatch
from falcon_h1r.model.config import FalconH1Config
from falcon_h1r.model.mlp import Linear


class FalconH1Attention(nn.Module):
    """Attention branch: attention_in, key and attention_out multipliers are epilogues."""

    def __init__(self, config: FalconH1Config) -> None:
        super().__init__()
        self.head_dim = config.attention_head_dim
        self.theta = config.rope_theta
        self.scale = self.head_dim**-0.5
        width, bias = config.hidden_size, config.attention_bias
        q_width = config.num_attention_heads * self.head_dim
        kv_width = config.num_key_value_heads * self.head_dim
        before = config.attention_in_multiplier
        self.q_proj = Linear(width, q_width, bias, before)
        self.k_proj = Linear(width, kv_width, bias, before, after=config.key_multiplier)
        self.v_proj = Linear(width, kv_width, bias, before)
        self.o_proj = Linear(q_width, width, bias, after=config.attention_out_multiplier)

    def forward(self, x: Tensor, batch: PackedBatch, cache: LayerCache | None) -> Tensor:
        """Map x [T, D] to [T, D]; with a cache, write this batch's keys and values first."""
        q = self.q_proj(x).view(x.shape[0], -1, self.head_dim)  # [T, H, P]
        k = self.k_proj(x).view(x.shape[0], -1, self.head_dim)  # [T, K, P]
        v = self.v_proj(x).view(x.shape[0], -1, self.head_dim)
        q, k = ops.rope(q, k, batch.positions, self.theta)
        if cache is None:
            cu_keys = None
            if batch.shared is not None:
                k, v = (_keys(each, batch.shared.key_rows) for each in (k, v))
                cu_keys = batch.shared.cu_keys
            y = ops.varlen_attention(q, k, v, batch.cu_seqlens, self.scale, cu_keys)
        else:
            assert batch.slot_mapping is not None
            assert batch.block_tables is not None
            assert batch.seq_lens is not None
            ops.write_kv(k, v, cache.k_cache, cache.v_cache, batch.slot_mapping)
            y = ops.paged_attention(
                q, cache.k_cache, cache.v_cache, batch.block_tables, batch.cu_seqlens,
                batch.seq_lens, self.scale,
            )  # fmt: skip
        out: Tensor = self.o_proj(y.flatten(1))
        return out


def _keys(x: Tensor, rows: Tensor) -> Tensor:
    """Return x[rows] of x [T, K, P]; an embedding's gradient is the quick one on the CPU."""
    return F.embedding(rows, x.flatten(1)).view(rows.shape[0], *x.shape[1:])
