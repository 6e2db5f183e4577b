"""What `keep` does to the tokens and answers of the model in the wheel, at budget 32.

Held-out problems of a seed of their own. The full traces of each problem run once (offline); the
same traces then think online at each `keep`, with and without the consensus, so that all rows are
paired. FALCON_H1R_PROBLEMS sets the problems a family, FALCON_H1R_MODEL another folder.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from falcon_h1r import LLM, DeepConf, SamplingParams
from falcon_h1r.thinking.answers import equal
from falcon_h1r.thinking.results import ThinkingResult, Trace
from falcon_h1r.train.tasks import EVALUATED, Problem, held_out_problems

BUDGET = 32
KEEPS = (1.0, 0.9, 0.7, 0.5, 0.3)
PROBLEM_SEED = 77
"""Of the held-out problems; calibration, training's measurements and evaluation use others."""
COUNT = int(os.environ.get("FALCON_H1R_PROBLEMS", "40"))
Record = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(os.environ.get("FALCON_H1R_MODEL"), seed=0) as llm:
        yield llm


def think(llm: LLM, problems: list[Problem], config: DeepConf) -> list[ThinkingResult]:
    defaults = llm.thinking_defaults
    params = SamplingParams(
        temperature=defaults.temperature or 0.0,
        top_p=defaults.top_p or 1.0,
        max_tokens=defaults.max_tokens,
        seed=77,
    )
    return llm.think([p.problem for p in problems], config, params)


def is_right(answer: str | None, problem: Problem) -> bool:
    return answer is not None and equal(answer, problem.answer)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", EVALUATED)
def bench_keep(llm: LLM, family: str, record: Record) -> None:
    problems = held_out_problems(family, COUNT, seed=PROBLEM_SEED)
    full = think(llm, problems, DeepConf(mode="offline", budget=BUDGET, keep=1.0, consensus=None))
    tokens_full = sum(r.num_tokens for r in full)
    wrong = [
        [not is_right(t.answer, p) for t in r.traces] for r, p in zip(full, problems, strict=True)
    ]
    for consensus in (0.95, None):
        for keep in KEEPS:
            config = DeepConf(budget=BUDGET, keep=keep, consensus=consensus)
            results = think(llm, problems, config)
            stopped: list[tuple[int, Trace]] = [
                (i, t)
                for i, r in enumerate(results)
                for t in r.traces
                if t.stopped_by == "confidence"
            ]
            right = sum(is_right(r.answer, p) for r, p in zip(results, problems, strict=True))
            majority = sum(
                is_right(r.majority_answer, p) for r, p in zip(full, problems, strict=True)
            )
            record(
                {
                    "family": family,
                    "problems": len(problems),
                    "consensus": consensus,
                    "keep": keep,
                    "right": right,
                    "right_majority": majority,
                    "tokens": sum(r.num_tokens for r in results),
                    "tokens_full": tokens_full,
                    "stopped_by_confidence": len(stopped),
                    "stopped_and_wrong": sum(wrong[i][t.index] for i, t in stopped),
                    "wrong_traces": sum(map(sum, wrong)),
                    "stopped_by_consensus": sum(
                        t.stopped_by == "consensus" for r in results for t in r.traces
                    ),
                }
            )
