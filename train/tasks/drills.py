"""Drills: several small steps of written arithmetic in one problem, as the chains use them."""

import re
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.execute import evaluate_expression
from falcon_h1r.train.tasks.steps import add_terms, check_steps, multiply, reverse, signed, value


def _number(rng: Random) -> int:
    return rng.randint(0, 10 ** rng.choices((1, 2, 3, 4), (3, 6, 4, 1))[0] - 1)


def _think(lines: list[str], a: int, kind: str, b: int) -> int:
    """Write the lines of one expression and return its value."""
    if kind == "*":
        return multiply(lines, a, b)
    if kind == "/":
        lines.append(f"{reverse(a)}/{reverse(b)}={reverse(a // b)}")
        return a // b
    return value(add_terms(lines, [signed(a), (1 if kind == "+" else -1, b)]))


def generate(rng: Random, level: int) -> Problem:
    """Three to six additions, subtractions (often of close numbers), tables and divisions."""
    expressions: list[str] = []
    lines: list[str] = []
    answers: list[int] = []
    for _ in range(rng.randint(2, 2 + level * 2)):
        kind = rng.choices("+-*/", (3, 4, 2, 1))[0]
        a, b = _number(rng), _number(rng)
        if kind == "-" and rng.random() < 0.4:
            b = max(0, a + rng.randint(-12, 12))
        if kind == "*":
            a, b = rng.randint(0, 9), rng.randint(0, 9)
        elif kind == "/":
            b = rng.randint(2, 12)
            a = b * rng.randint(0, 20)
        answers.append(_think(lines, a, kind, b))
        expressions.append(f"{a}{kind}{b}" if rng.random() < 0.5 else f"{a} {kind} {b}")
    return Problem(
        problem=f"Work out: {', '.join(expressions)}",
        thought="\n".join(lines),
        answer=", ".join(map(str, answers)),
        family="drills",
        level=level,
        keys=(),
    )


def verify(problem: Problem) -> bool:
    """Evaluate each expression of the text and every step; write the thought once more from it."""
    expressions = problem.problem.removeprefix("Work out: ").split(", ")
    results = [
        evaluate_expression(re.sub(r"(\d+) ?/ ?(\d+)", _divide, text)) for text in expressions
    ]
    lines: list[str] = []
    for text in expressions:
        a, kind, b = text.replace(" ", "").partition(next(c for c in text if c in "+-*/"))
        _think(lines, int(a), kind, int(b))
    return (
        problem.answer == ", ".join(map(str, results))
        and problem.thought.split("\n") == lines
        and check_steps(problem.thought)
    )


def _divide(match: re.Match[str]) -> str:
    quotient, rest = divmod(int(match[1]), int(match[2]))
    if rest:
        raise ValueError(f"{match[0]} leaves a remainder")
    return str(quotient)
