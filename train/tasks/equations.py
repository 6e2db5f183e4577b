"""Linear equations with an integer solution: "Solve for x: 3*x + 5 = 20"."""

import re
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.execute import evaluate_expression
from falcon_h1r.train.tasks.steps import (
    Signed,
    add_terms,
    check_steps,
    last_number,
    show,
    signed,
    value,
)  # fmt: skip

_WORDINGS = ("Solve for {v}: {e}",) * 6 + (
    "Solve {e} for {v}.", "Find {v}: {e}", "What is {v} if {e}?", "If {e}, what is {v}?",
    "Solve {e}", "{e}, {v} = ?", "solve for {v}: {e}",
)  # fmt: skip


def _side(a: int, b: int, times: str, variable: str, rng: Random) -> str:
    """Render a*x + b, now and then with the constant first."""
    product = f"{a}{times}{variable}"
    if b == 0:
        return product
    if rng.random() < 0.15:
        return f"{b} - {-a}{times}{variable}" if a < 0 else f"{b} + {product}"
    return f"{product} - {-b}" if b < 0 else f"{product} + {b}"


def _think(a: int, b: int, right_a: int, c: int) -> tuple[list[str], int]:
    """The lines that solve a*x + b = right_a*x + c, and the solution."""
    lines: list[str] = []
    factor: Signed = signed(a)
    if right_a:
        factor = add_terms(lines, [signed(a), (-1, right_a)])
        lines.append(f"A={show(factor)}")
    terms = [signed(c)] if b == 0 else [signed(c), (-1 if b > 0 else 1, abs(b))]
    rest = add_terms(lines, terms)
    result = (rest[0] * factor[0], rest[1] // factor[1])
    # Both signs stand in the line that joins them: the sign is a decision of its own.
    lines.append(f"{show(rest)}/{show(factor)}={show(result)}")
    return lines, value(result)


def generate(rng: Random, level: int) -> Problem:
    """a*x + b = c; level 3 has the unknown on both sides and solutions up to 30."""
    solution = (
        rng.randint(0, 9)
        if level == 1
        else rng.randint(-30, 30)
        if level == 3
        else rng.randint(-20, 20)
    )
    a = rng.randint(2, 9 if level == 1 or rng.random() < 0.8 else 12)
    if level > 1 and rng.random() < 0.2:
        a = -a
    b = rng.randint(-9, 20) if level == 1 else rng.randint(-50, 50)
    if rng.random() < 0.06:
        b = 0
    right_a = 0
    if level == 3:
        right_a = rng.choice([k for k in range(1, 10) if k not in (a, a - 1, a + 1)])
    c = (a - right_a) * solution + b
    variable = rng.choice("xxxxxxynzak")
    times = rng.choice(("*", "*", "*", ""))
    left = _side(a, b, times, variable, rng)
    right = str(c) if right_a == 0 else _side(right_a, c, times, variable, rng)
    lines, found = _think(a, b, right_a, c)
    assert found == solution
    return Problem(
        problem=rng.choice(_WORDINGS).format(v=variable, e=f"{left} = {right}"),
        thought="\n".join(lines),
        answer=str(solution),
        family="equations",
        level=level,
        keys=(f"equation {a} {b} {right_a} {c}",),
    )


def verify(problem: Problem) -> bool:
    """Put the answer into the equation of the text; check every step of the thought.

    The thought is written once more from the values of both sides at 0 and 1.
    """
    match = re.search(r"(-?\d[^=,?:]*?) = ([^,?]*?)(?: for \w\.?|[,?.]|$)", problem.problem)
    assert match is not None, problem.problem
    (b, a, left), (c, right_a, right) = (
        [evaluate_expression(re.sub(r"(\d)\*?([a-z])", rf"\1*({x})", side)) for x in values]
        for side, values in ((side, (0, 1, problem.answer)) for side in match.groups())
    )
    if a - b == right_a - c:
        return False
    return (
        left == right
        and problem.thought.split("\n") == _think(a - b, b, right_a - c, c)[0]
        and check_steps(problem.thought)
        and last_number(problem.thought) == int(problem.answer)
    )
