"""Runs one plan through the model. Sees tensors, never a policy.

Legend: R rows to sample, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from falcon_h1r._rust import Plan
from falcon_h1r.engine.batch import distinct_rows, to_batch
from falcon_h1r.model.cache import HybridCache
from falcon_h1r.model.model import FalconH1ForCausalLM


class Runner:
    """A model, its cache, and the device they live on."""

    def __init__(self, model: FalconH1ForCausalLM, cache: HybridCache) -> None:
        self.model = model
        self.cache = cache
        self.device = model.lm_head.weight.device

    @torch.inference_mode()
    def run(self, plan: Plan) -> Tensor:
        """Do the plan's copies, run its tokens once, and return the logits [R, V] to sample."""
        with _kernels_own_the_cores():
            return self._run(plan)

    def _run(self, plan: Plan) -> Tensor:
        if plan.block_copies.shape[0]:
            self.cache.copy_blocks(torch.from_numpy(plan.block_copies).to(self.device))
        if plan.slot_copies.shape[0]:
            self.cache.copy_slots(torch.from_numpy(plan.slot_copies).to(self.device))
        input_ids, batch = to_batch(plan, self.device)
        rows, inverse = distinct_rows(plan, self.device)
        logits = self.model.forward_cached(input_ids, batch, self.cache, rows)
        return logits if inverse is None else logits[inverse]


@contextmanager
def _kernels_own_the_cores() -> Iterator[None]:
    """Keep torch to one thread: its OpenMP workers spin after each call, on the kernels' cores."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
