"""Solves reasoning_about_colored_objects from its text, and writes the thought once more."""

import re

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.choices import LETTERS, NUMBER_WORDS, read_options

_COLOR_TEXT = (
    "red orange yellow green blue brown magenta fuchsia mauve teal turquoise burgundy silver gold "
    "black grey purple pink"
)
COLORS = _COLOR_TEXT.split()
"""The options of every question for a colour, in their order."""
GENERAL = ("objects", "things", "items")


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
    if words[-1] in GENERAL and words[0] in COLORS:
        return color == words[0]
    return noun == asked or plural(noun) == asked or noun == plural(asked)


_BESIDE = re.compile(r"(?:(left|right) of|(furthest) from) the (.+)\?")
_REMOVAL = re.compile(r"If I remove all the (.+) from the \w+, how many (.+) remain")


def _place_of(name: str, things: list[tuple[int, str, str]]) -> tuple[int, str]:
    """Where "mitten" or "teal thing" stands, and the word that tells it."""
    words = name.split()
    if len(words) == 2 and words[1] + "s" in GENERAL and words[0] in COLORS:
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
    return words[0] if words[-1] in GENERAL and words[0] in COLORS else asked


def _color_line(color: str) -> str:
    return f"- {color} {LETTERS[COLORS.index(color)]}"


def _parts(things: list[tuple[int, str, str]], numbers: bool) -> list[str]:
    """The things in the words of the text."""
    parts = []
    for count, color, noun in things:
        first = NUMBER_WORDS[count] if numbers else "an" if color[0] in "aeiou" else "a"
        parts.append(f"{first} {color} {noun}")
    parts[-1] = f"and {parts[-1]}"
    return parts


def _walk_counts(text: str) -> list[str] | None:
    """The chain of "neither" and of a removal, without its last line."""
    things, question = _read(text)
    lines, total = [], 0
    if match := re.search(r"neither (\w+) nor (\w+)\?", question):
        for (_, color, _), part in zip(things, _parts(things, False), strict=True):
            fate = "same" if color in match.groups() else "other"
            total += fate == "other"
            lines.append(f"- {part}: {color} {fate} {total}")
        return [match[0].removesuffix("?"), *lines]
    match = _REMOVAL.match(question)
    if match is None:
        return None
    nouns = [_bare(asked) == asked for asked in match.groups()]
    colors = not all(nouns)
    for (count, color, noun), part in zip(things, _parts(things, True), strict=True):
        before, shown = str(total)[::-1], f": {color}" if colors else ""
        if nouns[0] and _matches(match[1], color, noun):
            lines.append(f"- {part} gone {before}")
        elif nouns[1] and not _matches(match[2], color, noun):
            lines.append(f"- {part} no {before}")
        elif _matches(match[1], color, noun):
            lines.append(f"- {part}{shown} gone {before}")
        elif _matches(match[2], color, noun):
            total += count
            lines.append(f"- {part}{shown} yes {before}+{count}={str(total)[::-1]}")
        else:
            lines.append(f"- {part}{shown} no {before}")
    return [f"remove {_bare(match[1])}, {_bare(match[2])}", *lines]


def _walk_row(text: str, value: str) -> list[str]:
    """The chain of a question about a row, without its last line where that is a number."""
    things, question = _read(text)
    lines = [f"{i} {part}" for i, part in enumerate(_parts(things, False), 1)]
    if match := re.search(r"of the (left-most|right-most)", question):
        end = 1 if match[1] == "left-most" else len(lines)
        return [match[1], *lines[:end], _color_line(value)]
    match = _BESIDE.search(question)
    assert match is not None
    start = _place_of(match[3], things)[0]
    colors = [color for _, color, _ in things]
    by_color = match[3].split()[0] == colors[start] and match[3] != things[start][2]
    named = [f": {color}" if by_color else "" for color in colors]
    found = [f"{line}{named[i]} {'yes' if i == start else 'no'}" for i, line in enumerate(lines)]
    header = match[0].removesuffix("?")
    if match[2]:
        after = len(things) - 1 - start
        last = f"{start} left {after} right {'last' if after > start else 'first'}"
        return [header, *found, last, _color_line(value)]
    count_of = re.match(r"How many (non-(\w+)) ", question)
    if count_of is None:
        after_it = lines[start + 1 : start + 2] if match[1] == "right" else []
        return [header, *found[: start + 1], *after_it, _color_line(value)]
    left = match[1] == "left"
    span = range(start) if left else range(start + 1, len(things))
    told = []
    for i in span:
        others = sum(things[j][1] != count_of[2] for j in span if j <= i)
        fate = "same" if things[i][1] == count_of[2] else "other"
        told.append(f"{found[i] if left else lines[i]}: {colors[i]} {fate} {others}")
    walked = [*told, found[start]] if left else [*found[: start + 1], *told]
    return [f"{count_of[1]} {header}", *walked]


def walk(text: str, value: str) -> list[str]:
    """The lines that lead to `value`, written once more from the text."""
    things, question = _read(text)
    lines = _walk_counts(text)
    one = re.match(r"What color is (the .+)\?|Is (the .+) (\w+)\?", question)
    if one:
        noun = (one[1] or one[2]).removeprefix("the ")
        place = next(i for i, thing in enumerate(things) if thing[2] == noun)
        parts = _parts(things, False)[: place + 1]
        lines = [f"- {p} {'yes' if i == place else 'no'}" for i, p in enumerate(parts)]
        if one[1]:
            return [one[1], *lines, _color_line(value)]
        judged = f"- {things[place][1]} = {one[3]} {value}"
        return [f"{one[2]} {one[3]}", *lines, judged, f"- {value} {'A' if value == 'yes' else 'B'}"]
    lines = lines or _walk_row(text, value)
    if value in NUMBER_WORDS:
        total = NUMBER_WORDS.index(value)
        lines.append(f"- {total} {value} {LETTERS[total]}")
    return lines


def verify(problem: Problem) -> bool:
    """Solve the text from its list of things, and write the lines once more."""
    value = solve(problem.problem)
    letter = LETTERS[read_options(problem.problem).index(value)]
    lines = walk(problem.problem, value)
    return problem.answer == f"({letter})" and problem.thought == "\n".join(lines)
