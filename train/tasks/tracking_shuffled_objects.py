"""Who holds what after several swaps, in BIG-Bench-Hard's wording (3, 5 or 7 people).

Things are named by their option's letter, so that a book of six words costs one token. Each swap
takes two lines: what the two hold, then what they hold afterwards.

    - Dave D Eve E / - Dave E Eve D
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.choices import enumerate_nouns, render_options
from falcon_h1r.train.tasks.names import NAMES, draw_names
from falcon_h1r.train.tasks.scenes import BALL_COLORS, POSITIONS, book_title

_STANDARD_TEXT = "Alice Bob Claire Dave Eve Fred Gertrude"
_STANDARD = _STANDARD_TEXT.split()
_ORDER = ("First", "Then", "Finally")


@dataclass(frozen=True, slots=True)
class _Story:
    opening: str
    holds: str
    middle: str
    swaps: str
    end: str
    draw: Callable[[Random, int], Sequence[str]]


def _gifts(rng: Random, count: int) -> list[str]:
    return [f"{c} {'ball' if rng.random() < 0.15 else 'present'}"
            for c in rng.sample(BALL_COLORS, count)]  # fmt: skip


def _titles(rng: Random, count: int) -> list[str]:
    titles: dict[str, None] = {}
    while len(titles) < count:
        titles.setdefault(book_title(rng))
    return list(titles)


_STORIES = (
    _Story(
        "are dancers at a square dance. At the start of a song, they each have a partner:",
        "is dancing with {}",
        "Throughout the song, the dancers often trade partners.",
        "switch partners",
        "At the end of the dance, {} is dancing with",
        draw_names,
    ),
    _Story(
        "are friends and avid readers who occasionally trade books. At the start of the semester, "
        "they each buy one new book:",
        "gets {}",
        "As the semester proceeds, they start trading around the new books.",
        "swap books",
        "At the end of the semester, {} has",
        _titles,
    ),
    _Story(
        "are playing a game. At the start of the game, they are each holding a ball:",
        "has a {}",
        "As the game progresses, pairs of players trade balls.",
        "swap balls",
        "At the end of the game, {} has the",
        lambda rng, count: [f"{color} ball" for color in rng.sample(BALL_COLORS, count)],
    ),
    _Story(
        "are on the same team in a soccer match. At the start of the match, they are each "
        "assigned to a position:",
        "is playing {}",
        "As the game progresses, pairs of players occasionally swap positions.",
        "trade positions",
        "At the end of the match, {} is playing",
        lambda rng, count: rng.sample(POSITIONS, count),
    ),
    _Story(
        "are holding a white elephant gift exchange. At the start of the event, they are each "
        "holding a present of a different color:",
        "has a {}",
        "As the event progresses, pairs of people swap gifts.",
        "swap their gifts",
        "At the end of the event, {} has the",
        _gifts,
    ),
)


def _people(rng: Random, count: int) -> list[str]:
    kind = rng.random()
    if kind < 0.35:
        return _STANDARD[:count]
    return rng.sample(NAMES, count) if kind < 0.75 else draw_names(rng, count)


def generate(rng: Random, level: int) -> Problem:
    """Three people and swaps; level 2: five; level 3: seven."""
    count = 1 + 2 * level
    story = rng.choice(_STORIES)
    people = _people(rng, count)
    things = list(story.draw(rng, count))
    swaps = [rng.sample(people, 2) for _ in range(count)]
    words = [_ORDER[0], *[_ORDER[1]] * (count - 2), _ORDER[2]]
    holds = dict(zip(people, "ABCDEFG", strict=False))
    lines = ["- " + " ".join(f"{p} {letter}" for p, letter in holds.items())]
    for a, b in swaps:
        lines.append(f"- {a} {holds[a]} {b} {holds[b]}")
        holds[a], holds[b] = holds[b], holds[a]
        lines.append(f"- {a} {holds[a]} {b} {holds[b]}")
    asked = rng.choice(people)
    lines.append(f"- {asked} {holds[asked]}")
    start = enumerate_nouns(
        [f"{p} {story.holds.format(t)}" for p, t in zip(people, things, strict=True)]
    )
    told = " ".join(
        f"{w}, {a} and {b} {story.swaps}." for w, (a, b) in zip(words, swaps, strict=True)
    )
    return Problem(
        problem=f"{enumerate_nouns(people)} {story.opening} {start}.\n{story.middle} {told} "
        f"{story.end.format(asked)}\n{render_options(things)}",
        thought="\n".join(lines),
        answer=f"({holds[asked]})",
        family="tracking_shuffled_objects",
        level=level,
        keys=(f"tracking {' '.join(people)} {' '.join(f'{a}/{b}' for a, b in swaps)} {asked}",),
    )


def verify(problem: Problem) -> bool:
    """Follow one thing at a time through the text's swaps; check the state of every line."""
    story, _, options = problem.problem.partition("\nOptions:\n")
    letters = {thing: letter for letter, thing in re.findall(r"\((.)\) (.*)", options)}
    opening, _, rest = story.partition("\n")
    holding = r"(\w+) (?:is dancing with|gets|has a|is playing) (.+?)(?=, \w|, and|\.$)"
    given = re.findall(rf"[:,] (?:and )?{holding}", opening)
    if [letters.get(thing) for _, thing in given] != sorted(letters.values()):
        return False
    moves = re.findall(r"(?:First|Then|Finally), (\w+) and (\w+) ", rest)
    asked = re.search(r"At the end of the \w+, (\w+) ", rest)
    holder_of: dict[str, list[str]] = {}
    for first, thing in given:
        place = [first]
        for a, b in moves:
            place.append({a: b, b: a}.get(place[-1], place[-1]))
        holder_of[letters[thing]] = place
    lines = [line.removeprefix("- ").split() for line in problem.thought.split("\n")]
    for number, words in enumerate(lines):
        after = min(number // 2, len(moves))
        state = {letter: place[after] for letter, place in holder_of.items()}
        if any(state.get(b) != a for a, b in zip(words[::2], words[1::2], strict=True)):
            return False
    return (
        asked is not None
        and len(lines) == 2 * len(moves) + 2
        and f"({lines[-1][1]})" == problem.answer
        and lines[-1][0] == asked[1]
    )
