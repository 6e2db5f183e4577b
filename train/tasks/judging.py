"""Drills: many small decisions in one problem, as chains about tables, colours and dates take them.

A table's question has a handful of comparisons, and most of what is learnt of it goes into finding
the row. Here one problem compares many numbers (or first letters, or colours with two others), or
writes many dates in digits; every line is one decision on what stands in it.
"""

import re
from collections.abc import Callable
from datetime import date
from itertools import pairwise
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.choices import with_article
from falcon_h1r.train.tasks.colored_checks import COLORS
from falcon_h1r.train.tasks.date_reading import read_date
from falcon_h1r.train.tasks.date_scenes import MONTHS
from falcon_h1r.train.tasks.date_walks import us
from falcon_h1r.train.tasks.names import draw_names
from falcon_h1r.train.tasks.penguin_chains import compare
from falcon_h1r.train.tasks.things import THINGS, draw_nouns

Drill = tuple[str, list[str]]
"""What is asked, and the lines."""
_JUDGE, _LETTERS, _DATES = "Judge: ", "First letters: ", "In digits: "


def _number_pairs(rng: Random, count: int) -> Drill:
    """Numbers beside each other as tables hold them: close ones often, equal ones at times."""
    told: list[tuple[int, str, int]] = []
    for _ in range(count):
        a = rng.choice((rng.randint(1, 20), rng.randint(5, 125), rng.randint(100, 900)))
        near = max(0, a + rng.randint(-12, 12))
        b = rng.choice((a, near, near, rng.randint(1, 3 * a), rng.randint(1, 125)))
        told.append((a, rng.choice("<>=" if rng.random() < 0.4 else "<>"), b))
    asked = ", ".join(f"{a}{sign}{b}" for a, sign, b in told)
    return f"{_JUDGE}{asked}", [compare(*each) for each in told]


def _first_letters(rng: Random, count: int) -> Drill:
    names, sign = draw_names(rng, count), rng.choice("<>")
    lines = [f"- {names[0]}:{names[0][0]}"]
    lines += [f"- {b}:{compare(b[0], sign, a[0])}" for a, b in pairwise(names)]
    return f"{_LETTERS}{', '.join(names)} {sign}", lines


def _colors(rng: Random, count: int) -> Drill:
    """Whether things have one of two colours."""
    one, two = rng.sample(COLORS, 2)
    things = [
        with_article(f"{rng.choice((one, two, *rng.sample(COLORS, 2)))} {noun}")
        for noun in draw_nouns(rng, THINGS, count)
    ]
    asked = f"neither {one} nor {two}"
    lines = []
    for thing in things:
        color = thing.split()[1]
        lines.append(f"- {thing}: {color} {'same' if color in (one, two) else 'other'}")
    return f"{_JUDGE}{asked}: {', '.join(things)}", [asked, *lines]


def _dates(rng: Random, count: int) -> Drill:
    """Dates as stories have them; the day may be missing a digit, the month a name."""
    lines = []
    for _ in range(count):
        day = date.fromordinal(
            rng.randint(date(1900, 1, 1).toordinal(), date(2099, 12, 31).toordinal())
        )
        month = MONTHS[day.month - 1]
        shown = rng.choice((
            f"{month[:3]} {day.day}, {day.year}", f"{month[:3]} {day.day}, {day.year}",
            f"{month} {day.day}, {day.year}", f"{day.month}/{day.day}/{day.year}",
        ))  # fmt: skip
        lines.append(f"{shown} {us(day)}")
    return f"{_DATES}{'; '.join(line.rpartition(' ')[0] for line in lines)}", lines


_KINDS: dict[Callable[[Random, int], Drill], float] = {
    _number_pairs: 4, _first_letters: 1, _colors: 2, _dates: 2,
}  # fmt: skip


def generate(rng: Random, level: int) -> Problem:
    """Four to eight decisions of one kind; up to twelve (2), up to sixteen (3)."""
    kind = rng.choices(list(_KINDS), list(_KINDS.values()))[0]
    asked, lines = kind(rng, rng.randint(4, 4 + 4 * level))
    return Problem(
        problem=asked,
        thought="\n".join(lines),
        answer=lines[-1].rpartition(" ")[2],
        family="judging",
        level=level,
        keys=(),
    )


def _read(asked: str) -> list[str]:
    """The lines once more, from the text alone."""
    if asked.startswith(_LETTERS):
        names, sign = re.findall(r"[A-Z]\w*", asked[len(_LETTERS) :]), asked[-1]
        ordered = sorted({name[0] for name in names}, reverse=sign == ">")
        ranks = [ordered.index(name[0]) for name in names]
        lines = [f"- {names[0]}:{names[0][0]}"]
        for i, name in enumerate(names[1:], 1):
            verdict = "yes" if ranks[i] < ranks[i - 1] else "no"
            lines.append(f"- {name}:{name[0]}{sign}{names[i - 1][0]} {verdict}")
        return lines
    if asked.startswith(_DATES):
        return [f"{text} {us(read_date(text))}" for text in asked[len(_DATES) :].split("; ")]
    words, _, listed = asked[len(_JUDGE) :].rpartition(": ")
    if words:
        lines = []
        for thing in listed.split(", "):
            _, color, *_ = thing.split()
            lines.append(f"- {thing}: {color} {'same' if color in words.split() else 'other'}")
        return [words, *lines]
    lines = []
    for text in listed.split(", "):
        found = re.fullmatch(r"(\d+)([<>=])(\d+)", text)
        difference = int(found[1]) - int(found[3]) if found else 0
        sign = "=" if not difference else "><"[difference < 0]
        lines.append(f"{text} {'yes' if found and found[2] == sign else 'no'}")
    return lines


def verify(problem: Problem) -> bool:
    """Read the text another way and write every line once more."""
    lines = _read(problem.problem)
    return problem.thought.split("\n") == lines and problem.answer == lines[-1].rpartition(" ")[2]
