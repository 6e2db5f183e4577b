"""The memory of generation: KV blocks and SSM slots a layer, and the flat batch that uses them.

Legend: T packed tokens, S sequences, K kv heads, P head width, C conv channels, W conv width,
H ssm heads, N state width, M blocks a sequence.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from falcon_h1r import ops
from falcon_h1r.model.config import FalconH1Config


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Sequences laid end to end, and, when a cache is used, where each finds its past."""

    cu_seqlens: Tensor
    """int32 [S+1]: where each sequence's tokens start."""
    positions: Tensor
    """int64 [T]: absolute position of each token in its sequence."""
    seq_lens: Tensor | None = None
    """int32 [S]: tokens of context after this batch."""
    slot_mapping: Tensor | None = None
    """int64 [T]: flat KV slot (block * block_size + offset) of each token."""
    block_tables: Tensor | None = None
    """int32 [S, M]: KV blocks of each sequence, padded with 0."""
    state_slots: Tensor | None = None
    """int64 [S]: SSM slot of each sequence."""
    has_initial_state: Tensor | None = None
    """bool [S]: False for a sequence that starts here (its slot's content is another's)."""

    @classmethod
    def from_cu_seqlens(cls, cu_seqlens: Tensor) -> "PackedBatch":
        """Build the batch of whole sequences without a cache."""
        lens = cu_seqlens.diff().long()
        total = int(cu_seqlens[-1])
        starts = torch.repeat_interleave(cu_seqlens[:-1].long(), lens)
        positions = torch.arange(total, device=cu_seqlens.device) - starts
        return cls(cu_seqlens=cu_seqlens, positions=positions)


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's memory."""

    k_cache: Tensor
    """model dtype [num_blocks, block_size, K, P]."""
    v_cache: Tensor
    """model dtype [num_blocks, block_size, K, P]."""
    conv_state: Tensor
    """model dtype [num_slots, C, W-1]."""
    ssm_state: Tensor
    """float32 [num_slots, H, P, N]: a 16-bit state rounded every step is measurably wrong."""


class HybridCache:
    """Every layer's KV blocks and SSM slots."""

    def __init__(
        self,
        config: FalconH1Config,
        *,
        num_blocks: int,
        block_size: int,
        num_slots: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        kv = (num_blocks, block_size, config.num_key_value_heads, config.attention_head_dim)
        conv = (num_slots, config.conv_dim, config.mamba_d_conv - 1)
        ssm = (num_slots, config.mamba_n_heads, config.ssm_head_dim, config.mamba_d_state)
        state_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        self.layers = [
            LayerCache(
                torch.zeros(kv, dtype=dtype, device=device),
                torch.zeros(kv, dtype=dtype, device=device),
                torch.zeros(conv, dtype=dtype, device=device),
                torch.zeros(ssm, dtype=state_dtype, device=device),
            )
            for _ in range(config.num_hidden_layers)
        ]
        self.addresses = [
            (c.k_cache.data_ptr(), c.v_cache.data_ptr(), c.conv_state.data_ptr(),
             c.ssm_state.data_ptr())
            for c in self.layers
        ]  # fmt: skip
        """Of each layer's tensors, which never move."""

    def copy_blocks(self, copies: Tensor) -> None:
        """Copy KV blocks (src, dst) [n, 2] in every layer, all reads before all writes."""
        for layer in self.layers:
            ops.copy_rows(layer.k_cache, copies)
            ops.copy_rows(layer.v_cache, copies)

    def copy_slots(self, copies: Tensor) -> None:
        """Copy SSM slots (src, dst) [m, 2] in every layer, all reads before all writes."""
        for layer in self.layers:
            ops.copy_rows(layer.conv_state, copies)
            ops.copy_rows(layer.ssm_state, copies)
