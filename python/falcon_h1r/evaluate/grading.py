"""Tells whether an answer is the item's: equality of answers, and what the format allows beside it.

Imports no torch.
"""

import re

from falcon_h1r.evaluate.items import Item
from falcon_h1r.thinking.answers import canonical, equal

_NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?")
_WITH_UNIT = re.compile(r"([+-]?\d[\d,]*(?:\.\d+)?)\s*(?:\\?%|([A-Za-z]{3,})[A-Za-z .]*)")
_PERCENT = re.compile(r"([+-]?\d[\d,]*(?:\.\d+)?)\s*\\?%")
_NO_UNITS = {"hundred", "thousand", "million", "billion", "trillion", "dozen", "half", "and", "or"}
"""Words behind a number that make it another number."""


def is_right(answer: str | None, item: Item) -> bool:
    """Return whether an answer is right: equal to the item's (`thinking.answers.equal`).

    Also right: the whole text of the right lettered choice in place of its letter, and, where the
    item asks for a plain number, that number with a unit or a percent sign behind it; and a plain
    number where the item has a percent sign, as MATH's own grader has it.
    """
    if answer is None:
        return False
    if equal(answer, item.answer):
        return True
    gold = canonical(item.answer)
    index = ord(gold) - ord("A") if len(gold) == 1 else -1
    if 0 <= index < len(item.choices):
        texts = [canonical(choice).lower() for choice in item.choices]
        return canonical(answer).lower() == texts[index] and texts.count(texts[index]) == 1
    given = canonical(answer)
    if _NUMBER.fullmatch(gold) and (found := _WITH_UNIT.fullmatch(given)) is not None:
        return (found[2] or "").lower() not in _NO_UNITS and equal(found[1], gold)
    if (percent := _PERCENT.fullmatch(gold)) is not None and _NUMBER.fullmatch(given):
        return equal(percent[1], given)
    return False
