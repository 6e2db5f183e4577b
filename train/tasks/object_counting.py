"""Counting things of a kind in BIG-Bench-Hard's wording: "I have a flute and two lamps. How many
musical instruments do I have?"

Each thing is copied with its number, then judged: counted things carry the sum on, others do not.
"""

import re
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.nouns import KINDS, article
from falcon_h1r.train.tasks.steps import check_steps, reverse

_NUMBERS_TEXT = "one two three four five six seven eight nine ten eleven twelve"
_NUMBERS = _NUMBERS_TEXT.split()
_KIND_OF = {
    form: kind for kind, things in KINDS.items() for pair in things.items() for form in pair
}


def _phrase(noun: str, many: str, count: int) -> str:
    return f"{article(noun)} {noun}" if count == 1 else f"{_NUMBERS[count - 1]} {many}"


def _draw_count(rng: Random, level: int) -> int:
    if level == 3:
        return rng.choice((1, rng.randint(2, 12)))
    return 1 if rng.random() < 0.65 else rng.randint(2, 5)


def generate(rng: Random, level: int) -> Problem:
    """Two to four things; level 2 up to twelve; level 3 up to eighteen, up to twelve of each."""
    low, high = ((2, 4), (3, 12), (12, 18))[level - 1]
    size = rng.randint(low, high)
    kind = rng.choice([*KINDS, "objects"])
    others = [k for k in KINDS if k not in (kind, "fruits", "vegetables")]
    if kind in ("musical instruments", "animals"):
        others.append(rng.choice(("fruits", "vegetables")))
    if kind == "objects":
        # Everything is an object: mostly household things, now and then a mixture.
        others, strange = list(KINDS), (0 if rng.random() < 0.75 else rng.randint(1, size))
    else:
        strange = min(size - 1, rng.choice((0, 0, 1, 2, 3, 4))) if level < 3 else size // 3
    pool = list(KINDS[kind].items())
    foreign = [item for other in rng.sample(others, min(2, len(others)))
               for item in KINDS[other].items()]  # fmt: skip
    things = dict(rng.sample(pool, min(size - strange, len(pool))))
    things |= dict(rng.sample(foreign, strange))
    listed = list(things.items())
    rng.shuffle(listed)
    total = 0
    phrases, lines = [], []
    for noun, many in listed:
        count = _draw_count(rng, level)
        phrase = _phrase(noun, many, count)
        phrases.append(phrase)
        if kind == "objects" or noun in KINDS[kind]:
            lines.append(f"- {phrase}:{reverse(total)}+{reverse(count)}={reverse(total + count)}")
            total += count
        else:
            lines.append(f"- {phrase}:no")
    comma = "," if len(phrases) > 2 else ""
    text = f"I have {', '.join(phrases[:-1])}{comma} and {phrases[-1]}."
    return Problem(
        problem=f"{text} How many {kind} do I have?",
        thought="\n".join([*lines, f"= {reverse(total)}"]),
        answer=str(total),
        family="object_counting",
        level=level,
        keys=(f"object_counting {kind}: {' '.join(sorted(phrases))}",),
    )


def verify(problem: Problem) -> bool:
    """Count again from the text alone; each line copies its thing and adds it or refuses it."""
    match = re.fullmatch(r"I have (.*?),? and (.*)\. How many (.*) do I have\?", problem.problem)
    if match is None:
        return False
    *lines, last = problem.thought.split("\n")
    phrases = [*match[1].split(", "), match[2]]
    if len(lines) != len(phrases):
        return False
    total = 0
    for phrase, line in zip(phrases, lines, strict=True):
        number, thing = phrase.split(" ", 1)
        verdict = "no"
        if match[3] in ("objects", _KIND_OF[thing]):
            count = 1 if number in ("a", "an") else _NUMBERS.index(number) + 1
            verdict = f"{reverse(total)}+{reverse(count)}={reverse(total + count)}"
            total += count
        if line != f"- {phrase}:{verdict}":
            return False
    return (
        str(total) == problem.answer
        and last == f"= {reverse(total)}"
        and check_steps(problem.thought)
    )
