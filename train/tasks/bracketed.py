"""Bracketed arithmetic in BIG-Bench-Hard's wording (multistep_arithmetic_two).

((-1 + 2 + 9 * 5) - (-2 + -4 + -4 * -7)) =
"""

import re
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.execute import evaluate_arithmetic
from falcon_h1r.train.tasks.products import product_key
from falcon_h1r.train.tasks.steps import (
    Signed,
    Tally,
    add_terms,
    check_steps,
    last_number,
    multiply_signed,
    number_partials,
    show,
    signed,
    value,
)  # fmt: skip

_WORDINGS = ("{} =",) * 8 + ("{}", "What is {}?", "Calculate {}", "Evaluate {}.", "Compute {}.")
MAX_PARTIALS = 9
"""Larger products of the two brackets are not drawn: their chains would not fit a training row."""


class _Bracket:
    """Numbers and operators of one bracket, read left to right."""

    def __init__(self, numbers: list[int], operators: list[str]) -> None:
        self.numbers, self.operators = numbers, operators

    @classmethod
    def draw(cls, rng: Random, size: int) -> "_Bracket":
        """A bracket of `size` numbers."""
        numbers = [rng.randint(-9, 9) for _ in range(size)]
        return cls(numbers, [rng.choice("+-*") for _ in range(size - 1)])

    @classmethod
    def read(cls, text: str) -> "_Bracket":
        """The bracket whose inside is written so."""
        words = text.split(" ")
        return cls([int(word) for word in words[::2]], words[1::2])

    def __str__(self) -> str:
        text = str(self.numbers[0])
        for op, number in zip(self.operators, self.numbers[1:], strict=True):
            text += f" {op} {number}"
        return f"({text})"

    def solve(self, lines: list[str]) -> Signed:
        """Write products first to last, each followed by its line of the tally."""
        tally = Tally(lines)
        position = 0
        while position < len(self.numbers):
            sign = -1 if position and self.operators[position - 1] == "-" else 1
            number = self.numbers[position]
            term: Signed = ((-sign if number < 0 else sign), abs(number))
            while position < len(self.operators) and self.operators[position] == "*":
                position += 1
                term = multiply_signed(lines, term, signed(self.numbers[position]))
            tally.add(term)
            position += 1
        return tally.result()


def _solve(left: _Bracket, op: str, right: _Bracket) -> tuple[list[str], int, tuple[int, int]]:
    lines: list[str] = []
    a = left.solve(lines)
    # The operator is copied while it is the next thing to read; looked up later it is often wrong.
    lines.append(f"A={show(a)}) {op} (")
    b = right.solve(lines)
    lines.append(f"B={show(b)}")
    if op == "*":
        result = multiply_signed(lines, a, b)
    else:
        lines.append(f"{show(a)}{op}{show(b)}")
        result = add_terms(lines, [a, (-b[0] if op == "-" else b[0], b[1])])
    return lines, value(result), (a[1], b[1])


def generate(rng: Random, level: int) -> Problem:
    """Two brackets of four numbers (level 1: two or three; level 3: five or six)."""
    while True:
        sizes = [(rng.randint(2, 3), 4, rng.randint(5, 6))[level - 1] for _ in range(2)]
        left, right = (_Bracket.draw(rng, size) for size in sizes)
        op = rng.choice("+-*")
        lines, total, (a, b) = _solve(left, op, right)
        if op != "*" or number_partials(a, b) <= MAX_PARTIALS:
            break
    text = f"({left} {op} {right})"
    keys = [f"bracketed {text}"]
    if op == "*" and min(a, b) > 9 and max(a, b) < 1000:
        keys.append(product_key(a, b))
    return Problem(
        problem=rng.choice(_WORDINGS).format(text),
        thought="\n".join(lines),
        answer=str(total),
        family="bracketed",
        level=level,
        keys=tuple(keys),
    )


def verify(problem: Problem) -> bool:
    """Evaluate the expression in the text and every step; write the thought once more from it."""
    expected = evaluate_arithmetic(problem.problem)
    match = re.search(r"\(\(([^()]*)\) ([+*-]) \(([^()]*)\)\)", problem.problem)
    if match is None:
        return False
    lines, *_ = _solve(_Bracket.read(match[1]), match[2], _Bracket.read(match[3]))
    return (
        str(expected) == problem.answer
        and problem.thought.split("\n") == lines
        and check_steps(problem.thought)
        and last_number(problem.thought) == expected
    )
