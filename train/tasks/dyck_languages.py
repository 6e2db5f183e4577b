"""Closing brackets in BIG-Bench-Hard's wording: "Complete the rest of the sequence ..."

The thought copies the sequence, five symbols a line, and marks each bracket by the letter of its
depth, the closing one like its opening one; what is open at the end is the last bracket marked so.

    { < [ ] { [   ->   - { a < b [ c ] c { c / - [ d / = d [ ] / = c { } / ...
"""

from random import Random
from string import ascii_lowercase

from falcon_h1r.train.tasks.base import Problem

_HEAD = (
    "Complete the rest of the sequence, making sure that the parentheses are closed properly. "
    "Input: "
)
_CLOSING = {"(": ")", "[": "]", "{": "}", "<": ">"}
_DEPTHS = ascii_lowercase
_PER_LINE = 5
_MAX_DEPTH = 16


def _draw(rng: Random, length: int) -> tuple[list[str], list[str]]:
    """A prefix of a balanced sequence, and what is open at its end."""
    symbols: list[str] = []
    opened: list[str] = []
    left = rng.choices((1, 2, 3, 4, 5), (5, 4, 4, 1, 1))[0]
    rise = rng.uniform(0.4, 0.7)
    while len(symbols) < length or len(opened) > left:
        deep = len(opened) >= _MAX_DEPTH or len(symbols) >= length
        if opened and (deep or (rng.random() > rise and len(opened) > 1)):
            symbols.append(_CLOSING[opened.pop()])
        else:
            opened.append(rng.choice("([{<"))
            symbols.append(opened[-1])
    return symbols, opened


def generate(rng: Random, level: int) -> Problem:
    """Up to eight symbols; level 2 up to about forty, mostly short; level 3 up to about ninety."""
    if level == 1:
        length = rng.randint(2, 8)
    elif level == 2:
        length = int(rng.triangular(3, 48, 8))
    else:
        length = rng.randint(36, 84)
    symbols, opened = _draw(rng, length)
    depth, marked = 0, []
    for symbol in symbols:
        depth += symbol in _CLOSING
        marked.append(f" {symbol} {_DEPTHS[depth - 1]}")
        depth -= symbol not in _CLOSING
    lines = ["-" + "".join(marked[i : i + _PER_LINE]) for i in range(0, len(marked), _PER_LINE)]
    for i in reversed(range(len(opened))):
        lines.append(f"= {_DEPTHS[i]} {opened[i]} {_CLOSING[opened[i]]}")
    return Problem(
        problem=_HEAD + " ".join(symbols),
        thought="\n".join(lines),
        answer=" ".join(_CLOSING[symbol] for symbol in reversed(opened)),
        family="dyck_languages",
        level=level,
        keys=(f"dyck {''.join(symbols)}",),
    )


def verify(problem: Problem) -> bool:
    """Strike out pairs until none is left, then close what remains; check marks by pairs."""
    text = problem.problem.removeprefix(_HEAD).replace(" ", "")
    remains = text
    while any(pair in remains for pair in ("()", "[]", "{}", "<>")):
        for pair in ("()", "[]", "{}", "<>"):
            remains = remains.replace(pair, "")
    closed = [_CLOSING[symbol] for symbol in reversed(remains)]
    lines = problem.thought.split("\n")
    marked = lines[: len(lines) - len(remains)]
    copied = "".join(line.removeprefix("-").replace(" ", "") for line in marked)
    rebuilt = [
        f"= {_DEPTHS[i]} {symbol} {_CLOSING[symbol]}"
        for i, symbol in reversed(list(enumerate(remains)))
    ]
    marks_fit = all(_DEPTHS[_depth(text, i)] == mark for i, mark in enumerate(copied[1::2]))
    return (
        problem.answer == " ".join(closed)
        and copied[::2] == text
        and marks_fit
        and lines[len(lines) - len(remains) :] == rebuilt
    )


def _depth(text: str, position: int) -> int:
    """How many brackets stand open around the pair that the symbol belongs to."""
    before = text[:position]
    level = sum(before.count(s) for s in "([{<") - sum(before.count(s) for s in ")]}>")
    return level if text[position] in "([{<" else level - 1
