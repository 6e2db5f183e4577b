"""Tells whether an answer is the item's: equality of answers, and what the format allows beside it.

Imports no torch.
"""

import re

from falcon_h1r.evaluate.items import Item
from falcon_h1r.thinking.answers import canonical, equal

_NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?")
_WITH_UNIT = re.compile(r"([+-]?\d[\d,]*(?:\.\d+)?)\s*(?:\\?%|([A-Za-z]{3,})[A-Za-z .]*)")
_PERCENT = re.compile(r"([+-]?\d[\d,]*(?:\.\d+)?)\s*\\?%")
_LETTERED = re.compile(r"[(\[]?([A-Za-z])(?:[)\]]?\s*[.:)\]-]\s*(.*)|[)\]]?)")
"""A letter, also in brackets, alone or before the text of its choice."""
_NO_UNITS = {"hundred", "thousand", "million", "billion", "trillion", "dozen", "half", "and", "or"}
"""Words behind a number that make it another number."""


def is_right(answer: str | None, item: Item) -> bool:
    """Return whether an answer is right: equal to the item's (`thinking.answers.equal`).

    Also right: the whole text of the right lettered choice in place of its letter or behind it
    ("b", "B: green"), and, where the item asks for a plain number, that number with a unit or a
    percent sign behind it; and a plain number where the item has a percent sign, as MATH's own
    grader has it.
    """
    if answer is None:
        return False
    given, gold = canonical(answer), canonical(item.answer)
    index = ord(gold) - ord("A") if len(gold) == 1 else -1
    if 0 <= index < len(item.choices):
        return given == gold or _is_choice(given, gold, item.choices)
    if equal(answer, item.answer):
        return True
    if _NUMBER.fullmatch(gold) and (found := _WITH_UNIT.fullmatch(given)) is not None:
        return (found[2] or "").lower() not in _NO_UNITS and equal(found[1], gold)
    if (percent := _PERCENT.fullmatch(gold)) is not None and _NUMBER.fullmatch(given):
        return equal(percent[1], given)
    return False


def _is_choice(given: str, gold: str, choices: tuple[str, ...]) -> bool:
    """Whether an answer is the text of choice `gold`, or its letter with no text or that one."""
    texts = [canonical(choice).lower() for choice in choices]
    right = texts[ord(gold) - ord("A")]
    if given.lower() in texts:
        return given.lower() == right and texts.count(right) == 1
    lettered = _LETTERED.fullmatch(given)
    if lettered is None:
        return equal(given, gold)
    return lettered[1].upper() == gold and (
        not lettered[2] or canonical(lettered[2]).lower() == right
    )
