"""Held-out problems of the generators as items to evaluate on, and what a recipe trains on."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

from falcon_h1r.errors import ConfigError
from falcon_h1r.evaluate.formats import lettered_choices
from falcon_h1r.evaluate.items import Item, numbered
from falcon_h1r.evaluate.overlap import training_texts
from falcon_h1r.train.config import load_recipe
from falcon_h1r.train.recipe_sft import SftRecipe
from falcon_h1r.train.tasks import EVALUATED, FAMILIES, held_out_problems, sample_problem

COUNT = 100
"""Problems a family and level, where no limit is given."""
LEVELS = (1, 2, 3)


def reference_items(name: str, limit: int | None = None, *, seed: int = 0) -> list[Item]:
    """Return held-out items of "reference", "reference@LEVEL" or "reference:FAMILY[@LEVEL]".

    `limit` is the number a family and level; a level that is only a drill has none. Raises
    ConfigError for an unknown family or level.
    """
    head, _, level_text = name.partition("@")
    head, _, family = head.partition(":")
    if head != "reference" or (family and family not in FAMILIES):
        raise ConfigError(
            f"no task is named {name!r}; write reference[:FAMILY][@LEVEL], FAMILY one of "
            f"{', '.join(FAMILIES)}"
        )
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}; it must be at least 1")
    if level_text and level_text not in map(str, LEVELS):
        raise ConfigError(f"level is {level_text!r} in {name!r}; it must be 1, 2 or 3")
    levels = (int(level_text),) if level_text else LEVELS
    items = [
        Item(
            problem=problem.problem,
            answer=problem.answer,
            task=f"reference/{problem.family}",
            level=level,
            choices=lettered_choices(problem.problem),
        )
        for each in ((family,) if family else EVALUATED)
        for level in levels
        for problem in held_out_problems(each, limit or COUNT, level=level, seed=seed)
    ]
    if not items:
        raise ConfigError(
            f"{name!r} has no held-out problem: it is only a drill; take another level"
        )
    return numbered(items)


def recipe_texts(name: str, count: int) -> Iterator[str]:
    """Yield the problems that a supervised recipe trains on: those of its curated set, or the first
    `count` that its generators draw. Raises ConfigError for an unknown recipe."""
    recipe = load_recipe(SftRecipe, name)
    if recipe.data.source is not None:
        yield from training_texts(Path(recipe.data.source))
        return
    for ordinal in range(count):
        rng = Random(f"train {recipe.seed} {ordinal}")  # as DocumentStream draws
        yield sample_problem(rng, recipe.data.families, recipe.data.levels).problem
