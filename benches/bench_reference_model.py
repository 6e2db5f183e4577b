"""The model in the wheel on held-out problems: pass@1, majority and DeepConf at budget 32.

Three runs a family on the same problems and seed: greedy; 32 full traces each (pass@1 is the share
of right traces, majority the plain vote of all of them); DeepConf online with the model's own
defaults, whose saving is therefore measured, not estimated. Intervals are 95 % (Wilson; pass@1 by
problems). FALCON_H1R_PROBLEMS sets the problems a family, FALCON_H1R_MODEL another folder.
"""

import math
import os
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from falcon_h1r import LLM, DeepConf, SamplingParams
from falcon_h1r.thinking.answers import equal
from falcon_h1r.thinking.results import ThinkingResult
from falcon_h1r.train.tasks import EVALUATED, Problem, held_out_problems

BUDGET = 32
COUNT = int(os.environ.get("FALCON_H1R_PROBLEMS", "100"))


def wilson(right: int, count: int) -> tuple[float, float]:
    """95 % interval of a share."""
    z, share = 1.96, right / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return round(centre - half, 3), round(centre + half, 3)


def is_right(answer: str | None, problem: Problem) -> bool:
    return answer is not None and equal(answer, problem.answer)


def share(answers: list[str | None], problems: list[Problem]) -> tuple[int, tuple[float, float]]:
    right = sum(is_right(a, p) for a, p in zip(answers, problems, strict=True))
    return right, wilson(right, len(problems))


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
        seed=7,
    )
    return llm.think([p.problem for p in problems], config, params)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", EVALUATED)
def test_reference_model(llm: LLM, family: str, record: Callable[[dict[str, Any]], None]) -> None:
    problems = held_out_problems(family, COUNT)
    greedy = llm.think(
        [p.problem for p in problems],
        DeepConf(mode="offline", budget=1, consensus=None),
        SamplingParams(temperature=0.0, max_tokens=llm.thinking_defaults.max_tokens),
    )
    full = think(llm, problems, DeepConf(mode="offline", budget=BUDGET, keep=1.0, consensus=None))
    online = think(llm, problems, DeepConf(budget=BUDGET))

    per_problem = [
        statistics.mean(is_right(t.answer, p) for t in r.traces)
        for r, p in zip(full, problems, strict=True)
    ]
    pass_at_1 = statistics.mean(per_problem)
    error = 1.96 * statistics.stdev(per_problem) / math.sqrt(len(problems))
    greedy_right, greedy_interval = share([r.answer for r in greedy], problems)
    majority_right, majority_interval = share([r.majority_answer for r in full], problems)
    online_right, online_interval = share([r.answer for r in online], problems)
    stopped = [t for r in online for t in r.traces if t.stopped_by == "confidence"]
    tokens = sum(r.num_tokens for r in full), sum(r.num_tokens for r in online)
    record(
        {
            "family": family,
            "problems": len(problems),
            "greedy": greedy_right / len(problems),
            "greedy_95": greedy_interval,
            "pass@1": pass_at_1,
            "pass@1_95": (round(pass_at_1 - error, 3), round(min(1.0, pass_at_1 + error), 3)),
            "majority@32": majority_right / len(problems),
            "majority@32_95": majority_interval,
            "deepconf@32": online_right / len(problems),
            "deepconf@32_95": online_interval,
            "tokens_full": tokens[0],
            "tokens_deepconf": tokens[1],
            "saved": round(1 - tokens[1] / tokens[0], 3),
            "stopped_by_confidence": len(stopped),
            "stopped_by_consensus": sum(
                t.stopped_by == "consensus" for r in online for t in r.traces
            ),
        }
    )
