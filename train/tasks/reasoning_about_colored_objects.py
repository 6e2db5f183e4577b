"""Colours and counts of things in BIG-Bench-Hard's wording (reasoning_about_colored_objects).

The chain copies the words of the question, then the listed things one by one as the text has them,
each judged by itself, up to the one that is asked for (numbered in a row). What is judged stands
last before the verdict: where it is the colour, it is written once more behind the noun, after what
the noun decides. A number is carried along; the last thing begins with "and". `colored_checks`
solves the text again.

    right of the mitten       neither red nor blue               remove mittens, teal
    1 a teal flute no         - a teal flute: teal other 1       - two teal mittens gone 0
    2 a pink mitten yes       - a red cup: red same 1            - one teal flute: teal yes 0+1=1
    3 and a red cup           - and a pink mitten: pink other 2  - and one red flute: red no 1
    - red A                   - 2 two C                          - 1 one B
"""

from dataclasses import dataclass
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.choices import (
    LETTERS,
    NUMBER_WORDS,
    enumerate_nouns,
    render_options,
    with_article,
)
from falcon_h1r.train.tasks.colored_checks import COLORS, GENERAL, plural, verify
from falcon_h1r.train.tasks.steps import reverse
from falcon_h1r.train.tasks.things import COLORS as _ALL_COLORS
from falcon_h1r.train.tasks.things import THINGS, draw_nouns

__all__ = ["generate", "verify"]

_PLACES = ("desk", "table", "floor", "nightstand", "shelf", "bench", "carpet")
Thing = tuple[str, str]
"""Colour and noun."""


@dataclass(kw_only=True, slots=True)
class Asked:
    """A question with its chain, the value of its answer and its options."""

    text: str
    lines: list[str]
    value: str
    options: list[str]


def _number_options(rng: Random, count: int) -> list[str]:
    return NUMBER_WORDS[: max(count + 1, 7)] if rng.random() < 0.9 else NUMBER_WORDS[: count + 3]


def _draw_nouns(rng: Random, count: int) -> list[str]:
    """Nouns without a colour in them, pairs and sheets of something at times."""
    nouns = [n for n in draw_nouns(rng, THINGS, count + 3) if n.split()[0] not in _ALL_COLORS]
    if rng.random() < 0.15:
        nouns[0] = rng.choice((f"pair of {plural(nouns[0])}", f"sheet of {nouns[0]}"))
    return nouns[:count] if len(nouns) >= count else _draw_nouns(rng, count)


def _draw_things(rng: Random, count: int) -> list[Thing]:
    """Things of different nouns; colours are different, or one is repeated at times."""
    nouns = _draw_nouns(rng, count)
    return list(zip(rng.sample(COLORS, count), nouns, strict=True))


def _open(rng: Random, things: list[Thing], row: bool) -> tuple[str, str]:
    """The sentence that lists the things, and the general word in it."""
    place, general = rng.choice(_PLACES), rng.choice(GENERAL)
    listed = enumerate_nouns([with_article(f"{color} {noun}") for color, noun in things])
    if row:
        words = rng.choice((
            f"a set of {general}", f"several {general}", f"a bunch of {general}",
            f"the following {general}",
        ))  # fmt: skip
        return f"On the {place}, you see {words} arranged in a row: {listed}. ", general
    seen = rng.choice(("you see", "I see", "there is"))
    return f"On the {place}, {seen} {listed}. ", general


def _quoted(things: list[Thing]) -> list[str]:
    """The things as the text lists them, the last behind "and"."""
    parts = [with_article(f"{color} {noun}") for color, noun in things]
    return [*parts[:-1], f"and {parts[-1]}"]


def _color_line(color: str) -> str:
    return f"- {color} {LETTERS[COLORS.index(color)]}"


def _count_line(total: int) -> str:
    return f"- {total} {NUMBER_WORDS[total]} {LETTERS[total]}"


def _search(header: str, things: list[Thing], found: int) -> list[str]:
    """The words of the question, and the things up to the one that is meant."""
    lines = [f"- {part} no" for part in _quoted(things)[: found + 1]]
    lines[-1] = f"{lines[-1].removesuffix(' no')} yes"
    return [header, *lines]


def _ask_color(rng: Random, things: list[Thing]) -> Asked:
    found = rng.randrange(len(things))
    color, noun = things[found]
    lines = [*_search(f"the {noun}", things, found), _color_line(color)]
    return Asked(text=f"What color is the {noun}?", lines=lines, value=color, options=COLORS)


def _ask_whether(rng: Random, things: list[Thing]) -> Asked:
    found = rng.randrange(len(things))
    own, noun = things[found]
    yes = rng.random() < 0.5
    color = own if yes else rng.choice([c for c in COLORS if c != own])
    value = "yes" if yes else "no"
    lines = [*_search(f"the {noun} {color}", things, found), f"- {own} = {color} {value}"]
    lines.append(f"- {value} {'A' if yes else 'B'}")
    return Asked(text=f"Is the {noun} {color}?", lines=lines, value=value, options=["yes", "no"])


def _ask_neither(rng: Random, things: list[Thing]) -> Asked:
    colors = rng.sample(COLORS, 2)
    if rng.random() < 0.7:
        colors[0] = rng.choice(things)[0]
    if rng.random() < 0.6:
        colors[1] = rng.choice(things)[0]
    if colors[0] == colors[1]:
        return _ask_neither(rng, things)
    rng.shuffle(colors)
    asked = f"neither {colors[0]} nor {colors[1]}"
    lines, total = [asked], 0
    for (color, _), part in zip(things, _quoted(things), strict=True):
        total += color not in colors
        lines.append(f"- {part}: {color} {'same' if color in colors else 'other'} {total}")
    lines.append(_count_line(total))
    return Asked(text=f"How many {rng.choice(GENERAL)} are {asked}?", lines=lines,
                 value=NUMBER_WORDS[total], options=_number_options(rng, len(things)))  # fmt: skip


def _numbered(things: list[Thing]) -> list[str]:
    return [f"{i} {part}" for i, part in enumerate(_quoted(things), 1)]


def _with_colors(lines: list[str], things: list[Thing]) -> list[str]:
    """The colour once more behind each noun."""
    return [f"{line}: {color}" for line, (color, _) in zip(lines, things, strict=True)]


def _ask_row(rng: Random, things: list[Thing], general: str) -> Asked:
    """The colour of a neighbour, of the thing furthest away, or of an end of the row."""
    lines, count = _numbered(things), len(things)
    word = general[:-1]
    kind = rng.choice(("left", "right", "left", "right", "furthest", "end"))
    if kind == "end":
        place = rng.choice((0, count - 1))
        side = "left" if place == 0 else "right"
        text = f"What is the color of the {side}-most {word}?"
        lines = [f"{side}-most", *(lines if place else lines[:1]), _color_line(things[place][0])]
        return Asked(text=text, lines=lines, value=things[place][0], options=COLORS)
    places = {"left": range(1, count), "right": range(count - 1)}.get(kind, range(count))
    start = rng.choice(places)
    if kind == "furthest" and 2 * start == count - 1:
        start = 0
    by_noun = rng.random() < 0.6
    name = things[start][1] if by_noun else f"{things[start][0]} {word}"
    place = start + {"left": -1, "right": 1}.get(kind, 0)
    words = f"directly to the {kind} of"
    if kind == "furthest":
        place, words = count - 1 if 2 * start < count - 1 else 0, "furthest from"
    seen = lines if by_noun else _with_colors(lines, things)
    lines = [f"{line} {'yes' if i == start else 'no'}" for i, line in enumerate(seen)]
    end = count if kind == "furthest" else start + 1
    lines = [f"{words.removeprefix('directly to the ')} the {name}", *lines[:end]]
    if kind == "right":
        lines.append(_numbered(things)[place])
    if kind == "furthest":
        lines.append(f"{start} left {count - 1 - start} right {'last' if place else 'first'}")
    lines.append(_color_line(things[place][0]))
    text = f"What is the color of the {word} {words} the {name}?"
    return Asked(text=text, lines=lines, value=things[place][0], options=COLORS)


def _ask_side(rng: Random, things: list[Thing], general: str) -> Asked:
    """How many things of another colour stand on one side of a thing."""
    start = rng.randrange(len(things))
    side = "left" if rng.random() < start / (len(things) - 1) else "right"
    color = rng.choice(things)[0] if rng.random() < 0.6 else rng.choice(COLORS)
    by_noun = rng.random() < 0.5
    name = things[start][1] if by_noun else f"{things[start][0]} {general[:-1]}"
    lines, total = [f"non-{color} {side} of the {name}"], 0
    numbered = _numbered(things)
    told = numbered if by_noun else _with_colors(numbered, things)  # judged by name
    for i, (own, _) in enumerate(things):
        if side == "left" and i == start:
            lines.append(f"{told[i]} yes")
            break
        if side == "right" and i <= start:
            lines.append(f"{told[i]} {'yes' if i == start else 'no'}")
            continue
        total += own != color
        judged = f"{own} {'same' if own == color else 'other'} {total}"
        lines.append(f"{told[i]} no: {judged}" if side == "left" else f"{numbered[i]}: {judged}")
    lines.append(_count_line(total))
    text = f"How many non-{color} {general} do you see to the {side} of the {name}?"
    return Asked(text=text, lines=lines, value=NUMBER_WORDS[total],
                 options=_number_options(rng, len(things)))  # fmt: skip


def _groups(rng: Random, count: int) -> tuple[list[tuple[int, Thing]], list[str], list[str]]:
    """Groups of one to three things out of a few colours and nouns."""
    colors = rng.sample(COLORS, rng.randint(2, min(4, count)))
    nouns = _draw_nouns(rng, rng.randint(2, min(4, count)))
    pairs = [(c, n) for c in colors for n in nouns]
    chosen = rng.sample(pairs, min(count, len(pairs)))
    return [(rng.randint(1, 3), pair) for pair in chosen], colors, nouns


def _count_after_removal(rng: Random, count: int) -> tuple[str, Asked]:
    """Groups of things, some are removed: how many of a colour or of a noun remain?"""
    groups, colors, nouns = _groups(rng, count)
    while sum(n for n, _ in groups) > 16:
        groups, colors, nouns = _groups(rng, count)
    place, general = rng.choice(_PLACES), rng.choice(GENERAL)
    parts = [f"{NUMBER_WORDS[n]} {c} {t if n == 1 else plural(t)}" for n, (c, t) in groups]
    seen = rng.choice(("there is" if groups[0][0] == 1 else "there are", "you see", "I see"))
    by_color, asks_color = rng.random() < 0.5, rng.random() < 0.5
    gone = rng.choice(colors if by_color else nouns)
    left = [thing[not asks_color] for _, thing in groups if gone not in thing]
    pool = left if left and rng.random() < 0.9 else colors if asks_color else nouns
    asked = rng.choice([w for w in pool if w != gone])
    removed = f"{gone} {general}" if by_color else plural(gone)
    counted = f"{asked} {general}" if asks_color else plural(asked)
    shown = counted.removesuffix(f" {general}")
    lines, total = [f"remove {removed.removesuffix(f' {general}')}, {shown}"], 0
    for (n, thing), part in zip(groups, [*parts[:-1], f"and {parts[-1]}"], strict=True):
        color, noun = thing
        told = f": {color} " if asks_color or by_color else " "
        if noun == gone:
            fate = f" gone {reverse(total)}"
        elif not asks_color and noun != asked:
            fate = f" no {reverse(total)}"
        elif color == gone:
            fate = f"{told}gone {reverse(total)}"
        elif asks_color and color != asked:
            fate = f"{told}no {reverse(total)}"
        else:
            fate = f"{told}yes {reverse(total)}+{n}={reverse(total + n)}"
            total += n
        lines.append(f"- {part}{fate}")
    lines.append(_count_line(total))
    text = f"If I remove all the {removed} from the {place}, how many {counted} remain on it?"
    opening = f"On the {place}, {seen} {enumerate_nouns(parts)}. "
    options = NUMBER_WORDS if rng.random() < 0.9 else NUMBER_WORDS[: total + 3]
    return opening, Asked(text=text, lines=lines, value=NUMBER_WORDS[total], options=options)


def generate(rng: Random, level: int) -> Problem:
    """Two to four things (1), up to seven (2), up to nine things or ten groups (3)."""
    low, high = ((2, 4), (3, 6), (6, 9))[level - 1]
    count = rng.randint(low, high)
    kind = rng.random()
    if kind < 0.25:
        opening, asked = _count_after_removal(rng, count + (level > 1))
    else:
        things = _draw_things(rng, count)
        row = kind < 0.65
        opening, general = _open(rng, things, row)
        if row:
            asked = (_ask_row if kind < 0.5 else _ask_side)(rng, things, general)
        else:
            asked = rng.choice((_ask_color, _ask_whether, _ask_neither, _ask_neither))(rng, things)
    letter = LETTERS[asked.options.index(asked.value)]
    text = opening + asked.text
    return Problem(
        problem=f"{text}\n{render_options(asked.options)}",
        thought="\n".join(asked.lines),
        answer=f"({letter})",
        family="reasoning_about_colored_objects",
        level=level,
        keys=(f"colored {text}",),
    )
