"""Drills: several small steps of written arithmetic in one problem, as the chains use them."""

import re
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.execute import evaluate_expression
from falcon_h1r.train.tasks.steps import add_terms, multiply, reverse, show, signed, value


def _number(rng: Random) -> int:
    return rng.randint(0, 10 ** rng.choices((1, 2, 3, 4), (3, 6, 4, 1))[0] - 1)


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
            answers.append(multiply(lines, a, b))
        elif kind == "/":
            b = rng.randint(2, 12)
            a = b * rng.randint(0, 20)
            lines.append(f"{reverse(a)}/{reverse(b)}={reverse(a // b)}")
            answers.append(a // b)
        else:
            terms = [signed(a), (1 if kind == "+" else -1, b)]
            answers.append(value(add_terms(lines, terms)))
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
    """Evaluate each expression of the text; each result also stands, reversed, in the thought."""
    expressions = problem.problem.removeprefix("Work out: ").split(", ")
    results = [
        evaluate_expression(re.sub(r"(\d+) ?/ ?(\d+)", _divide, text)) for text in expressions
    ]
    written = all(show(signed(r))[1:] in problem.thought for r in results)
    return written and problem.answer == ", ".join(map(str, results))


def _divide(match: re.Match[str]) -> str:
    quotient, rest = divmod(int(match[1]), int(match[2]))
    if rest:
        raise ValueError(f"{match[0]} leaves a remainder")
    return str(quotient)
