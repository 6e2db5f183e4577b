"""Adjective order in BIG-Bench-Hard's wording: "Which sentence has the correct adjective order"

The thought ranks the adjectives of one option after the other until one of them rises throughout:

    A: rubber7 gray5 no / B: midsize2 gray5 Mexican6 rubber7 ok
"""

import re
from random import Random

from falcon_h1r.train.tasks.adjectives import CLASSES, RANK
from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.choices import render_options
from falcon_h1r.train.tasks.nouns import ANIMALS, HOUSEHOLD, INSTRUMENTS

_HEAD = "Which sentence has the correct adjective order:\n"
_THING_TEXT = (
    "airplane book boat box computer dress driver game hat helmet jacket motorcycle monster "
    "pencil phone ship shirt shoe skirt surfboard sweater sword tractor train tree truck wheel"
)
_NOUNS = [*ANIMALS, *HOUSEHOLD, *INSTRUMENTS, *_THING_TEXT.split()]


def _ranked(adjectives: list[str]) -> tuple[str, bool]:
    """The adjectives with their ranks up to the first that falls, and whether none does."""
    text, last = "", 0
    for word in adjectives:
        rank = RANK[word]
        text += f" {word}{rank}"
        if rank < last:
            return text + " no", False
        last = rank
    return text + " ok", True


def generate(rng: Random, level: int) -> Problem:
    """Two sentences of two or three adjectives; level 2 up to six; level 3 more of both."""
    low, high = ((2, 3), (2, 6), (5, 8))[level - 1]
    count = 2 if level < 3 else rng.randint(3, 5)
    chosen = sorted(rng.sample(range(len(CLASSES)), rng.randint(low, high)))
    right = [rng.choice(CLASSES[i]) for i in chosen]
    orders = {tuple(right): None}
    while len(orders) < count:
        wrong = list(right)
        if rng.random() < 0.5:
            rng.shuffle(wrong)
        else:
            wrong.insert(rng.randrange(len(wrong)), wrong.pop(rng.randrange(len(wrong))))
        orders.setdefault(tuple(wrong))
    sentences = [list(order) for order in orders]
    rng.shuffle(sentences)
    noun = rng.choice(_NOUNS)
    lines = []
    for letter, sentence in zip("ABCDE", sentences, strict=False):
        text, rises = _ranked(sentence)
        lines.append(f"{letter}:{text}")
        if rises:
            break
    options = render_options([f"{' '.join(sentence)} {noun}" for sentence in sentences])
    return Problem(
        problem=_HEAD + options,
        thought="\n".join(lines),
        answer=f"({letter})",
        family="hyperbaton",
        level=level,
        keys=(f"hyperbaton {' '.join(right)} {noun}",),
    )


def verify(problem: Problem) -> bool:
    """Find the one option in the order of the classes; check every rank and verdict."""
    sorted_options, adjectives = [], {}
    for letter, sentence in re.findall(r"\((\w)\) (.*)", problem.problem):
        adjectives[letter] = sentence.split()[:-1]
        ranks = [
            next(i for i, known in enumerate(CLASSES) if word in known)
            for word in adjectives[letter]
        ]
        if ranks == sorted(ranks):
            sorted_options.append(f"({letter})")
    lines = problem.thought.split("\n")
    for line in lines:
        ranked = re.findall(r" ([A-Za-z-]+)(\d)", line)
        words = [word for word, _ in ranked]
        if not words or words != adjectives.get(line[0], [])[: len(words)]:
            return False
        if any(RANK[word] != int(rank) for word, rank in ranked):
            return False
        ranks = [int(rank) for _, rank in ranked]
        if line.split()[-1] != ("ok" if ranks == sorted(ranks) else "no"):
            return False
    return sorted_options == [problem.answer] and problem.answer == f"({lines[-1][0]})"
