"""Sorting words in BIG-Bench-Hard's wording: "Sort the following words alphabetically: List: ..."

The thought first restates the list, a word a line: a label, the word, its first letter and the
labels of the words so far that begin with it, so that the last line of a letter names its group.
Then it walks the alphabet. A letter that begins words is followed by its group. The words of a
group of several are spelt side by side: two letters behind the first, and where rows are the same,
these words again with the next four (a dash where a word ends). Then the words are told in
order, a line each, and the walk goes on. Every look-up goes forwards: from a letter to labels, from
a label to its word:

    A dot d A / B ash a B / C damp d A C
    - a B / B ash b c d A C / A dot o t / C damp a m / C damp / A dot e f g ... z
"""

from random import Random
from string import ascii_lowercase, ascii_uppercase

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.names import NAMES
from falcon_h1r.train.tasks.words import english_like

_LONGEST = 850
"""Signs of a thought: with its problem it stays under about 620 tokens."""
_FIRST, _NEXT = 2, 4
"""Letters in a word's first row, behind its first letter, and in each row after that."""


def _spell(lines: list[str], group: dict[str, str], start: int, count: int) -> None:
    """Write rows of `count` letters; where several are the same, go on for these words."""
    alike: dict[str, dict[str, str]] = {}
    for label, word in group.items():
        letters = " ".join(f"{word}-"[start : start + count])
        lines.append(f"{label} {word} {letters}")
        alike.setdefault(letters, {})[label] = word
    for same in alike.values():
        if len(same) > 1:
            _spell(lines, same, start + count, _NEXT)


def think(words: list[str]) -> tuple[list[str], list[str]]:
    """The lines of the thought, and the words in the order in which they are told at the end."""
    lines: list[str] = []
    groups: dict[str, dict[str, str]] = {}
    for label, word in zip(ascii_uppercase, words, strict=False):
        group = groups.setdefault(word[0], {})
        group[label] = word
        lines.append(f"{label} {word} {word[0]} {' '.join(group)}")
    told = []
    lines.append("-")
    for letter in sorted({*ascii_lowercase, *groups}):
        group = groups.get(letter, {})
        lines[-1] += " ".join(["", letter, *group])
        if len(group) > 1:
            _spell(lines, group, 1, _FIRST)
        for word, label in sorted((word, label) for label, word in group.items()):
            lines.append(f"{label} {word}")
            told.append(word)
    return lines, told


def _word(rng: Random) -> str:
    if rng.random() < 0.08:
        return rng.choice(NAMES).lower()
    return english_like(rng)


def _relative(word: str, rng: Random) -> str:
    """Another word with the same beginning."""
    return word[: rng.randint(1, 3)] + english_like(rng)[-rng.randint(2, 6) :]


def generate(rng: Random, level: int) -> Problem:
    """Two to five words; level 2 up to twenty; level 3 up to twenty-two, many of them alike.

    Fewer words where the chain would be too long to train on.
    """
    low, high = ((2, 5), (2, 20), (12, 22))[level - 1]
    size = rng.randint(low, high)
    words: dict[str, None] = {}
    while len(words) < size:
        alike = words and rng.random() < (0.35 if level == 3 else 0.08)
        words.setdefault(_relative(rng.choice(list(words)), rng) if alike else _word(rng))
    listed = list(words)
    lines, told = think(listed)
    while len("\n".join(lines)) > _LONGEST:
        listed.pop()
        lines, told = think(listed)
    joint = ", " if rng.random() < 0.03 else " "
    return Problem(
        problem=f"Sort the following words alphabetically: List: {joint.join(listed)}",
        thought="\n".join(lines),
        answer=" ".join(told),
        family="word_sorting",
        level=level,
        keys=(f"word_sorting {' '.join(sorted(listed))}",),
    )


def verify(problem: Problem) -> bool:
    """Sort the text's words; check every line, and that the walk tells the words in order."""
    words = problem.problem.partition("List: ")[2].replace(",", "").split()
    if problem.answer.split() != sorted(words):
        return False
    labels = ascii_uppercase[: len(words)]
    lines = problem.thought.split("\n")
    for i, (label, word) in enumerate(zip(labels, words, strict=True)):
        alike = [labels[j] for j in range(i + 1) if words[j][0] == word[0]]
        if lines[i] != f"{label} {word} {word[0]} {' '.join(alike)}":
            return False
    walked, told = "", []
    group: dict[str, str] = {}
    read: dict[str, str] = {}
    for number, line in enumerate(lines[len(words) :]):
        head, *rest = line.split(" ")
        if number > 0:
            word = rest.pop(0)
            if group.get(head) != word:
                return False
            start = len(read[head])
            end = start + (_FIRST if start == 1 else _NEXT)
            alike = [other for other in group.values() if f"{other}-".startswith(read[head])]
            if len(alike) > 1:  # a row; none but the words that are still alike have one
                read[head] += "".join(rest)
                if "".join(rest) != f"{word}-"[start:end]:
                    return False
                continue
            told.append(word)
        elif head != "-":
            return False
        while rest:
            letter = rest.pop(0)
            walked += letter
            group = {x: w for x, w in zip(labels, words, strict=True) if w[0] == letter}
            read = dict.fromkeys(group, letter)
            if rest[: len(group)] != list(group):
                return False
            rest = rest[len(group) :]
            if group and rest:
                return False
    return told == sorted(words) and walked == "".join(sorted({*ascii_lowercase, *walked}))
