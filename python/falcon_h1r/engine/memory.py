"""How much memory generation may take, and how many KV blocks and SSM slots that is."""

from dataclasses import dataclass
from pathlib import Path

import torch

from falcon_h1r.errors import OutOfMemoryPlanError
from falcon_h1r.model.config import FalconH1Config

_CPU_SHARE = 0.5
_GPU_SHARE = 0.9
_OWNER_SLOTS = 4
"""Slots beyond one a running trace, for prompts whose traces have not all started."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What will be allocated."""

    num_blocks: int
    num_slots: int
    block_bytes: int
    slot_bytes: int
    weight_bytes: int

    @property
    def total_bytes(self) -> int:
        """Weights, states and blocks together."""
        cache = self.num_blocks * self.block_bytes + self.num_slots * self.slot_bytes
        return self.weight_bytes + cache


def plan_memory(
    config: FalconH1Config,
    *,
    dtype: torch.dtype,
    weight_bytes: int,
    memory_bytes: int,
    max_num_seqs: int,
    max_model_len: int,
    block_size: int,
) -> MemoryPlan:
    """Share memory_bytes between weights, a slot a running trace, and KV blocks for the rest.

    Raises OutOfMemoryPlanError, before anything is allocated, when one trace of full context does
    not fit.
    """
    itemsize = dtype.itemsize
    state_itemsize = 8 if dtype == torch.float64 else 4
    kv_width = config.num_key_value_heads * config.attention_head_dim
    block_bytes = config.num_hidden_layers * 2 * block_size * kv_width * itemsize
    conv_bytes = config.conv_dim * (config.mamba_d_conv - 1) * itemsize
    ssm_bytes = config.d_ssm * config.mamba_d_state * state_itemsize
    slot_bytes = config.num_hidden_layers * (conv_bytes + ssm_bytes)
    blocks_per_trace = -(-max_model_len // block_size)
    num_slots = max_num_seqs + _OWNER_SLOTS
    room = memory_bytes - weight_bytes - num_slots * slot_bytes
    num_blocks = min(room // block_bytes, (max_num_seqs + _OWNER_SLOTS) * blocks_per_trace)
    if num_blocks < blocks_per_trace:
        need = weight_bytes + num_slots * slot_bytes + blocks_per_trace * block_bytes
        raise OutOfMemoryPlanError(
            f"memory_bytes is {memory_bytes}; weights ({weight_bytes}), {num_slots} states and one "
            f"context of {max_model_len} tokens need {need}: raise it or lower max_num_seqs or "
            "max_model_len"
        )
    return MemoryPlan(int(num_blocks), num_slots, block_bytes, slot_bytes, weight_bytes)


def default_memory_bytes(device: torch.device, weight_bytes: int) -> int:
    """Return what generation takes by default: a share of the free memory.

    On a GPU the weights, which lie there already, come on top; on a CPU they may be a mapped file,
    whose pages count as free.
    """
    if device.type == "cuda":
        return weight_bytes + int(torch.cuda.mem_get_info(device)[0] * _GPU_SHARE)
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(int(line.split()[1]) * 1024 * _CPU_SHARE)
    raise OutOfMemoryPlanError("free memory is unknown on this system; give memory_bytes")
