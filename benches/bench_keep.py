"""What `keep` does to the tokens and answers of the model in the wheel, at budget 32.

Held-out problems of a seed of their own. The full traces of each problem run once (offline) and
are recorded; every `keep`, with and without the consensus, is replayed over them, so all rows are
paired. A replay takes one trace after another, the least that can be spent; two values of `keep`
run live too. FALCON_H1R_PROBLEMS sets the problems a family, FALCON_H1R_MODEL another folder.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from falcon_h1r import LLM, DeepConf, SamplingParams
from falcon_h1r.thinking.answers import equal
from falcon_h1r.thinking.record import read_record, replay_record
from falcon_h1r.thinking.results import ThinkingResult
from falcon_h1r.train.tasks import EVALUATED, Problem, held_out_problems

BUDGET = 32
KEEPS = (1.0, 0.9, 0.7, 0.5, 0.3)
LIVE_KEEPS = (0.9, 0.5)
PROBLEM_SEED = 77
"""Of the held-out problems; calibration, training's measurements and evaluation use others."""
COUNT = int(os.environ.get("FALCON_H1R_PROBLEMS", "30"))
Record = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(os.environ.get("FALCON_H1R_MODEL"), seed=0) as llm:
        yield llm


def think(
    llm: LLM, problems: list[Problem], config: DeepConf, record: Path | None = None
) -> list[ThinkingResult]:
    defaults = llm.thinking_defaults
    params = SamplingParams(
        temperature=defaults.temperature or 0.0,
        top_p=defaults.top_p or 1.0,
        max_tokens=defaults.max_tokens,
        seed=77,
    )
    results = llm.think([p.problem for p in problems], config, params, record=record)
    if any(result.partial for result in results):
        raise KeyboardInterrupt
    return results


def is_right(answer: str | None, problem: Problem) -> bool:
    return answer is not None and equal(answer, problem.answer)


def row(results: list[ThinkingResult], problems: list[Problem]) -> dict[str, Any]:
    """Right answers, tokens, and how traces were stopped."""
    reasons = [t.stopped_by for r in results for t in r.traces]
    return {
        "right": sum(is_right(r.answer, p) for r, p in zip(results, problems, strict=True)),
        "tokens": sum(r.num_tokens for r in results),
        "stopped_by_confidence": reasons.count("confidence"),
        "stopped_by_consensus": reasons.count("consensus"),
    }


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", EVALUATED)
def bench_keep(llm: LLM, family: str, record: Record, tmp_path: Path) -> None:
    problems = held_out_problems(family, COUNT, seed=PROBLEM_SEED)
    path = tmp_path / "traces.jsonl"
    offline = DeepConf(mode="offline", budget=BUDGET, keep=1.0, consensus=None)
    full = think(llm, problems, offline, record=path)
    wrong = [
        [not is_right(t.answer, p) for t in r.traces] for r, p in zip(full, problems, strict=True)
    ]
    about = {"family": family, "problems": len(problems), "wrong_traces": sum(map(sum, wrong))}
    record(about | {"what": "full traces, majority"} | row(full, problems))
    recorded = read_record(path)
    for consensus in (0.95, None):
        for keep in KEEPS:
            config = DeepConf(budget=BUDGET, keep=keep, consensus=consensus)
            config = config.resolved(llm.thinking_defaults)
            results = [replay_record(prompt, config) for prompt in recorded]
            stopped = [
                wrong[i][t.index]
                for i, r in enumerate(results)
                for t in r.traces
                if t.stopped_by == "confidence"
            ]
            told = {"what": "replay", "consensus": consensus, "keep": keep}
            told |= row(results, problems) | {"stopped_and_wrong": sum(stopped)}
            record(about | told)
    for keep in LIVE_KEEPS:
        results = think(llm, problems, DeepConf(budget=BUDGET, keep=keep))
        record(about | {"what": "live", "consensus": 0.95, "keep": keep} | row(results, problems))
