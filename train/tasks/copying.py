"""Copying, spelling and recall: teaches looking up what stands in the context (induction).

Every other family copies names and nouns it may never have seen, and small models learn that late;
so these problems are dense: most tokens of an answer are looked up.
"""

import itertools
import re
from random import Random

from falcon_h1r.train.tasks.adjectives import RANK
from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.names import NAMES, draw_names, made_up_name
from falcon_h1r.train.tasks.nouns import KINDS
from falcon_h1r.train.tasks.things import EDIBLE, LIVING, MACHINES, THINGS
from falcon_h1r.train.tasks.words import WORDS, english_like

_NOUNS = [noun for kind in KINDS.values() for noun in kind]
_POOL = sorted(
    word
    for word in {*NAMES, *WORDS, *RANK, *_NOUNS, *THINGS, *LIVING, *EDIBLE, *MACHINES}
    if word.isalpha()
)


def _word(rng: Random) -> str:
    """One of the lists, or made up: as names and nouns are, or of any letters.

    What was never written is not copied: rare pieces must come up somewhere.
    """
    kind = rng.random()
    if kind < 0.5:
        return rng.choice(_POOL)
    if kind < 0.65:
        return english_like(rng)
    if kind < 0.95:
        name = made_up_name(rng)
        return name if kind < 0.8 else name.lower()
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 5)))


def _words(rng: Random, count: int) -> list[str]:
    words: dict[str, None] = {}
    while len(words) < count:
        words.setdefault(_word(rng))
    return list(words)


def _items(rng: Random, count: int) -> list[str]:
    kind = rng.random()
    if kind < 0.8:
        return _words(rng, count)
    if kind < 0.9:
        return rng.choices("()[]{}<>", k=2 * count)
    return [str(rng.randint(0, 10 ** rng.randint(1, 4))) for _ in range(count)]


def generate(rng: Random, level: int) -> Problem:
    """Repeat a list, say what follows or belongs to a word, spell words, or reverse numbers."""
    count = rng.randint(4, 4 + 12 * level)
    kind = rng.random()
    if kind < 0.35:
        items = _items(rng, count)
        problem, thought, answer = f"Repeat: {' '.join(items)}", " ".join(items), items[-1]
    elif kind < 0.6:
        words = _words(rng, count)
        asked = rng.sample(range(count - 1), count - 1)
        problem = f"List: {' '.join(words)}. What follows: {' '.join(words[i] for i in asked)}"
        thought = "\n".join(f"- {words[i]} {words[i + 1]}" for i in asked)
        answer = words[asked[-1] + 1]
    elif kind < 0.75:
        count = min(count, 10)
        names, things = draw_names(rng, count), _words(rng, count)
        sentences = [f"{n} has {t}." for n, t in zip(names, things, strict=True)]
        asked = rng.sample(range(count), count)
        problem = f"{' '.join(sentences)} Say what these have: {' '.join(names[i] for i in asked)}"
        thought = "\n".join(f"- {names[i]} {things[i]}" for i in asked)
        answer = things[asked[-1]]
    elif kind < 0.92:
        words = [_word(rng).lower() for _ in range(min(count, 8))]
        problem, answer = f"Spell: {' '.join(words)}", words[-1]
        thought = "\n".join(f"- {word}: {' '.join(word)}" for word in words)
    else:
        numbers = [str(rng.randint(0, 10 ** rng.randint(1, 5))) for _ in range(min(count, 5))]
        problem = f"Reverse the digits: {' '.join(numbers)}"
        thought = " ".join(n[::-1] for n in numbers)
        answer = numbers[-1]  # turned back again: both directions are practised
    return Problem(
        problem=problem, thought=thought, answer=answer, family="copying", level=level, keys=()
    )


def verify(problem: Problem) -> bool:
    """Look the thought and the answer up in the text."""
    text, lines = problem.problem, problem.thought.split("\n")
    question, asked = text.rsplit(": ", 1)
    if question == "Repeat":
        return problem.thought == asked and problem.answer == asked.split()[-1]
    if question == "Spell":
        spelt = [line.split(":")[1].replace(" ", "") for line in lines]
        return asked.split() == spelt and problem.answer == spelt[-1]
    if question == "Reverse the digits":
        turned = [number[::-1] for number in asked.split()]
        return turned == problem.thought.split() and problem.answer == asked.split()[-1]
    if question.startswith("List: "):
        words = question.removeprefix("List: ").removesuffix(". What follows").split()
        answers = dict(itertools.pairwise(words))
    else:
        answers = dict(re.findall(r"(\w+) has (\w+)\.", text))
    told = [f"- {word} {answers[word]}" for word in asked.split()]
    return lines == told and problem.answer == answers[asked.split()[-1]]
