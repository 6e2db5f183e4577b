"""How long the generated problems are: tokens of prompt and response by family and level.

Measured on a vocabulary of 4,096 entries built for the purpose; 300 draws a family and level.
"""

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest

from falcon_h1r import Tokenizer
from falcon_h1r.train.stream import TURN_END, prompt_text
from falcon_h1r.train.tasks import FAMILIES
from falcon_h1r.train.vocabulary import build_vocabulary

DRAWS = 300


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("vocabulary")
    build_vocabulary(folder, 4096)
    return Tokenizer.from_pretrained(folder)


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_task_tokens(
    tokenizer: Tokenizer, family: str, level: int, record: Callable[[dict[str, Any]], None]
) -> None:
    lengths = []
    for i in range(DRAWS):
        problem = FAMILIES[family].generate(Random(f"tokens {family} {level} {i}"), level)
        prompt = tokenizer.encode(prompt_text(problem.problem))
        lengths.append((len(prompt), len(tokenizer.encode(problem.response + TURN_END))))
    table = np.array(lengths)
    record(
        {
            "family": family,
            "level": level,
            "prompt": round(float(table[:, 0].mean())),
            "response": round(float(table[:, 1].mean())),
            "p99": int(np.percentile(table.sum(1), 99)),
            "longest": int(table.sum(1).max()),
        }
    )
