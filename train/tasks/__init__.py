"""Generators of problems with verified chains of thought, one file a family."""

from collections.abc import Mapping
from random import Random

from falcon_h1r.train.tasks import (
    booleans,
    bracketed,
    copying,
    date_understanding,
    drills,
    dyck_languages,
    equations,
    formal_fallacies,
    geometric_shapes,
    hyperbaton,
    judging,
    lies,
    logical_deduction,
    navigate,
    object_counting,
    penguins_in_a_table,
    products,
    reasoning_about_colored_objects,
    sums,
    temporal_sequences,
    tracking_shuffled_objects,
    word_sorting,
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
    "judging": judging,
    "dyck_languages": dyck_languages,
    "hyperbaton": hyperbaton,
    "object_counting": object_counting,
    "temporal_sequences": temporal_sequences,
    "tracking_shuffled_objects": tracking_shuffled_objects,
    "word_sorting": word_sorting,
    "date_understanding": date_understanding,
    "formal_fallacies": formal_fallacies,
    "geometric_shapes": geometric_shapes,
    "logical_deduction": logical_deduction,
    "penguins_in_a_table": penguins_in_a_table,
    "reasoning_about_colored_objects": reasoning_about_colored_objects,
}
EVALUATED = tuple(name for name in FAMILIES if name not in ("copying", "drills", "judging"))
"""Families that are measured; the other three only teach what these need."""
_IN_VAIN = 2000
"""Draws without a new held-out problem after which a level has no more: 5 % are held out."""

__all__ = [
    "EVALUATED", "FAMILIES", "Family", "Problem", "draw_trainable", "held_out_problems",
    "is_held_out", "is_verified", "may_train", "sample_problem",
]  # fmt: skip


def held_out_problems(family: str, count: int, *, level: int = 2, seed: int = 0) -> list[Problem]:
    """The first `count` different held-out problems of a family, the same for the same seed.

    Fewer where the level has no more: an easy level may have a handful, or be a drill with none.
    """
    problems: dict[str, Problem] = {}
    ordinal = newest = 0
    while len(problems) < count and ordinal - newest < _IN_VAIN:
        rng = Random(f"held out {seed} {family} {level} {ordinal}")
        problem = FAMILIES[family].generate(rng, level)
        ordinal += 1
        if is_held_out(problem) and problem.keys[0] not in problems:
            problems[problem.keys[0]] = problem
            newest = ordinal
    return list(problems.values())


def is_verified(problem: Problem) -> bool:
    """Whether the family's verifier accepts the problem; what it cannot read, it does not.

    For thoughts that a model wrote: they may be anything.
    """
    try:
        return FAMILIES[problem.family].verify(problem)
    except (AssertionError, LookupError, SyntaxError, ValueError, RecursionError):
        return False


def draw_trainable(rng: Random, family: str, level: int) -> Problem:
    """Draw problems of a family and level until one may be trained on."""
    while True:
        problem = FAMILIES[family].generate(rng, level)
        if may_train(problem):
            return problem


def sample_problem(
    rng: Random, families: Mapping[str, float], levels: Mapping[int, float]
) -> Problem:
    """Draw a problem that may be trained on; the values of both mappings are weights."""
    family = rng.choices(list(families), list(families.values()))[0]
    level = rng.choices(list(levels), list(levels.values()))[0]
    return draw_trainable(rng, family, level)
