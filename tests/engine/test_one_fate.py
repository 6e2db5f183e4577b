"""Law 1: a trace's tokens depend on model, prompt, parameters, seed and index; on nothing else."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from falcon_h1r import FalconH1ForCausalLM, SamplingParams

Run = Callable[..., dict[tuple[int, int], Any]]


def requests(num: int = 5, n: int = 3) -> list[tuple[list[int], SamplingParams]]:
    rng = random.Random(0)
    out = []
    for i in range(num):
        prompt = [rng.randrange(3, 96) for _ in range(rng.choice([1, 7, 40, 150, 300]))]
        params = SamplingParams(
            n=n, temperature=0.9, top_p=0.95, max_tokens=24, seed=100 + i, ignore_eos=True,
            logprobs=0,
        )  # fmt: skip
        out.append((prompt, params))
    return out


def fingerprint(output: Any) -> tuple[Any, ...]:
    """Everything of a trace that must not change, to the bit."""
    lines = [(t, v.logprob, v.raw_logprob) for step in output.logprobs for t, v in step.items()]
    return (tuple(output.token_ids), tuple(lines), tuple(output.confidences))


@pytest.fixture
def expected(run: Run) -> list[list[tuple[Any, ...]]]:
    """Each trace of each request alone in its own engine."""
    alone = []
    for prompt, params in requests():
        outputs = run([(prompt, params)], max_num_seqs=1)
        alone.append([fingerprint(outputs[(0, t)]) for t in range(params.n)])
    return alone


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"max_num_seqs": 2},
        {"max_num_seqs": 64, "max_num_batched_tokens": 128},
        {"max_num_batched_tokens": 200},
        {"block_size": 4},
    ],
    ids=str,
)
def test_same_bits_in_any_batch(
    run: Run, expected: list[list[tuple[Any, ...]]], config: dict[str, Any]
) -> None:
    outputs = run(requests(), **config)
    for (request, trace), output in outputs.items():
        assert fingerprint(output) == expected[request][trace], (request, trace)


def test_same_bits_in_any_order(run: Run, expected: list[list[tuple[Any, ...]]]) -> None:
    order = [3, 0, 4, 2, 1]
    outputs = run([requests()[i] for i in order])
    for position, request in enumerate(order):
        for trace in range(3):
            assert fingerprint(outputs[(position, trace)]) == expected[request][trace]


def test_same_bits_under_preemption(make_engine: Callable[..., Any]) -> None:
    """Traces outgrow the memory together: some are thrown out and recomputed, bit for bit."""
    params = SamplingParams(n=8, max_tokens=150, seed=9, ignore_eos=True, logprobs=0)
    prompt = list(range(3, 24))

    def go(num_blocks: int) -> tuple[list[tuple[Any, ...]], int]:
        roomy = make_engine(max_model_len=200, max_num_seqs=8).memory
        memory_bytes = roomy.total_bytes + (num_blocks - roomy.num_blocks) * roomy.block_bytes
        engine = make_engine(max_model_len=200, max_num_seqs=8, memory_bytes=memory_bytes)
        request = engine.add_request(prompt, params)
        while engine.has_unfinished():
            engine.step()
        outputs = [fingerprint(engine.output(request, t)) for t in range(8)]
        return outputs, engine.stats()["num_preemptions"]

    (expected, none), (tight, some) = go(120), go(26)
    assert none == 0
    assert some > 0
    assert tight == expected


def test_logprobs_are_the_trainers(run: Run, model: FalconH1ForCausalLM) -> None:
    """Law 2: what was recorded while sampling equals a fresh packed forward pass."""
    for (prompt, params), index in zip(requests(), range(5), strict=True):
        output = run([(prompt, params)])[(0, 1)]
        tokens = prompt + output.token_ids
        ids = torch.tensor(tokens)
        with torch.no_grad():
            logits = model.forward_packed(ids, torch.tensor([0, len(tokens)], dtype=torch.int32))
        raw = logits.double().log_softmax(-1)[len(prompt) - 1 : -1]
        top = raw.topk(9, dim=-1).values.mean(-1)
        for t, token in enumerate(output.token_ids):
            entry = output.logprobs[t][token]
            assert entry.raw_logprob == pytest.approx(float(raw[t, token]), abs=1e-5), index
            assert entry.rank == int((raw[t] > raw[t, token]).sum()) + 1
        assert output.confidences == pytest.approx([-float(x) for x in top], abs=1e-5)


def test_equal_prompts_in_one_call_differ_and_a_seed_repeats(run: Run) -> None:
    params = SamplingParams(max_tokens=16, ignore_eos=True)
    outputs = run([([5, 6, 7], params), ([5, 6, 7], params)])
    again = run([([5, 6, 7], params), ([5, 6, 7], params)])
    assert outputs[(0, 0)].token_ids != outputs[(1, 0)].token_ids
    assert outputs[(0, 0)].token_ids == again[(0, 0)].token_ids
    other = run([([5, 6, 7], params)], seed=1)
    assert other[(0, 0)].token_ids != outputs[(0, 0)].token_ids


def test_same_bits_from_a_cached_prefix(make_engine: Callable[..., Any]) -> None:
    rng = random.Random(5)
    first = [rng.randrange(3, 96) for _ in range(260)]
    second = first[:256] + [rng.randrange(3, 96) for _ in range(30)]
    params = SamplingParams(n=2, max_tokens=12, seed=4, ignore_eos=True, logprobs=0)

    def go(*prompts: list[int], enable_prefix_caching: bool) -> tuple[Any, int]:
        engine = make_engine(enable_prefix_caching=enable_prefix_caching)
        for prompt in prompts:
            request = engine.add_request(prompt, params)
            while engine.has_unfinished():
                engine.step()
        outputs = [fingerprint(engine.output(request, t)) for t in range(2)]
        return outputs, engine.stats()["num_cached_tokens"]

    expected, none = go(second, enable_prefix_caching=False)
    cached, count = go(first, second, enable_prefix_caching=True)
    assert (none, count) == (0, 256)
    assert cached == expected
