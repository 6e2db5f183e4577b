"""When somebody could have been where nobody saw them, in BIG-Bench-Hard's wording.

The thought copies each sighting as "7am-11am" and stops at the first one that does not begin when
the last one ended: "2pm-6pm gap 1pm-2pm (B)".
"""

import re
from itertools import pairwise
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.choices import letter_of, render_options
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
    lines = [clock(borders[0])]
    lines += [f"{a}-{b}" for a, b in spans[:free]]
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
    after = f"closed {spans[free][1]}" if free == len(seen) else "-".join(seen[free])
    lines.append(f"{after} gap {'-'.join(spans[free])} {answer}")
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
    woke = re.search(r"woke up at (\S+)\.", facts)
    closed = re.search(r"closed after (\S+)\.", facts)
    if woke is None or closed is None:
        return False
    blank = set(range(_minutes(woke[1]), _minutes(closed[1]), 30))
    seen = re.findall(rf" from {_SPAN}\.", facts)
    for start, end in seen:
        blank -= set(range(_minutes(start), _minutes(end), 30))
    options = {
        letter: set(range(_minutes(start), _minutes(end), 30))
        for letter, start, end in re.findall(rf"(\([A-D]\)) {_SPAN}", asked)
    }
    right = [letter for letter, times in options.items() if times == blank]
    first, *steps, last = problem.thought.split("\n")
    now = first
    for step in steps:
        start, end = step.split("-")
        if start != now or (start, end) not in seen:
            return False
        now = end
    gap = re.fullmatch(r"(closed )?(\S+?)(?:-(\S+))? gap (\S+)-(\S+) (\([A-D]\))", last)
    if gap is None:
        return False
    met = gap[2] == closed[1] if gap[1] else (gap[2], gap[3]) in seen
    return (
        met
        and right == [problem.answer] == [gap[6]]
        and (gap[4], gap[5]) == (now, gap[2])
        and first == woke[1]
    )
