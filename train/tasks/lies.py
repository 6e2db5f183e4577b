"""Chains of truth tellers and liars in BIG-Bench-Hard's wording (web_of_lies)."""

import re
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.names import draw_names

_CLAIM = {True: "tells the truth", False: "lies"}
_SHORT = {True: "T", False: "F"}


def generate(rng: Random, level: int) -> Problem:
    """Five people (level 1: two to four; level 3: up to ten); each speaks of the one before."""
    count = (rng.randint(2, 4), rng.randint(4, 6) if rng.random() < 0.3 else 5, rng.randint(7, 10))[
        level - 1
    ]
    names = draw_names(rng, count)
    claims = [rng.random() < 0.5 for _ in names]
    truth = claims[0]
    sentences = [f"{names[0]} {_CLAIM[truth]}."]
    lines = [f"- {names[0]} {_SHORT[truth]}"]
    for before, name, claim in zip(names, names[1:], claims[1:], strict=False):
        sentences.append(f"{name} says {before} {_CLAIM[claim]}.")
        line = f"- {name} says {_SHORT[claim]} of {_SHORT[truth]}"
        truth = claim == truth
        lines.append(f"{line}: {_SHORT[truth]}")
    wording = rng.random()
    question = f"Does {names[-1]} tell the truth?"
    if wording > 0.92:
        question = f"Is {names[-1]} telling the truth?"
    text = " ".join([*sentences, question])
    return Problem(
        problem=text if wording < 0.25 else "Question: " + text,
        thought="\n".join(lines),
        answer="Yes" if truth else "No",
        family="lies",
        level=level,
        keys=("lies " + " ".join(f"{n} {_SHORT[c]}" for n, c in zip(names, claims, strict=True)),),
    )


def verify(problem: Problem) -> bool:
    """Find the only consistent assignment by following the sentences of the text."""
    truths: dict[str, bool] = {}
    for sentence in re.findall(r"[^.?]+\.", problem.problem.removeprefix("Question: ")):
        told = "tells the truth" in sentence
        words = sentence.split()
        truths[words[0]] = told == truths[words[2]] if words[1] == "says" else told
    asked = re.search(r"(?:Does|Is) (\w+) tell", problem.problem)
    if asked is None:
        return False
    stated = {line.split()[1]: line.endswith("T") for line in problem.thought.split("\n")}
    return stated == truths and problem.answer == ("Yes" if truths[asked[1]] else "No")
