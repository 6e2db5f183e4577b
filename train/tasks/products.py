"""Products by digit-expanded partial products: "What is 47 * 86?"."""

import re
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.execute import evaluate_arithmetic
from falcon_h1r.train.tasks.steps import check_steps, last_number, multiply

_WORDINGS = ("What is {a} * {b}?",) * 8 + (
    "Calculate {a} * {b}.", "Compute {a} * {b}.", "{a} * {b} =", "{a}*{b}", "{a} * {b} = ?",
    "What is {a}*{b}?", "What is {a} x {b}?", "What is {a} \u00d7 {b}?", "What is {a} times {b}?",
    "Multiply {a} by {b}.", "What is the product of {a} and {b}?", "what is {a} * {b}",
)  # fmt: skip


def product_key(a: int, b: int) -> str:
    """Operands without order; a factor below ten makes a table that nothing is held out of."""
    return f"product {min(a, b)} {max(a, b)}"


def generate(rng: Random, level: int) -> Problem:
    """One or two digits by two digits; level 3: three digits by two or three."""
    if level == 1:
        a, b = rng.randint(2, 99), rng.randint(2, 9)
    elif level == 2:
        a, b = rng.randint(10, 99), rng.randint(10, 99)
    else:
        a = rng.randint(100, 999)
        b = rng.randint(100, 999) if rng.random() < 0.5 else rng.randint(11, 99)
    if rng.random() < 0.5:
        a, b = b, a
    lines: list[str] = []
    total = multiply(lines, a, b)
    return Problem(
        problem=rng.choice(_WORDINGS).format(a=a, b=b),
        thought="\n".join(lines),
        answer=str(total),
        family="products",
        level=level,
        keys=(product_key(a, b),) if min(a, b) > 9 else (),
    )


def verify(problem: Problem) -> bool:
    """Evaluate the expression in the text and every step; write the thought once more from it."""
    expected = evaluate_arithmetic(problem.problem)
    a, b = map(int, re.findall(r"\d+", problem.problem))
    lines: list[str] = []
    multiply(lines, a, b)
    return (
        str(expected) == problem.answer
        and problem.thought.split("\n") == lines
        and check_steps(problem.thought)
        and last_number(problem.thought) == expected
    )
