"""The model in the wheel on held-out problems: greedy, pass@1, majority and DeepConf at budget 32.

Measured as `falcon-h1r eval --tasks reference:FAMILY@LEVEL` does, with its intervals; a row a
family and level. FALCON_H1R_PROBLEMS sets the problems of a row, FALCON_H1R_LEVELS the levels
("1,2,3"), FALCON_H1R_MODEL another folder.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from falcon_h1r import LLM, DeepConf
from falcon_h1r.evaluate import EvalConfig, evaluate
from falcon_h1r.evaluate.results import row_dict
from falcon_h1r.train.config import load_recipe
from falcon_h1r.train.held_out import reference_items
from falcon_h1r.train.recipe_sft import SftRecipe
from falcon_h1r.train.tasks import EVALUATED

CONFIG = EvalConfig(deepconf=DeepConf(budget=32))
TAUGHT = load_recipe(SftRecipe, "reference_sft").data.families
COUNT = int(os.environ.get("FALCON_H1R_PROBLEMS", "100"))
LEVELS = os.environ.get("FALCON_H1R_LEVELS", "2").split(",")


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(os.environ.get("FALCON_H1R_MODEL")) as llm:
        yield llm


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("family", [f for f in EVALUATED if f in TAUGHT])
def bench_reference_model(
    llm: LLM, family: str, level: str, record: Callable[[dict[str, Any]], None]
) -> None:
    items = reference_items(f"reference:{family}@{level}", COUNT)
    [row] = evaluate(llm, items, CONFIG).rows()
    record(row_dict(row))
