"""Records with the faults that filters are there for: each is caught by its filter and no other.

What collected chains of thought suffer from, put into problems of our own: the ablation lets one
kind through at a time, and a test holds every filter to its fault. The families are renamed, so
that no verifier of a family sees what only the filter in question should. The same for the same
seed.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from falcon_h1r.errors import ConfigError
from falcon_h1r.thinking.answers import equal
from falcon_h1r.train.curation.dedup import shingles
from falcon_h1r.train.curation.filters import MIN_LOOP
from falcon_h1r.train.curation.recipe import SourceRecipe
from falcon_h1r.train.tasks import Problem, draw_trainable, sample_problem

COPIES = 20
"""Times that a repeated record stands in its file, with small changes or without."""
OPENERS = (
    "Hi.", "Hello.", "Please:", "Question:", "Problem:", "Now:", "Next:", "So:", "Okay:", "Again:",
    "Quickly:", "Carefully:", "Listen:", "Task:", "Exercise:", "Well:", "Puzzle:", "Today:",
    "Finally:",
)  # fmt: skip
"""What a copy that is nearly the same begins with."""
_MIN_SHINGLES, _MAX_LIKENESS, _MAX_DRAWS = 24, 0.4, 5000
"""Originals of near-duplicates are long, and unlike each other."""
_SLIPS = (10, 20, 30)
Row = dict[str, Any]
Draw = Callable[[], Problem]


def faulty_records(
    fault: str,
    count: int,
    *,
    seed: int,
    families: Mapping[str, float],
    levels: Mapping[int, float],
    held_out: Sequence[Problem] = (),
) -> list[Row]:
    """`count` JSON records with one fault, named as the filter of `FilterRecipe` that catches it.

    `held_out` are the problems of the evaluation, of which "overlap" is made, as many as there are.
    Raises ConfigError when the families have no problem that the fault can be put into.
    """
    rng = Random(f"fault {fault} {seed}")

    def draw() -> Problem:
        return sample_problem(rng, families, levels)

    if fault == "overlap":
        if not held_out:
            raise ConfigError("there is no held-out problem to overlap with; give some")
        return [_row(problem) for problem in held_out[:count]]
    if fault == "wrong_step":
        return [_slipped(rng) for _ in range(count)]
    if fault in ("exact_duplicates", "near_duplicates"):
        originals = -(-count // COPIES)
        near = fault == "near_duplicates"
        problems = _unlike(draw, originals) if near else [draw() for _ in range(originals)]
        openers = ["", *(f"{opener} " for opener in OPENERS)] if near else [""] * COPIES
        rows = [_row(p) | {"problem": o + p.problem} for p in problems for o in openers]
        return rows[:count]
    ways: dict[str, Callable[[Problem, Random], Row]] = {
        "broken_format": _garbled,
        "truncated": _cut,
        "empty_thought": lambda problem, rng: _row(problem, thought=""),
        "wrong_answer": _misled,
        "looping": _looped,
    }
    return [ways[fault](draw(), rng) for _ in range(count)]


FAULTS = (
    "broken_format", "truncated", "empty_thought", "wrong_answer", "wrong_step", "looping",
    "exact_duplicates", "near_duplicates", "overlap",
)  # fmt: skip
"""Every filter that can be switched off, in the order in which they judge."""


def write_faults(
    folder: Path,
    count: int,
    *,
    seed: int,
    families: Mapping[str, float],
    levels: Mapping[int, float],
    held_out: Sequence[Problem],
) -> dict[str, SourceRecipe]:
    """Write a file of `count` records a fault; return the sources that read them, by fault."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = {}
    for fault in FAULTS:
        rows = faulty_records(
            fault, count, seed=seed, families=families, levels=levels, held_out=held_out
        )
        path = folder / f"{fault}.jsonl"
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_text("".join(lines), encoding="utf-8")
        sources[fault] = SourceRecipe(
            kind="gsm8k" if fault == "wrong_step" else "jsonl",
            path=str(path),
            family="collected sums",
            style="collected",
            near_duplicates=fault == "near_duplicates",
            overlap="item",
        )
    return sources


def _row(problem: Problem, thought: str | None = None, final: str | None = None) -> Row:
    """A record of a collected set; the response may arrive at another answer than the reference."""
    thought = problem.thought if thought is None else thought
    final = problem.answer if final is None else final
    return {
        "problem": problem.problem,
        "response": f"<think>\n{thought}\n</think>\nThe answer is {final}.",
        "answer": problem.answer,
        "family": f"collected {problem.family}",
        "level": problem.level,
    }


def _garbled(problem: Problem, rng: Random) -> Row:
    """A wrong decoding in the thought, and the markers of a turn left standing in it."""
    letters = list(problem.thought)
    for place in rng.sample(range(len(letters)), min(4, len(letters))):
        letters[place] = "\N{REPLACEMENT CHARACTER}"
    return _row(problem, "".join(letters) + "\n<|im_end|>\n<|im_start|>assistant")


def _cut(problem: Problem, rng: Random) -> Row:
    """The thought ends in its middle; the reference answer stands beside it."""
    length = max(1, int(len(problem.thought) * rng.uniform(0.3, 0.7)))
    return _row(problem) | {"response": f"<think>\n{problem.thought[:length]}"}


def _misled(problem: Problem, rng: Random) -> Row:
    """The thought goes astray at its end and arrives at another problem's answer."""
    while True:
        other = draw_trainable(rng, problem.family, problem.level)
        if not equal(other.answer, problem.answer):
            break
    lines = [*problem.thought.split("\n")[:-1], other.thought.split("\n")[-1]]
    return _row(problem, "\n".join(lines), other.answer)


def _looped(problem: Problem, rng: Random) -> Row:
    """The shortest line of the thought comes again and again before it goes on."""
    lines = problem.thought.split("\n")
    place = min(range(len(lines)), key=lambda i: (len(lines[i]), i))
    words = max(1, len(lines[place].split()))
    times = max(4, -(-MIN_LOOP // words)) + rng.randint(1, 4)
    return _row(problem, "\n".join([*lines[:place], *[lines[place]] * times, *lines[place:]]))


def _slipped(rng: Random) -> Row:
    """A sum in GSM8K's own format: an equation before the last one does not hold."""
    while True:
        problem = draw_trainable(rng, "sums", 2)
        lines = problem.thought.split("\n")
        equations = [i for i, line in enumerate(lines) if "=" in line]
        if len(equations) > 1 and equations[-1] == len(lines) - 1:
            break
    slipped = rng.choice(equations[:-1])
    for place in equations:
        left, _, result = lines[place].rpartition("=")
        operands, total = left.rpartition(":")[2], _number(result)
        if place == slipped:
            total += rng.choice(_SLIPS) * (-1 if total < 0 else 1)
            lines[place] = f"{left}={result[0]}{str(abs(total))[::-1]}"
        lines[place] += f"<<{_decimal(operands)}={total}>>"
    return {"question": problem.problem, "answer": "\n".join([*lines, f"#### {problem.answer}"])}


def _number(shown: str) -> int:
    """The number that a label and reversed digits show: n34 is -43."""
    return int(shown[1:][::-1]) * (-1 if shown[0] == "n" else 1)


def _decimal(operands: str) -> str:
    """A step of our notation as a calculator's: n63-p15 is -36+51, n02+2 is -20-2."""
    if "-" in operands:
        first, second = map(_number, operands.split("-"))
    else:
        shown, added = operands.split("+")
        first, second = _number(shown), _number(shown[0] + added)
    return f"{first}{second:+d}"


def _unlike(draw: Draw, count: int) -> list[Problem]:
    """Problems long enough for MinHash, no two of them alike."""
    kept: list[tuple[Problem, set[str]]] = []
    for _ in range(_MAX_DRAWS):
        if len(kept) == count:
            break
        problem = draw()
        own = set(shingles(f"{problem.problem}\n{problem.thought}"))
        if len(own) >= _MIN_SHINGLES and all(
            len(own & others) <= _MAX_LIKENESS * len(own | others) for _, others in kept
        ):
            kept.append((problem, own))
    if len(kept) < count:
        raise ConfigError(
            f"near-duplicates need {count} long problems unlike each other and {_MAX_DRAWS} draws "
            f"gave {len(kept)}; take more families, or fewer records"
        )
    return [problem for problem, _ in kept]
