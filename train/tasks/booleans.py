"""Boolean expressions in BIG-Bench-Hard's wording: "not ( True ) and ( True ) is"."""

import re
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.execute import evaluate_expression

_WORDINGS = ("{} is",) * 8 + ("{}", "What is {}?", "Evaluate {}", "Evaluate: {}", "{} =")


def _expression(rng: Random, atoms: int, depth: int) -> list[str]:
    """Tokens of a random expression with the given number of truth values."""
    tokens: list[str] = []
    while atoms > 0:
        if tokens:
            tokens.append(rng.choice(("and", "or")))
        tokens += ["not"] * rng.choices((0, 1, 2, 3, 4), (50, 29, 13, 6, 2))[0]
        inside = rng.randint(1, min(atoms, 3)) if depth and rng.random() < 0.3 else 0
        if inside:
            tokens += ["(", *_expression(rng, inside, depth - 1), ")"]
        else:
            tokens.append(rng.choice(("True", "False")))
        atoms -= inside or 1
    return tokens


def _is_atom(token: str) -> bool:
    return token in "TF"


def _strip_brackets(tokens: list[str]) -> list[str]:
    text = re.sub(r"\( ([TF]) \)", r"\1", " ".join(tokens))
    return text.split()


def _negate(tokens: list[str]) -> list[str]:
    out: list[str] = []
    for token in tokens:
        if _is_atom(token):
            while out and out[-1] == "not":
                out.pop()
                token = "F" if token == "T" else "T"
        out.append(token)
    return out


def _join(tokens: list[str], word: str) -> list[str]:
    """Evaluate runs of atoms joined by `word`; a run of `or` keeps clear of an `and` beside it."""
    text = " ".join(tokens)
    guard_left, guard_right = ("", "") if word == "and" else (r"(?<!and )", r"(?! and)")

    def evaluate(match: re.Match[str]) -> str:
        values = [atom == "T" for atom in match[0].split(f" {word} ")]
        return "T" if (all(values) if word == "and" else any(values)) else "F"

    return re.sub(rf"{guard_left}\b[TF](?: {word} [TF]\b{guard_right})+", evaluate, text).split()


def shrink(tokens: list[str]) -> list[list[str]]:
    """The expression restated until one truth value is left; each line applies one kind of rule:
    brackets around a value, then `not`, then `and`, then `or`."""
    steps = [tokens]
    while len(tokens) > 1:
        for rule in (_strip_brackets, _negate, lambda t: _join(t, "and"), lambda t: _join(t, "or")):
            shorter = rule(tokens)
            if shorter != tokens:
                break
        else:
            raise AssertionError(f"no rule applies to {' '.join(tokens)}")
        tokens = shorter
        steps.append(tokens)
    return steps


def generate(rng: Random, level: int) -> Problem:
    """Two to five truth values, `not` chains, brackets; level 3: up to twelve, brackets nested."""
    low, high, depth = ((1, 3, 1), (2, 5, 1), (7, 12, 3))[level - 1]
    tokens = _expression(rng, rng.randint(low, high), depth)
    text = " ".join(tokens)
    if rng.random() < 0.1:
        text = text.replace("( ", "(").replace(" )", ")")
    short = [{"True": "T", "False": "F"}.get(token, token) for token in tokens]
    steps = shrink(short)
    return Problem(
        problem=rng.choice(_WORDINGS).format(text),
        thought="\n".join("= " + " ".join(step) for step in steps),
        answer="True" if steps[-1] == ["T"] else "False",
        family="booleans",
        level=level,
        keys=("booleans " + " ".join(short),),
    )


def verify(problem: Problem) -> bool:
    """Evaluate the text and each restated line by Python's own rules."""
    words = re.findall(r"True|False|not|and|or|[()]", problem.problem)
    values = [evaluate_expression(" ".join(words))]
    for line in problem.thought.split("\n"):
        spelled = re.sub(r"\bT\b", "True", re.sub(r"\bF\b", "False", line.removeprefix("=")))
        values.append(evaluate_expression(spelled))
    return {str(bool(v)) for v in values} == {problem.answer}
