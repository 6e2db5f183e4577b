"""schedule + commit under more than one kind of load, without a model.

The plain 64 traces are in `bench_overhead.py`; here they carry a DeepConf policy, are 512, or do
not fit into memory together.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from falcon_h1r._rust import ConfidenceTracker, DeepConfPolicy, Scheduler

Record = Callable[[dict[str, Any]], None]
PROMPT = np.arange(512, dtype=np.uint32)
LOADS = {
    "64 traces, DeepConf with window 2048": {"num_traces": 64, "num_blocks": 20_000},
    "512 traces, DeepConf with window 2048": {"num_traces": 512, "num_blocks": 120_000},
    "64 traces, memory for a third of them": {"num_traces": 64, "num_blocks": 2_500},
}


@pytest.mark.parametrize("name", LOADS)
def bench_load(name: str, record: Record) -> None:
    """Median and 99th percentile of a step; the token draws are not timed."""
    num_traces, num_blocks = LOADS[name]["num_traces"], LOADS[name]["num_blocks"]
    scheduler = Scheduler(
        num_blocks=num_blocks,
        block_size=16,
        num_slots=num_traces + 1,
        max_num_seqs=num_traces,
        max_num_batched_tokens=2048,
        chunk_size=128,
        max_model_len=4096,
    )
    policy = DeepConfPolicy(
        mode="online", warmup=num_traces, keep=0.9, window=2048, vote="lowest_group"
    )
    scheduler.add_request(0, PROMPT, num_traces=num_traces, max_tokens=1500, deepconf=policy)
    rng = np.random.default_rng(0)
    seconds, num_seqs = [], []
    while len(seconds) < 1500:
        start = time.perf_counter()
        plan = scheduler.schedule()
        middle = time.perf_counter()
        if plan is None:
            break
        num_rows = plan.sample_rows.size
        columns = (
            np.full(num_rows, 7, dtype=np.uint32),
            rng.normal(12, 4, num_rows).astype(np.float32),
            np.zeros(num_rows, dtype=np.uint8),
        )
        resumed = time.perf_counter()
        scheduler.commit(plan.id, *columns)
        seconds.append(time.perf_counter() - resumed + middle - start)
        num_seqs.append(plan.seq_lens.size)
    record(
        {
            "what": f"schedule + commit, {name}",
            "microseconds": 1e6 * statistics.median(seconds),
            "microseconds_p99": 1e6 * float(np.percentile(seconds, 99)),
            "sequences": statistics.median(num_seqs),
            "num_preemptions": scheduler.stats()["num_preemptions"],
        }
    )


def bench_confidence_tracker(record: Record) -> None:
    """A million tokens through one window of 2048, in one call."""
    values = np.random.default_rng(0).normal(12, 4, 1_000_000)
    tracker = ConfidenceTracker(2048)
    start = time.perf_counter()
    tracker.extend(values)
    record(
        {
            "what": "ConfidenceTracker, 10^6 tokens",
            "nanoseconds_a_token": 1e3 * (time.perf_counter() - start),
        }
    )
