"""The memory of generation: KV blocks and SSM slots a layer, and the flat batch that uses them.

Legend: T packed tokens, S sequences, K kv heads, P head width, C conv channels, W conv width,
H ssm heads, N state width, M blocks a sequence, R responses, E keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from falcon_h1r import ops
from falcon_h1r.model.config import FalconH1Config

_T = TypeVar("_T")


def on_device(parts: _T, device: torch.device) -> _T:
    """A dataclass with every tensor in it, also inside its dataclasses, on `device`."""

    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device)
        return on_device(value, device) if is_dataclass(value) else value

    assert is_dataclass(parts)
    assert not isinstance(parts, type)
    return replace(parts, **{f.name: moved(getattr(parts, f.name)) for f in fields(parts)})


@dataclass(frozen=True, slots=True)
class SharedPrompts:
    """Which of a batch's sequences go on from which: the first P are prompts, the rest R go on.

    A prompt that many responses share is computed once, and gets the gradients of them all.
    """

    num_tokens: int
    """Rows of the prompts, which come first."""
    cu_prompts: Tensor
    """int32 [P+1]: where each prompt starts."""
    cu_responses: Tensor
    """int32 [R+1]: where each response starts, counted from the first response's row."""
    prompt_of: Tensor
    """int64 [R]: the prompt a response goes on from."""
    key_rows: Tensor
    """int64 [E]: the row of each key: a prompt's own; of a response its prompt's, then its own."""
    cu_keys: Tensor
    """int32 [P+R+1]: where the keys of each sequence start."""


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Sequences laid end to end, and, when a cache is used, where each finds its past."""

    cu_seqlens: Tensor
    """int32 [S+1]: where each sequence's tokens start."""
    positions: Tensor
    """int64 [T]: absolute position of each token in its sequence."""
    shared: SharedPrompts | None = None
    """Without a cache: sequences that go on from others of this batch."""
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

    @classmethod
    def from_prompts(
        cls, prompts: Sequence[int], responses: Sequence[int], prompt_of: Sequence[int]
    ) -> "PackedBatch":
        """Build the batch of P prompts, then R responses that go on from them, by their lengths.

        No prompt may be empty; `prompt_of` [R] names each response's.
        """
        starts = np.cumsum([0, *prompts, *responses])
        count, split = len(prompts), int(sum(prompts))
        positions, key_rows = [np.arange(n) for n in prompts], [np.arange(split)]
        for i, (prompt, length) in enumerate(zip(prompt_of, responses, strict=True)):
            first = starts[count + i]
            positions.append(prompts[prompt] + np.arange(length))
            key_rows.append(np.arange(starts[prompt], starts[prompt + 1]))
            key_rows.append(np.arange(first, first + length))
        keys = [prompts[p] + n for p, n in zip(prompt_of, responses, strict=True)]
        bounds = torch.from_numpy(starts).int()
        return cls(
            cu_seqlens=bounds,
            positions=torch.from_numpy(np.concatenate(positions)),
            shared=SharedPrompts(
                num_tokens=split,
                cu_prompts=bounds[: count + 1],
                cu_responses=bounds[count:] - split,
                prompt_of=torch.tensor(prompt_of, dtype=torch.int64, device="cpu"),
                key_rows=torch.from_numpy(np.concatenate(key_rows)),
                cu_keys=torch.from_numpy(np.cumsum([0, *prompts, *keys])).int(),
            ),
        )


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
