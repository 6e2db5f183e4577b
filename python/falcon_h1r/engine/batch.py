"""From the scheduler's arrays to the model's tensors.

Legend: T packed tokens, S sequences, R sampled rows, U distinct logits rows.
"""

import numpy as np
import torch
from torch import Tensor

from falcon_h1r._rust import Plan
from falcon_h1r.model.cache import PackedBatch


def to_batch(plan: Plan, device: torch.device) -> tuple[Tensor, PackedBatch]:
    """Return (input_ids int64 [T], PackedBatch) of a plan on `device`."""

    def put(array: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    batch = PackedBatch(
        cu_seqlens=put(plan.cu_seqlens),
        positions=put(plan.positions),
        seq_lens=put(plan.seq_lens),
        slot_mapping=put(plan.slot_mapping),
        block_tables=put(plan.block_tables),
        state_slots=put(plan.state_slots),
        has_initial_state=put(plan.has_initial_state),
    )
    return put(plan.token_ids.astype(np.int64)), batch


def distinct_rows(plan: Plan, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return (rows [U], inverse [R] or None) so that logits[rows][inverse] has a row a sample.

    When a prompt ends, all its traces draw from one row: it is computed once.
    """
    rows, inverse = np.unique(plan.sample_rows, return_inverse=True)
    repeated = rows.size != plan.sample_rows.size
    return (
        torch.from_numpy(rows).to(device),
        torch.from_numpy(inverse).to(device) if repeated else None,
    )
