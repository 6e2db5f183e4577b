"""Colours and counts of things in BIG-Bench-Hard's wording (reasoning_about_colored_objects).

Things in a row are numbered as they are copied, so that neighbours and ends are found by number;
counts are carried along, one line a thing or a group (sums with reversed digits):

    1 teal flute              not red blue         no mittens, teal
    2 pink mitten             - teal 1             - teal mittens gone
    - mitten 2:1 teal J       - red 1              - teal flute:9+1=01
                              - one B              - ten K
"""

import re
from dataclasses import dataclass
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.choices import (
    LETTERS,
    NUMBER_WORDS,
    enumerate_nouns,
    read_options,
    render_options,
    with_article,
)
from falcon_h1r.train.tasks.steps import reverse
from falcon_h1r.train.tasks.things import COLORS as _ALL_COLORS
from falcon_h1r.train.tasks.things import THINGS, draw_nouns

_COLOR_TEXT = (
    "red orange yellow green blue brown magenta fuchsia mauve teal turquoise burgundy silver gold "
    "black grey purple pink"
)
COLORS = _COLOR_TEXT.split()
"""The options of every question for a colour, in their order."""
_PLACES = ("desk", "table", "floor", "nightstand", "shelf", "bench", "carpet")
_GENERAL = ("objects", "things", "items")
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
    place, general = rng.choice(_PLACES), rng.choice(_GENERAL)
    listed = enumerate_nouns([with_article(f"{color} {noun}") for color, noun in things])
    if row:
        words = rng.choice((
            f"a set of {general}", f"several {general}", f"a bunch of {general}",
            f"the following {general}",
        ))  # fmt: skip
        return f"On the {place}, you see {words} arranged in a row: {listed}. ", general
    seen = rng.choice(("you see", "I see", "there is"))
    return f"On the {place}, {seen} {listed}. ", general


def _color_line(thing: Thing) -> str:
    return f"{thing[0]} {LETTERS[COLORS.index(thing[0])]}"


def _ask_color(rng: Random, things: list[Thing]) -> Asked:
    thing = rng.choice(things)
    lines = [f"- {thing[1]} {_color_line(thing)}"]
    return Asked(text=f"What color is the {thing[1]}?", lines=lines, value=thing[0], options=COLORS)


def _ask_whether(rng: Random, things: list[Thing]) -> Asked:
    thing = rng.choice(things)
    yes = rng.random() < 0.5
    color = thing[0] if yes else rng.choice([c for c in COLORS if c != thing[0]])
    value = "yes" if yes else "no"
    line = f"- {thing[1]} {thing[0]}, {color}:{'same' if yes else 'differ'}"
    return Asked(text=f"Is the {thing[1]} {color}?", lines=[line], value=value,
                 options=["yes", "no"])  # fmt: skip


def _ask_neither(rng: Random, things: list[Thing]) -> Asked:
    colors = rng.sample(COLORS, 2)
    if rng.random() < 0.7:
        colors[0] = rng.choice(things)[0]
    if rng.random() < 0.6:
        colors[1] = rng.choice(things)[0]
    if colors[0] == colors[1]:
        return _ask_neither(rng, things)
    rng.shuffle(colors)
    lines, total = [f"not {colors[0]} {colors[1]}"], 0
    for color, _ in things:
        total += color not in colors
        lines.append(f"- {color} {total}")
    general = rng.choice(_GENERAL)
    return Asked(text=f"How many {general} are neither {colors[0]} nor {colors[1]}?", lines=lines,
                 value=NUMBER_WORDS[total], options=_number_options(rng, len(things)))  # fmt: skip


def _numbered(things: list[Thing]) -> list[str]:
    return [f"{i} {color} {noun}" for i, (color, noun) in enumerate(things, 1)]


def _ask_row(rng: Random, things: list[Thing], general: str) -> Asked:
    """The colour of a neighbour, of the thing furthest away, or of an end of the row."""
    lines, count = _numbered(things), len(things)
    word = general[:-1]
    kind = rng.choice(("left", "right", "left", "right", "furthest", "end"))
    if kind == "end":
        place = rng.choice((0, count - 1))
        side = "left" if place == 0 else "right"
        text = f"What is the color of the {side}-most {word}?"
        lines.append(f"{place + 1} {_color_line(things[place])}")
        return Asked(text=text, lines=lines, value=things[place][0], options=COLORS)
    places = {"left": range(1, count), "right": range(count - 1)}.get(kind, range(count))
    start = rng.choice(places)
    if kind == "furthest" and 2 * start == count - 1:
        start = 0
    name = things[start][1] if rng.random() < 0.6 else f"{things[start][0]} {word}"
    if kind == "furthest":
        place = count - 1 if 2 * start < count - 1 else 0
        text = f"What is the color of the {word} furthest from the {name}?"
    else:
        place = start - 1 if kind == "left" else start + 1
        text = f"What is the color of the {word} directly to the {kind} of the {name}?"
    shown = name.removesuffix(f" {word}") if name != things[start][1] else name
    lines.append(f"- {shown} {start + 1}:{place + 1} {_color_line(things[place])}")
    return Asked(text=text, lines=lines, value=things[place][0], options=COLORS)


def _ask_side(rng: Random, things: list[Thing], general: str) -> Asked:
    """How many things of another colour stand on one side of a thing."""
    start = rng.randrange(len(things))
    side = "left" if rng.random() < start / (len(things) - 1) else "right"
    color = rng.choice(things)[0] if rng.random() < 0.6 else rng.choice(COLORS)
    by_noun = rng.random() < 0.5
    name = things[start][1] if by_noun else f"{things[start][0]} {general[:-1]}"
    lines = [*_numbered(things), f"- {things[start][by_noun]} {start + 1} {side}, not {color}"]
    total = 0
    for i in range(start) if side == "left" else range(start + 1, len(things)):
        total += things[i][0] != color
        lines.append(f"{i + 1} {things[i][0]} {total}")
    text = f"How many non-{color} {general} do you see to the {side} of the {name}?"
    return Asked(text=text, lines=lines, value=NUMBER_WORDS[total],
                 options=_number_options(rng, len(things)))  # fmt: skip


def plural(noun: str) -> str:
    """The plural as the problems write it: "pairs of mittens", "brushes"."""
    head, of, rest = noun.partition(" of ")
    if of:
        return f"{head}s of {rest}"
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("fe"):
        return noun[:-2] + "ves"
    return noun + "s"


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
    place, general = rng.choice(_PLACES), rng.choice(_GENERAL)
    parts = [f"{NUMBER_WORDS[n]} {c} {t if n == 1 else plural(t)}" for n, (c, t) in groups]
    seen = rng.choice(("there is" if groups[0][0] == 1 else "there are", "you see", "I see"))
    by_color, asks_color = rng.random() < 0.5, rng.random() < 0.5
    gone = rng.choice(colors if by_color else nouns)
    left = [thing[not asks_color] for _, thing in groups if gone not in thing]
    pool = left if left and rng.random() < 0.9 else colors if asks_color else nouns
    asked = rng.choice([w for w in pool if w != gone])
    removed = f"{gone} {general}" if by_color else plural(gone)
    counted = f"{asked} {general}" if asks_color else plural(asked)
    lines, total = (
        [f"no {gone if by_color else plural(gone)}, {counted.split(f' {general}')[0]}"],
        0,
    )
    for n, (color, noun) in groups:
        shown = f"- {color} {noun if n == 1 else plural(noun)}"
        if gone in (color, noun):
            lines.append(f"{shown} gone")
        elif asked in (color, noun):
            lines.append(f"{shown}:{reverse(total)}+{n}={reverse(total + n)}")
            total += n
        else:
            lines.append(f"{shown} other")
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
    if asked.value not in COLORS:
        asked.lines.append(f"- {asked.value} {letter}")
    text = opening + asked.text
    return Problem(
        problem=f"{text}\n{render_options(asked.options)}",
        thought="\n".join(asked.lines),
        answer=f"({letter})",
        family="reasoning_about_colored_objects",
        level=level,
        keys=(f"colored {text}",),
    )


_ITEM = re.compile(rf"(?:^|, |and )(?:and )?(\w+) ({'|'.join(COLORS)}) ((?:(?! and |,).)+)")


def _read_things(listing: str) -> list[tuple[int, str, str]]:
    things: list[tuple[int, str, str]] = []
    for number, color, noun in _ITEM.findall(listing):
        count = 1 if number in ("a", "an") else NUMBER_WORDS.index(number)
        things.append((count, color, noun.strip()))
    return things


def _read(text: str) -> tuple[list[tuple[int, str, str]], str]:
    """The things (number, colour, noun as written) and the question."""
    body = text.split("\nOptions:")[0]
    head, question = re.split(r"\. (?=What|How|Is |If )", body, maxsplit=1)
    listing = re.split(r"in a row: |there is |there are |you see |I see ", head)[-1]
    return _read_things(listing), question


def _matches(asked: str, color: str, noun: str) -> bool:
    """Whether "grey objects" or "mugs" names the thing, in whichever number it is written."""
    words = asked.split()
    if words[-1] in _GENERAL and words[0] in COLORS:
        return color == words[0]
    return noun == asked or plural(noun) == asked or noun == plural(asked)


_BESIDE = re.compile(r"(?:(left|right) of|(furthest) from) the (.+)\?")
_REMOVAL = re.compile(r"If I remove all the (.+) from the \w+, how many (.+) remain")


def _place_of(name: str, things: list[tuple[int, str, str]]) -> tuple[int, str]:
    """Where "mitten" or "teal thing" stands, and the word that tells it."""
    words = name.split()
    if len(words) == 2 and words[1] + "s" in _GENERAL and words[0] in COLORS:
        return [color for _, color, _ in things].index(words[0]), words[0]
    return [noun for _, _, noun in things].index(name), name


def solve(text: str) -> str:
    """Answer the question of the text from the list of its things."""
    things, question = _read(text)
    colors = [color for _, color, _ in things]
    if match := re.match(r"What color is the (.+)\?", question):
        return next(c for _, c, noun in things if noun == match[1])
    if match := re.match(r"Is the (.+) (\w+)\?", question):
        color = next(c for _, c, noun in things if noun == match[1])
        return "yes" if color == match[2] else "no"
    if match := re.search(r"neither (\w+) nor (\w+)\?", question):
        return NUMBER_WORDS[sum(n for n, c, _ in things if c not in match.groups())]
    if match := _REMOVAL.match(question):
        left = [t for t in things if not _matches(match[1], t[1], t[2])]
        return NUMBER_WORDS[sum(n for n, c, noun in left if _matches(match[2], c, noun))]
    if match := re.search(r"of the (left|right)-most", question):
        return colors[0 if match[1] == "left" else -1]
    match = _BESIDE.search(question)
    if match is None:
        raise ValueError(f"no such question: {question}")
    start = _place_of(match[3], things)[0]
    if match[2]:
        return max(enumerate(colors), key=lambda pair: abs(pair[0] - start))[1]
    side = colors[:start] if match[1] == "left" else colors[start + 1 :]
    if count := re.match(r"How many non-(\w+) ", question):
        return NUMBER_WORDS[sum(color != count[1] for color in side)]
    return side[-1] if match[1] == "left" else side[0]


def _bare(asked: str) -> str:
    """ "teal" of "teal things", "mittens" as it is."""
    words = asked.split()
    return words[0] if words[-1] in _GENERAL and words[0] in COLORS else asked


def _walk(text: str, value: str) -> list[str]:
    """The lines that lead to `value`, written once more from the text."""
    things, question = _read(text)
    colored = f"{value} {LETTERS[COLORS.index(value)]}" if value in COLORS else ""
    if match := re.match(r"What color is the (.+)\?", question):
        return [f"- {match[1]} {colored}"]
    if match := re.match(r"Is the (.+) (\w+)\?", question):
        color = next(c for _, c, noun in things if noun == match[1])
        return [f"- {match[1]} {color}, {match[2]}:{'same' if value == 'yes' else 'differ'}"]
    if match := re.search(r"neither (\w+) nor (\w+)\?", question):
        lines = [f"not {match[1]} {match[2]}"]
        left = [c not in match.groups() for _, c, _ in things]
        return lines + [f"- {c} {sum(left[: i + 1])}" for i, (_, c, _) in enumerate(things)]
    if match := _REMOVAL.match(question):
        lines, total = [f"no {_bare(match[1])}, {_bare(match[2])}"], 0
        for count, color, noun in things:
            fate = " other"
            if _matches(match[1], color, noun):
                fate = " gone"
            elif _matches(match[2], color, noun):
                fate = f":{reverse(total)}+{count}={reverse(total + count)}"
                total += count
            lines.append(f"- {color} {noun}{fate}")
        return lines
    lines = [f"{i} {color} {noun}" for i, (_, color, noun) in enumerate(things, 1)]
    if match := re.search(r"of the (left|right)-most", question):
        return [*lines, f"{1 if match[1] == 'left' else len(things)} {colored}"]
    match = _BESIDE.search(question)
    if match is None:
        return []
    start, name = _place_of(match[3], things)
    if count_of := re.match(r"How many non-(\w+) ", question):
        lines.append(f"- {name} {start + 1} {match[1]}, not {count_of[1]}")
        side = range(start) if match[1] == "left" else range(start + 1, len(things))
        total = 0
        for i in side:
            total += things[i][1] != count_of[1]
            lines.append(f"{i + 1} {things[i][1]} {total}")
        return lines
    place = 1 + next(i for i, (_, color, _) in enumerate(things) if color == value)
    return [*lines, f"- {name} {start + 1}:{place} {colored}"]


def verify(problem: Problem) -> bool:
    """Solve the text from its list of things, and write the lines once more."""
    value = solve(problem.problem)
    letter = LETTERS[read_options(problem.problem).index(value)]
    lines = _walk(problem.problem, value)
    if value not in COLORS:
        lines.append(f"- {value} {letter}")
    return problem.answer == f"({letter})" and problem.thought == "\n".join(lines)
