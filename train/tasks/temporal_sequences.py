"""When somebody could have been where nobody saw them, in BIG-Bench-Hard's wording.

The thought copies row after row as the text goes on, leaving out what was done, and stops at the
first start that is not the end of the row before; then it tries the options one by one:

    Todd woke up at 10am.
    Ida from 10am to 12pm.
    Theresa from 3pm gap
    12pm to 3pm
    (A) 10am to 12pm no
    (B) 12pm to 3pm yes

The end of a row and the name of the next stand side by side in the text as in the thought.
"""

import re
from itertools import pairwise
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.choices import LETTERS, letter_of, render_options
from falcon_h1r.train.tasks.names import NAMES, draw_names
from falcon_h1r.train.tasks.scenes import PLACES, activity

_HEAD = "Today, {who} went to the {place}. Between what times could they have gone?\nWe know that:"
_ASKED = "Between what times could {who} have gone to the {place}?"
_SPAN = r"(\S+m) to (\S+m)"


def clock(minutes: int) -> str:
    """Minutes since midnight as "7am", "12pm" or "7:30pm"."""
    hour, minute = divmod(minutes, 60)
    text = str((hour - 1) % 12 + 1) + (f":{minute:02}" if minute else "")
    return text + ("am" if hour < 12 else "pm")


def _minutes(text: str) -> int:
    hour, _, minute = text[:-2].partition(":")
    return int(hour) % 12 * 60 + int(minute or 0) + (720 if text.endswith("pm") else 0)


def _times(rng: Random, sightings: int, step: int) -> list[int]:
    """Ordered borders of the day's spans, one more than there are spans."""
    slots = range(5 * 60 // step, 23 * 60 // step)
    first = rng.choice(slots[: len(slots) - sightings - 1])
    later = rng.sample(range(first + 1, slots[-1] + 1), sightings + 1)
    return [t * step for t in (first, *sorted(later))]


def _known(rng: Random, count: int) -> list[str]:
    return rng.sample(NAMES, count)


def generate(rng: Random, level: int) -> Problem:
    """Three sightings (level 2: up to six; level 3: up to nine, half hours, or out of order)."""
    low, high = ((3, 3), (3, 6), (5, 9))[level - 1]
    sightings = rng.randint(low, high)
    borders = _times(rng, sightings, 30 if level == 3 else 60)
    spans = [(clock(a), clock(b)) for a, b in pairwise(borders)]
    free = rng.randrange(len(spans))
    people = draw_names if rng.random() < 0.15 else _known
    who, *others = people(rng, 1 + sightings)
    place = rng.choice(PLACES)
    seen = [s for i, s in enumerate(spans) if i != free]
    told = [f"{other} saw {who} {activity(rng)} from {a} to {b}."
            for other, (a, b) in zip(others, seen, strict=True)]  # fmt: skip
    if level == 3 and sightings < 7:
        rng.shuffle(told)
    text = "\n".join([
        _HEAD.format(who=who, place=place), f"{who} woke up at {clock(borders[0])}.", *told,
        f"The {place} was closed after {clock(borders[-1])}.",
        _ASKED.format(who=who, place=place),
    ])  # fmt: skip
    options = [spans[free], *rng.sample(seen, 3)]
    rng.shuffle(options)
    choices = [" to ".join(span) for span in options]
    text += f"\n{render_options(choices)}"
    answer = f"({letter_of(choices, ' to '.join(spans[free]))})"
    lines = [f"{who} woke up at {clock(borders[0])}."]
    lines += [f"{o} from {a} to {b}." for o, (a, b) in zip(others, spans[:free], strict=False)]
    until = f"The {place} was closed after" if free == len(seen) else f"{others[free]} from"
    lines += [f"{until} {spans[free][1]} gap", " to ".join(spans[free])]
    for letter, choice in zip(LETTERS, choices, strict=False):
        right = f"({letter})" == answer
        lines.append(f"({letter}) {choice} {'yes' if right else 'no'}")
        if right:
            break
    return Problem(
        problem=text,
        thought="\n".join(lines),
        answer=answer,
        family="temporal_sequences",
        level=level,
        keys=(f"temporal {who} {place} {free} " + " ".join(map(str, borders)),),
    )


def verify(problem: Problem) -> bool:
    """Paint the sightings on the day and see which option is left blank; check each line."""
    facts, _, asked = problem.problem.partition("Options:\n")
    woke = re.search(r"\w+ woke up at (\S+)\.", facts)
    closed = re.search(r"The .+ was closed after (\S+)\.", facts)
    if woke is None or closed is None:
        return False
    blank = set(range(_minutes(woke[1]), _minutes(closed[1]), 30))
    sightings = re.findall(rf"(\w+) saw .+ from {_SPAN}\.", facts)
    for _, start, end in sightings:
        blank -= set(range(_minutes(start), _minutes(end), 30))
    options = re.findall(rf"(\([A-D]\)) ({_SPAN})", asked)
    right = [
        letter
        for letter, _, start, end in options
        if set(range(_minutes(start), _minutes(end), 30)) == blank
    ]
    met = {f"{who} from {start} gap": start for who, start, _ in sightings}
    met[f"{closed[0][:-1]} gap"] = closed[1]
    steps = {f"{who} from {start} to {end}.": (start, end) for who, start, end in sightings}
    first, *lines = problem.thought.split("\n")
    now = woke[1]
    while lines and lines[0] in steps:
        start, end = steps[lines.pop(0)]
        if start != now:
            return False
        now = end
    if right != [problem.answer] or first != woke[0] or not lines or lines[0] not in met:
        return False
    tried = [f"{now} to {met[lines[0]]}"]
    for letter, span, _, _ in options:
        tried.append(f"({letter[1]}) {span} {'yes' if letter == right[0] else 'no'}")
        if letter == right[0]:
            break
    return lines[1:] == tried
