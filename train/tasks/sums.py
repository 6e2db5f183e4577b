"""Sums and differences: "What is 17 + 25 - 9?"."""

from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.execute import evaluate_arithmetic, find_arithmetic, read_terms
from falcon_h1r.train.tasks.steps import add_terms, check_steps, last_number, signed, value

_WORDINGS = ("What is {}?",) * 5 + (
    "Calculate {}.", "Compute {}.", "{} =", "{}", "{} = ?", "What's {}?", "Evaluate {}.",
    "How much is {}?", "Find {}.", "what is {}", "Please add up {}.", "What does {} equal?",
)  # fmt: skip


def render(terms: list[int], rng: Random) -> str:
    """Write signed terms as a user would: spaces, none, or words."""
    style = rng.random()
    plus, minus = (" + ", " - ") if style < 0.8 else ("+", "-")
    words = style > 0.94
    if words:
        plus, minus = " plus ", " minus "
    text = str(terms[0])
    for term in terms[1:]:
        if not words and rng.random() < 0.03:
            text += f"{plus}{term}"  # "17 + -9"
        else:
            text += f"{minus}{-term}" if term < 0 else f"{plus}{term}"
    return text


def generate(rng: Random, level: int) -> Problem:
    """Two to five operands of one or two digits (level 3: five to nine, up to three digits)."""
    count = rng.randint(2, 3) if level == 1 else rng.randint(3, 5)
    high = 99
    if level == 1:
        high = rng.choice((9, 99))
    if level == 3:
        count, high = rng.randint(5, 9), 999
    terms = [rng.randint(1, high if rng.random() < 0.8 else 9) for _ in range(count)]
    first_negative = rng.random() < 0.08
    terms = [
        -t if (first_negative if i == 0 else rng.random() < 0.5) else t for i, t in enumerate(terms)
    ]
    lines: list[str] = []
    total = value(add_terms(lines, [signed(t) for t in terms]))
    return Problem(
        problem=rng.choice(_WORDINGS).format(render(terms, rng)),
        thought="\n".join(lines),
        answer=str(total),
        family="sums",
        level=level,
        keys=("sums " + " ".join(map(str, sorted(terms))),),
    )


def verify(problem: Problem) -> bool:
    """Evaluate the expression in the text and every step; write the thought once more from it."""
    expected = evaluate_arithmetic(problem.problem)
    lines: list[str] = []
    add_terms(lines, [signed(t) for t in read_terms(find_arithmetic(problem.problem))])
    return (
        str(expected) == problem.answer
        and problem.thought.split("\n") == lines
        and check_steps(problem.thought)
        and last_number(problem.thought) == expected
    )
