"""Reads a deduction in BIG-Bench-Hard's wording (logical_deduction) back into facts."""

import re
from dataclasses import dataclass

from falcon_h1r.train.tasks.choices import read_options
from falcon_h1r.train.tasks.deduction_steps import Fact

_ORDINAL_TEXT = "zeroth first second third fourth fifth sixth seventh"
ORDINALS = _ORDINAL_TEXT.split()
_RELATION = re.compile(
    r"^(.+?) (?:is|are|finished) (to the left of|to the right of|less expensive than|"
    r"more expensive than|older than|newer than|above|below) (.+)$"
)
_LESS = {"to the left of", "less expensive than", "older than", "above"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Deduction:
    """A problem's text, read."""

    nouns: list[str]
    """In the order of the options."""
    sentences: list[str]
    """The statements as the text has them, without full stop."""
    facts: list[Fact]
    """What the sentences say."""
    question: str
    """The first option with its letter: "(A) The owl is the leftmost"."""
    asked: int
    """The slot that the question names."""


def read_rank(text: str) -> tuple[int, bool]:
    """The rank that "second from the right" or "last" names, and whether from the high end."""
    rank = next((i for i, word in enumerate(ORDINALS) if i and word in text), 1)
    return rank, re.search(r"right|last|newest|most expensive", text) is not None


def _read_slot(text: str, count: int) -> int:
    rank, high = read_rank(text)
    return count + 1 - rank if high else rank


def read_deduction(text: str) -> Deduction:
    """Read a problem; ValueError for a statement about an object without an option."""
    choices = read_options(text)
    nouns: list[str] = []
    for choice in choices:
        noun = re.split(r" (?:is|are) the | finished ", choice)[0]
        nouns.append(noun.removeprefix("The "))
    asked = _read_slot(choices[0][len(nouns[0]) :], len(nouns))
    body = text.split("\nOptions:")[0].split(": ", 1)[1]
    sentences = [s.strip() for s in re.findall(r"[^.]+(?=\.)", body)[1:]]
    facts: list[Fact] = []
    for words in sentences:
        match = _RELATION.match(words)
        one, two = (words, "") if match is None else (match[1], match[3])
        if match is None:
            one = re.split(r" (?:is|are) the | finished ", words)[0]
        first = nouns.index(one.removeprefix("The "))
        if match is None:
            facts.append((first, _read_slot(words[len(one) :], len(nouns))))
        else:
            sign = "<" if match[2] in _LESS else ">"
            facts.append((first, sign, nouns.index(two.removeprefix("the "))))
    question = f"(A) {choices[0]}"
    return Deduction(nouns=nouns, sentences=sentences, facts=facts, question=question, asked=asked)
