"""Filters that judge one draft alone. Each gives a reason to drop it, or None."""

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from falcon_h1r.thinking.answers import equal
from falcon_h1r.train.curation.drafts import Draft
from falcon_h1r.train.curation.frames import unframed
from falcon_h1r.train.curation.recipe import FilterRecipe
from falcon_h1r.train.tasks import FAMILIES, Problem

MAX_TEXT = 200_000
"""Longest problem or thought, in characters; a longer one counts as broken format."""
MAX_PERIOD = 64
"""Longest repeated unit, in words, that counts as looping."""
MIN_LOOP = 30
"""Words a repetition must cover to count as looping."""

_MARKERS = re.compile(r"</?think>|<\|[a-z_]+\|>", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd\ud800-\udfff]")
_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
}


def judge(draft: Draft, filters: FilterRecipe) -> Draft | str:
    """The draft, saying what its answer was verified by, or the reason to drop it."""
    if filters.broken_format and has_broken_format(draft):
        return "broken format"
    if filters.truncated and draft.is_cut:
        return "truncated"
    if not draft.answer:
        return "no answer"
    if filters.empty_thought and not draft.thought.strip():
        return "empty thought"
    if filters.wrong_answer:
        checked_by = verify_answer(draft)
        if checked_by is None:
            return "wrong answer"
        draft = draft.but(checked_by=checked_by)
    if filters.wrong_step and not steps_hold(draft):
        return "wrong step"
    if filters.looping and is_looping(draft.thought):
        return "looping"
    return draft


def has_broken_format(draft: Draft) -> bool:
    """Markers of the chat inside the text, control characters, signs of a wrong encoding."""
    texts = (draft.problem, draft.thought, draft.answer)
    if any(len(text) > MAX_TEXT for text in texts) or len(draft.answer) > MAX_TEXT // 100:
        return True
    if "\n" in draft.answer or not draft.problem:
        return True
    return any(_MARKERS.search(text) or _CONTROL.search(text) for text in texts)


def verify_answer(draft: Draft) -> str | None:
    """What the answer was verified by, "nothing" where there is nothing to do so; None: wrong."""
    if draft.family in FAMILIES:
        return "verifier" if verified_by_family(draft) else None
    if draft.final is not None and draft.final != draft.answer:
        if not equal(draft.final, draft.answer):
            return None
        return "reference" if draft.has_reference else "nothing"
    if draft.judge is not None:
        return "verifier" if draft.judge(draft.answer) else None
    return "reference" if draft.final is not None and draft.has_reference else "nothing"


def verified_by_family(draft: Draft) -> bool:
    """Whether the generator's own verifier accepts problem, every step and answer.

    A problem in a frame of words is verified without it.
    """
    return any(
        _accepts(
            Problem(
                problem=text,
                thought=draft.thought,
                answer=draft.answer,
                family=draft.family,
                level=draft.level,
                keys=(),
            )
        )
        for text in dict.fromkeys((draft.problem, unframed(draft.problem)))
    )


def _accepts(problem: Problem) -> bool:
    try:
        return FAMILIES[problem.family].verify(problem)
    except Exception:  # a text that is not of this family: whatever the verifier stumbles over
        return False


def steps_hold(draft: Draft) -> bool:
    """Whether every calculator mark that can be read holds, to one in a hundred."""
    return all(_holds(*step) for step in draft.steps)


def _holds(expression: str, result: str) -> bool:
    value, stated = calculate(expression), calculate(result)
    if value is None or stated is None:
        return True
    return abs(value - stated) <= max(abs(value), Fraction(1)) / 100


def calculate(expression: str) -> Fraction | None:
    """Value of an expression of numbers, + - * / and brackets; None where it is not one."""
    text = re.sub(r"[,$\s]", "", expression)
    text = re.sub(r"(\d[\d.]*)%", r"(\1/100)", text)
    text = re.sub(r"(?<![\d.])0+(?=\d)", "", text)
    if len(text) > 300:
        return None
    try:
        return _walk(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _walk(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return Fraction(str(number))
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_walk(inner)
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            return _walk(inner)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_walk(left), _walk(right))
    raise ValueError("not an expression of numbers")


def is_looping(text: str) -> bool:
    """Whether some unit of up to 64 words stands four times in a row over at least 30 words.

    A text that repeats with period p equals itself shifted by p: the longest run of equal words
    is found for each p.
    """
    words = text.split()
    if len(words) < MIN_LOOP:
        return False
    names = {word: number for number, word in enumerate(dict.fromkeys(words))}
    ids = np.array([names[word] for word in words])
    for period in range(1, min(MAX_PERIOD, len(ids) // 4) + 1):
        needed = max(3 * period, MIN_LOOP - period)
        breaks = np.flatnonzero(ids[period:] != ids[:-period])
        edges = np.concatenate([[-1], breaks, [len(ids) - period]])
        if int(np.diff(edges).max()) - 1 >= needed:
            return True
    return False
