"""Sorting words in BIG-Bench-Hard's wording: "Sort the following words alphabetically: List: ..."

The thought is a tree of prefixes, letters apart: a line gives a prefix and the words that have it,
in the order of the text. Where there are several, the lines below add one letter (more where all of
them go on alike; a full stop where a word ends). Lines of one word, read downwards, are sorted.

    d dot damp -> "d dot damp" / "d a damp" / "d o dot"
"""

from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.names import NAMES
from falcon_h1r.train.tasks.words import english_like


def _letter(word: str, position: int) -> str:
    """The letter there; "." behind the last one, which sorts before every letter."""
    return word[position] if position < len(word) else "."


def _grow(lines: list[str], prefix: str, words: list[str]) -> None:
    """Write the tree below a prefix."""
    depth = len(prefix)
    while len({_letter(word, depth) for word in words}) == 1:
        depth += 1
    for letter in sorted({_letter(word, depth) for word in words}):
        having = [word for word in words if _letter(word, depth) == letter]
        longer = words[0][:depth] + letter
        lines.append(" ".join([*longer, *having]))
        if len(having) > 1:
            _grow(lines, longer, having)


def _word(rng: Random) -> str:
    if rng.random() < 0.08:
        return rng.choice(NAMES).lower()
    return english_like(rng)


def _relative(word: str, rng: Random) -> str:
    """Another word with the same beginning."""
    return word[: rng.randint(1, 3)] + english_like(rng)[-rng.randint(2, 6) :]


def generate(rng: Random, level: int) -> Problem:
    """Two to five words; level 2 up to twenty; level 3 up to twenty-two, many of them alike."""
    low, high = ((2, 5), (2, 20), (12, 22))[level - 1]
    size = rng.randint(low, high)
    words: dict[str, None] = {}
    while len(words) < size:
        alike = words and rng.random() < (0.35 if level == 3 else 0.08)
        words.setdefault(_relative(rng.choice(list(words)), rng) if alike else _word(rng))
    listed = list(words)
    lines: list[str] = []
    for letter in sorted({word[0] for word in listed}):
        having = [word for word in listed if word[0] == letter]
        lines.append(" ".join([letter, *having]))
        if len(having) > 1:
            _grow(lines, letter, having)
    joint = ", " if rng.random() < 0.03 else " "
    return Problem(
        problem=f"Sort the following words alphabetically: List: {joint.join(listed)}",
        thought="\n".join(lines),
        answer=" ".join(sorted(listed)),
        family="word_sorting",
        level=level,
        keys=(f"word_sorting {' '.join(sorted(listed))}",),
    )


def verify(problem: Problem) -> bool:
    """Sort the text's words; each line names exactly the words with its prefix."""
    words = problem.problem.partition("List: ")[2].replace(",", "").split()
    if problem.answer.split() != sorted(words):
        return False
    leaves = []
    for line in problem.thought.split("\n"):
        pieces = line.split()
        prefix = ""
        while pieces and len(pieces[0]) == 1 and len(prefix) < 30:
            rest = [w for w in words if (w + ".").startswith(prefix + pieces[0])]
            if prefix and rest and pieces == rest:
                break
            prefix += pieces.pop(0)
        if pieces != [w for w in words if (w + ".").startswith(prefix)]:
            return False
        if len(pieces) == 1:
            leaves += pieces
    return leaves == sorted(words)
