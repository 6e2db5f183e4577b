"""Generators of problems with verified chains of thought, one file a family."""

from random import Random

from falcon_h1r.train.tasks import (
    booleans,
    bracketed,
    copying,
    drills,
    equations,
    lies,
    navigate,
    products,
    sums,
)  # fmt: skip
from falcon_h1r.train.tasks.base import Family, Problem, is_held_out, may_train

FAMILIES: dict[str, Family] = {
    "sums": sums,
    "products": products,
    "equations": equations,
    "booleans": booleans,
    "bracketed": bracketed,
    "lies": lies,
    "navigate": navigate,
    "copying": copying,
    "drills": drills,
}
EVALUATED = ("sums", "products", "equations", "booleans", "bracketed", "lies", "navigate")

__all__ = [
    "EVALUATED", "FAMILIES", "Family", "Problem", "held_out_problems", "is_held_out", "may_train",
]  # fmt: skip


def held_out_problems(family: str, count: int, *, level: int = 2, seed: int = 0) -> list[Problem]:
    """The first `count` different held-out problems of a family, the same for the same seed."""
    problems: dict[str, Problem] = {}
    ordinal = 0
    while len(problems) < count:
        rng = Random(f"held out {seed} {family} {level} {ordinal}")
        problem = FAMILIES[family].generate(rng, level)
        ordinal += 1
        if is_held_out(problem):
            problems.setdefault(problem.keys[0], problem)
    return list(problems.values())
