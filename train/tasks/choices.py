"""Lettered options as BIG-Bench-Hard writes them, lists in English and numbers in words."""

import re
from collections.abc import Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRST"
_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen"
)
NUMBER_WORDS = _NUMBERS.split()


def render_options(choices: Sequence[str]) -> str:
    """The block "Options:" with one lettered line a choice."""
    lines = [f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    return "\n".join(["Options:", *lines])


def read_options(text: str) -> list[str]:
    """The choices of a problem's text in order."""
    return re.findall(r"^\([A-T]\) (.+)$", text, re.MULTILINE)


def letter_of(choices: Sequence[str], choice: str) -> str:
    """The letter of a choice; ValueError when it is not listed."""
    return LETTERS[list(choices).index(choice)]


def with_article(noun: str) -> str:
    """ "an owl", "a robin"."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def enumerate_nouns(parts: Sequence[str]) -> str:
    """ "a, b, and c" ("a and b" for two)."""
    if len(parts) < 3:
        return " and ".join(parts)
    return f"{', '.join(parts[:-1])}, and {parts[-1]}"
