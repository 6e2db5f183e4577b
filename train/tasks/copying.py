"""Copying, spelling and recall: teaches looking up what stands in the context (induction)."""

import re
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.names import draw_names
from falcon_h1r.train.tasks.words import WORDS, english_like


def _items(rng: Random, count: int) -> list[str]:
    kind = rng.random()
    if kind < 0.3:
        return draw_names(rng, count)
    if kind < 0.55:
        return rng.sample(WORDS, count)
    if kind < 0.75:
        return rng.choices("()[]{}<>", k=2 * count)
    return [str(rng.randint(0, 10 ** rng.randint(1, 4))) for _ in range(count)]


def generate(rng: Random, level: int) -> Problem:
    """Repeat a list, spell words, reverse the digits of numbers, or recall who has what."""
    count = rng.randint(2, 4 + 2 * level)
    kind = rng.random()
    if kind < 0.3:
        items = _items(rng, count)
        problem, thought = f"Repeat: {' '.join(items)}", f"{count}"
        answer = " ".join(items)
    elif kind < 0.55:
        words = [english_like(rng) for _ in range(min(count, 6))]
        problem, answer = f"Spell: {' '.join(words)}", " ".join(words)
        thought = "\n".join(f"- {word}: {' '.join(word)}" for word in words)
    elif kind < 0.65:
        numbers = [str(rng.randint(0, 10 ** rng.randint(1, 5))) for _ in range(min(count, 5))]
        problem = f"Reverse the digits: {' '.join(numbers)}"
        thought = " ".join(n[::-1] for n in numbers)
        answer = " ".join(numbers)  # turned back again: both directions are practised
        problem += " and turn them back."
    else:
        names = draw_names(rng, count)
        things = rng.sample(WORDS, count)
        sentences = [f"{n} has {t}." for n, t in zip(names, things, strict=True)]
        asked = [rng.randrange(count) for _ in range(min(count, 3))]
        who = ", ".join(names[i] for i in asked)
        problem = f"{' '.join(sentences)} Say what these have: {who}."
        thought = "\n".join(f"- {names[i]} {things[i]}" for i in asked)
        answer = " ".join(things[i] for i in asked)
    return Problem(
        problem=problem, thought=thought, answer=answer, family="copying", level=level, keys=()
    )


def verify(problem: Problem) -> bool:
    """Look the answer up in the text."""
    text = problem.problem
    if text.startswith("Repeat: "):
        return problem.answer == text.removeprefix("Repeat: ") and problem.thought.isdigit()
    if text.startswith("Spell: "):
        words = text.removeprefix("Spell: ").split()
        spelt = [line.split(":")[1].replace(" ", "") for line in problem.thought.split("\n")]
        return problem.answer.split() == words == spelt
    if text.startswith("Reverse"):
        numbers = re.findall(r"\d+", text)
        back = [n[::-1] for n in numbers]
        return problem.answer.split() == numbers and problem.thought.split() == back
    owned = dict(re.findall(r"(\w+) has (\w+)\.", text))
    asked = text.rsplit(": ", 1)[1].removesuffix(".").split(", ")
    told = [f"- {name} {owned[name]}" for name in asked]
    right = problem.answer == " ".join(owned[name] for name in asked)
    return right and problem.thought.split("\n") == told
