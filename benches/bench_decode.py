"""Decode and prefill of a 219M Falcon-H1 in bfloat16, greedy: ours beside transformers.

Both sides take the same checkpoint, the same prompts and two threads, in turns, in one process.
The peer runs its model's forward in a plain loop over its own cache, which is faster than its
`generate`. A repetition's prefill is not timed in decode.

Legend: N traces, L prompt tokens, V vocabulary.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from falcon_h1r import LLM, SamplingParams

PROMPT_LEN = 32
Prompts = list[list[int]]


def prompts_of(num: int, length: int) -> Prompts:
    rng = np.random.default_rng(num)
    return [[int(i) for i in row] for row in rng.integers(100, 32000, (num, length))]


@pytest.fixture(scope="module")
def ours(model_219m: Path) -> Iterator[LLM]:
    with LLM(model_219m, memory_bytes=4_000_000_000, max_model_len=512) as llm:
        yield llm


@pytest.fixture(scope="module")
def theirs(model_219m: Path) -> Any:
    from transformers import FalconH1ForCausalLM, logging

    logging.set_verbosity_error()
    return FalconH1ForCausalLM.from_pretrained(model_219m, dtype=torch.bfloat16).eval()


def decode_ours(llm: LLM, prompts: Prompts, num_tokens: int) -> float:
    """Seconds for num_tokens - 1 tokens of each trace, after all have their first."""
    params = SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True)
    requests = [llm.engine.add_request(prompt, params) for prompt in prompts]
    wanted = llm.stats()["num_generated_tokens"] + len(prompts)
    while llm.stats()["num_generated_tokens"] < wanted:
        llm.engine.step()
    start = time.perf_counter()
    while llm.engine.has_unfinished():
        llm.engine.step()
    seconds = time.perf_counter() - start
    for request_id in requests:
        llm.engine.release(request_id)
    return seconds


@torch.inference_mode()
def decode_theirs(model: Any, prompts: Prompts, num_tokens: int) -> float:
    out = model(torch.tensor(prompts), use_cache=True, logits_to_keep=1)
    token_ids = out.logits[:, -1:].argmax(-1)  # [N, 1]
    start = time.perf_counter()
    for _ in range(num_tokens - 1):
        out = model(token_ids, past_key_values=out.past_key_values, use_cache=True)
        token_ids = out.logits[:, -1:].argmax(-1)
    return time.perf_counter() - start


def prefill_ours(llm: LLM, prompts: Prompts) -> float:
    params = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True)
    start = time.perf_counter()
    llm.generate(prompts, params)
    return time.perf_counter() - start


@torch.inference_mode()
def prefill_theirs(model: Any, prompts: Prompts) -> float:
    start = time.perf_counter()
    model(torch.tensor(prompts), use_cache=True, logits_to_keep=1).logits.argmax(-1)
    return time.perf_counter() - start


def in_turns(repeats: int, *sides: Callable[[], float]) -> list[float]:
    """Median seconds of each side; the first round warms up and is dropped."""
    rounds = [[side() for side in sides] for _ in range(repeats + 1)][1:]
    return [statistics.median(times) for times in zip(*rounds, strict=True)]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("num_traces", "num_tokens", "repeats"), [(1, 65, 3), (16, 33, 3), (64, 17, 2)]
)
def bench_decode(
    num_traces: int,
    num_tokens: int,
    repeats: int,
    ours: LLM,
    theirs: Any,
    record: Callable[[dict[str, Any]], None],
) -> None:
    prompts = prompts_of(num_traces, PROMPT_LEN)
    mine, peer = in_turns(
        repeats,
        lambda: decode_ours(ours, prompts, num_tokens),
        lambda: decode_theirs(theirs, prompts, num_tokens),
    )
    num = num_traces * (num_tokens - 1)
    record(
        {
            "what": "decode",
            "num_traces": num_traces,
            "falcon_h1r_tokens_per_s": num / mine,
            "transformers_tokens_per_s": num / peer,
            "ratio": peer / mine,
        }
    )


@pytest.mark.usefixtures("two_threads")
def bench_prefill(ours: LLM, theirs: Any, record: Callable[[dict[str, Any]], None]) -> None:
    prompts = prompts_of(16, 128)
    mine, peer = in_turns(
        3, lambda: prefill_ours(ours, prompts), lambda: prefill_theirs(theirs, prompts)
    )
    record(
        {
            "what": "prefill 16 x 128",
            "falcon_h1r_tokens_per_s": 16 * 128 / mine,
            "transformers_tokens_per_s": 16 * 128 / peer,
            "ratio": peer / mine,
        }
    )
