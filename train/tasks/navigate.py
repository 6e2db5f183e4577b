"""Walks in BIG-Bench-Hard's wording (navigate): does one return to the starting point?"""

import re
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.steps import check_steps, reverse

_QUESTION = "If you follow these instructions, do you return to the starting point? "
_OPTIONS = "\nOptions:\n- Yes\n- No"
_COMPASS = "NESW"
_LONGEST = (12, 12, 18)
_RELATIVE = {"forward": 0, "right": 1, "backward": 2, "left": 3}
_TURNS = {"Turn right": 1, "Turn around": 2, "Turn left": 3}


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"


def _facing_forward(rng: Random, length: int) -> list[str]:
    moves = [(rng.randint(1, 10), rng.choice(list(_RELATIVE))) for _ in range(length)]
    if rng.random() < 0.45:
        moves = _closed(rng, moves)
    return [f"Take {_steps(count)} {where}" for count, where in moves]


def _closed(rng: Random, moves: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Append the moves that lead back, and shuffle; too long a way back is left open."""
    east = sum({"right": n, "left": -n}.get(where, 0) for n, where in moves)
    north = sum({"forward": n, "backward": -n}.get(where, 0) for n, where in moves)
    back = [(east, "left", "right"), (north, "backward", "forward")]
    for offset, positive, negative in back:
        while offset:
            count = min(abs(offset), rng.randint(1, 10))
            moves = [*moves, (count, positive if offset > 0 else negative)]
            offset += -count if offset > 0 else count
    rng.shuffle(moves)
    return moves


def _turning(rng: Random, length: int) -> list[str]:
    """Steps and turns; about half of the walks are bent so that they close."""
    sentences: list[str] = []
    if rng.random() < 0.5:
        out = [rng.randint(1, 10) for _ in range(max(1, length // 4))]
        back = list(out)
        rng.shuffle(back)
        sentences = [f"Take {_steps(n)}" for n in out]
        sentences += rng.choice((["Turn around"], ["Turn right"] * 2, ["Turn left"] * 2))
        sentences += [f"Take {_steps(n)}" for n in back]
        for _ in range(rng.randint(0, 2)):
            sentences.insert(rng.choice((0, len(sentences))), rng.choice(list(_TURNS)))
        return sentences
    for _ in range(length):
        turn = rng.random() < 0.35
        sentences.append(rng.choice(list(_TURNS)) if turn else f"Take {_steps(rng.randint(1, 10))}")
    return sentences


def _think(sentences: list[str]) -> tuple[str, bool]:
    totals = dict.fromkeys("NSEW", 0)
    lines = ["N0", "S0", "E0", "W0"]
    facing = 0
    for sentence in sentences:
        if sentence in _TURNS:
            facing = (facing + _TURNS[sentence]) % 4
            lines.append(f"{sentence.split()[1]}: face {_COMPASS[facing]}")
            continue
        words = sentence.split()
        offset = _RELATIVE[words[3]] if len(words) > 3 else 0
        where = _COMPASS[(facing + offset) % 4]
        count = int(words[1])
        old, totals[where] = totals[where], totals[where] + count
        copied = f"{reverse(count)} {words[3] if len(words) > 3 else 'steps'}"
        new = reverse(totals[where])
        lines.append(f"{copied}:{where}{reverse(old)}+{reverse(count)}={where}{new}")
    for one, other in ("NS", "EW"):
        same = "same" if totals[one] == totals[other] else "differ"
        lines.append(f"{one}{reverse(totals[one])}:{other}{reverse(totals[other])} {same}")
    return "\n".join(lines), totals["N"] == totals["S"] and totals["E"] == totals["W"]


def generate(rng: Random, level: int) -> Problem:
    """Two to eight sentences (level 3: nine to fourteen), always facing forward or with turns.

    A way back that is appended makes some of them longer, up to `_LONGEST`.
    """
    low, high = ((1, 3), (2, 8), (9, 14))[level - 1]
    length = rng.randint(low, high)
    forward = rng.random() < 0.55
    sentences = _facing_forward(rng, length) if forward else _turning(rng, length)
    sentences = sentences[: _LONGEST[level - 1]]
    text = ". ".join(sentences) + "."
    if forward:
        text = "Always face forward. " + text
    thought, returned = _think(sentences)
    wording = rng.random()
    prefix = _QUESTION if wording < 0.9 else rng.choice(("Do you return to the start? ", ""))
    suffix = _OPTIONS if wording < 0.7 else ""
    if not prefix:
        suffix = " Do you return to the starting point?"
    return Problem(
        problem=prefix + text + suffix,
        thought=thought,
        answer="Yes" if returned else "No",
        family="navigate",
        level=level,
        keys=("navigate " + text,),
    )


def verify(problem: Problem) -> bool:
    """Walk the text with complex numbers; check the totals and every addition of the thought.

    The thought is written once more from the sentences of the text.
    """
    place, heading = 0j, 1j
    sentences = re.findall(r"(?:Take|Turn)[^.]*", problem.problem)
    for sentence in sentences:
        if sentence in _TURNS:
            heading *= (-1j) ** _TURNS[sentence]
            continue
        words = sentence.split()
        turned = (-1j) ** _RELATIVE[words[3]] if len(words) > 3 else 1
        place += int(words[1]) * heading * turned
    totals = re.search(r"\nN(\d+):S(\d+) (\w+)\nE(\d+):W(\d+) (\w+)$", problem.thought)
    if totals is None:
        return False
    north, south, east, west = (int(totals[i][::-1]) for i in (1, 2, 4, 5))
    return (
        ("Yes" if place == 0 else "No") == problem.answer
        and complex(east - west, north - south) == place
        and totals[3] == ("same" if north == south else "differ")
        and totals[6] == ("same" if east == west else "differ")
        and problem.thought == _think(sentences)[0]
        and check_steps(problem.thought)
    )
