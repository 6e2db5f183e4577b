"""What is paid before and around the model: imports, --help, the scheduler, memory."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Record = Callable[[dict[str, Any]], None]
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import falcon_h1r.Tokenizer": ["-c", "from falcon_h1r import Tokenizer"],
    "falcon-h1r --help": ["-m", "falcon_h1r.cli.main", "--help"],
    "import falcon_h1r.LLM": ["-c", "from falcon_h1r import LLM"],
    "import transformers.AutoTokenizer": ["-c", "from transformers import AutoTokenizer"],
}


@pytest.mark.parametrize("name", COMMANDS)
def bench_start(name: str, record: Record) -> None:
    """Wall time of a whole process: median of 5 after one that fills the file cache."""
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        subprocess.run([sys.executable, *COMMANDS[name]], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    record({"what": name, "seconds": statistics.median(seconds[1:])})


def bench_schedule_and_commit(record: Record) -> None:
    """One step of 64 running traces of one request, without a model."""
    from falcon_h1r._rust import Scheduler

    num_traces, num_steps = 64, 2000
    scheduler = Scheduler(
        num_blocks=16384,
        block_size=16,
        num_slots=num_traces + 1,
        max_num_seqs=num_traces,
        max_num_batched_tokens=2048,
        chunk_size=128,
        max_model_len=4096,
    )
    prompt = np.arange(512, dtype=np.uint32)
    scheduler.add_request(0, prompt, num_traces=num_traces, max_tokens=num_steps + 100)
    seconds = []
    for _ in range(num_steps):
        start = time.perf_counter()
        plan = scheduler.schedule()
        num_rows = plan.sample_rows.size
        middle = time.perf_counter()
        columns = (
            np.full(num_rows, 7, dtype=np.uint32),
            np.full(num_rows, 1.0, dtype=np.float32),
            np.zeros(num_rows, dtype=np.uint8),
        )
        resumed = time.perf_counter()
        scheduler.commit(plan.id, *columns)
        end = time.perf_counter()
        if num_rows == num_traces:
            seconds.append(end - resumed + middle - start)
    record(
        {
            "what": "schedule + commit, 64 traces",
            "microseconds": 1e6 * statistics.median(seconds),
            "microseconds_p99": 1e6 * float(np.percentile(seconds, 99)),
        }
    )


MEMORY_PROBE = """
import re, sys
import torch
from falcon_h1r import LLM, SamplingParams

def kilobytes(name):
    return int(re.search(rf"^{name}:\\s+(\\d+)", open("/proc/self/status").read(), re.M)[1])

before = kilobytes("VmRSS")
with LLM(sys.argv[1], memory_bytes=4_000_000_000, max_model_len=512) as llm:
    params = SamplingParams(n=64, temperature=1.0, max_tokens=16, ignore_eos=True, seed=0)
    llm.generate([list(range(100, 228))], params)
    print(1024 * (kilobytes("VmHWM") - before), llm.stats()["planned_bytes"])
"""


def bench_memory(model_219m: Path, record: Record) -> None:
    """Peak resident memory of a process that generates 64 traces, less that of its imports."""
    probe = [sys.executable, "-c", MEMORY_PROBE, str(model_219m)]
    done = subprocess.run(probe, check=True, capture_output=True, text=True)
    peak, planned = map(int, done.stdout.split())
    record(
        {
            "what": "memory, 64 traces",
            "peak_bytes": peak,
            "planned_bytes": planned,
            "ratio": peak / planned,
        }
    )
