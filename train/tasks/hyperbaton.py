"""Adjective order in BIG-Bench-Hard's wording: "Which sentence has the correct adjective order"

The thought takes one option after the other until one of them rises throughout: it quotes the
sentence, then goes through the quote and gives each adjective its rank, up to the first that falls
("no") or up to the noun ("ok"). Options share their words, so the quote beside the ranks is what
tells which word comes next:

    (A) rubber gray midsize cat: rubber7 gray5 no
    (B) midsize gray rubber cat: midsize2 gray5 rubber7 cat ok
"""

import re
from random import Random

from falcon_h1r.train.tasks.adjectives import CLASSES, RANK
from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.choices import LETTERS, render_options
from falcon_h1r.train.tasks.nouns import ANIMALS, HOUSEHOLD, INSTRUMENTS

_HEAD = "Which sentence has the correct adjective order:\n"
_THING_TEXT = (
    "airplane book boat box computer dress driver game hat helmet jacket motorcycle monster "
    "pencil phone ship shirt shoe skirt surfboard sweater sword tractor train tree truck wheel"
)
_NOUNS = [*ANIMALS, *HOUSEHOLD, *INSTRUMENTS, *_THING_TEXT.split()]


def _ranked(sentence: str) -> tuple[str, bool]:
    """The sentence, its adjectives' ranks up to the first that falls, and whether none does."""
    *adjectives, noun = sentence.split(" ")
    text, last = f"{sentence}:", 0
    for word in adjectives:
        rank = RANK[word]
        text += f" {word}{rank}"
        if rank < last:
            return f"{text} no", False
        last = rank
    return f"{text} {noun} ok", True


def think(sentences: list[str]) -> tuple[list[str], str]:
    """The lines of the thought and the letter of the option in order."""
    lines = []
    for letter, sentence in zip(LETTERS, sentences, strict=False):
        text, rises = _ranked(sentence)
        lines.append(f"({letter}) {text}")
        if rises:
            return lines, letter
    raise ValueError("no option has its adjectives in order")


def generate(rng: Random, level: int) -> Problem:
    """Two sentences of two or three adjectives; level 2 up to six; level 3 more of both."""
    low, high = ((2, 3), (2, 6), (5, 8))[level - 1]
    count = 2 if level < 3 else rng.randint(3, 5)
    chosen = sorted(rng.sample(range(len(CLASSES)), rng.randint(low, high)))
    right = [rng.choice(CLASSES[i]) for i in chosen]
    orders = {tuple(right): None}
    while len(orders) < count:
        wrong = list(right)
        if rng.random() < 0.5:
            rng.shuffle(wrong)
        else:
            wrong.insert(rng.randrange(len(wrong)), wrong.pop(rng.randrange(len(wrong))))
        orders.setdefault(tuple(wrong))
    sentences = [list(order) for order in orders]
    rng.shuffle(sentences)
    noun = rng.choice(_NOUNS)
    texts = [f"{' '.join(sentence)} {noun}" for sentence in sentences]
    lines, letter = think(texts)
    return Problem(
        problem=_HEAD + render_options(texts),
        thought="\n".join(lines),
        answer=f"({letter})",
        family="hyperbaton",
        level=level,
        keys=(f"hyperbaton {' '.join(right)} {noun}",),
    )


def verify(problem: Problem) -> bool:
    """Find the one option in the order of the classes; check every quote, rank and verdict."""
    sorted_options, sentences = [], {}
    for letter, sentence in re.findall(r"\((\w)\) (.*)", problem.problem):
        sentences[letter] = sentence
        ranks = [
            next(i for i, known in enumerate(CLASSES) if word in known)
            for word in sentence.split()[:-1]
        ]
        if ranks == sorted(ranks):
            sorted_options.append(f"({letter})")
    lines = problem.thought.split("\n")
    for expected, line in zip(sentences, lines, strict=False):
        found = re.fullmatch(r"\((\w)\) (.+): (.+?)( [A-Za-z-]+)? (ok|no)", line)
        if found is None or found[1] != expected or found[2] != sentences[expected]:
            return False
        words = found[2].split()
        ranked = re.findall(r"([A-Za-z-]+)(\d)(?: |$)", found[3])
        if " ".join(word + rank for word, rank in ranked) != found[3]:
            return False
        if [word for word, _ in ranked] != words[: len(ranked)]:
            return False
        if any(RANK[word] != int(rank) for word, rank in ranked):
            return False
        ranks = [int(rank) for _, rank in ranked]
        risen = ranks == sorted(ranks) and found[4] == f" {words[-1]}"
        fallen = ranks[:-1] == sorted(ranks[:-1]) and ranks[-2:] != sorted(ranks[-2:])
        if not (risen and len(ranks) == len(words) - 1 if found[5] == "ok" else fallen):
            return False
        if (found[5] == "ok") != (line == lines[-1]) or (fallen and found[4]):
            return False
    return (
        len(lines) <= len(sentences)
        and sorted_options == [problem.answer]
        and problem.answer == lines[-1][:3]
    )
