"""What a rollout earns: right, well formed, reasoned in verified steps, brief where all are right.

Depth counts content, never length: distinct lines that are among the problem's facts or are
equations that hold. Every term is in [0, 1] (brevity in [-1, 1]) and returned by itself; the
recipe's weights join them.
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from falcon_h1r.errors import TrainingError
from falcon_h1r.thinking.answers import canonical, extract, verdict
from falcon_h1r.thinking.judge import Judge
from falcon_h1r.train.config import require
from falcon_h1r.train.tasks import FAMILIES
from falcon_h1r.train.tasks.steps import check_steps, is_step

END_OF_THOUGHT = "</think>"
CPU_SECONDS = 0.25
WALL_SECONDS = 1.0
"""Limits of one comparison by math-verify: work first, the clock as last resort."""
GRACE_SECONDS = 0.7
"""After this much more the judge itself is taken for stuck: none may hold the loop for 2 s."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardRecipe:
    """Weights of the terms."""

    correctness: float = 1.0
    """The answer is right by the verifier."""
    format: float = 0.1
    """Ends by itself with one closed, non-empty thought and an answer after it."""
    depth: float = 0.2
    """Distinct verified lines, as many and as dense as in the reference thought."""
    brevity: float = 0.1
    """Shorter than the group's mean, in proportion; only where the group is already right."""
    brevity_from: float = 1.0
    """Share of a group that must be right before brevity acts in it."""
    length: float = 0.0
    """Tokens over the most allowed: a bad reward, here for the ablation that shows it."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            require(0 <= value < float("inf"), f"reward.{f.name}", value, "0 or more and finite")
        require(any(getattr(self, name) for name in TERMS), "reward", asdict(self),
                "one positive weight at least: no term counts")  # fmt: skip
        require(0 < self.brevity_from <= 1, "reward.brevity_from", self.brevity_from, "in (0, 1]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """One rollout's terms, before weights; stored with the rollout."""

    correctness: float
    format: float
    depth: float
    brevity: float = 0.0
    length: float = 0.0

    def total(self, weights: RewardRecipe) -> float:
        """The reward."""
        return float(sum(getattr(weights, name) * value for name, value in asdict(self).items()))


TERMS = tuple(f.name for f in fields(Terms))


class Verdicts:
    """Whether answers equal what was expected; what math-verify said is kept in a file.

    A resumed run reads the file and so sees the verdicts of the first, whatever the clock says.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.judge = Judge(CPU_SECONDS, WALL_SECONDS, GRACE_SECONDS)
        self.known: dict[tuple[str, str], bool] = {}
        self.longest_seconds = 0.0
        """Longest time one comparison has taken."""
        if path is not None and path.exists():
            self._read(path)

    def equal(self, expected: str, given: str) -> bool:
        """Whether two canonical answers are equal; one that hits the judge's limit is not."""
        key = (expected, given)
        if key not in self.known:
            began = time.monotonic()
            asked = False

            def ask(a: str, b: str) -> bool | None:
                nonlocal asked
                asked = True
                return self.judge.equal(a, b)

            self.known[key] = bool(verdict(expected, given, ask))
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
            if asked and self.path is not None:
                self._append([expected, given, self.known[key]])
        return self.known[key]

    def _read(self, path: Path) -> None:
        """Take over what a file holds; a last line torn by a kill goes, and is judged again."""
        text = path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            os.truncate(path, len(whole))  # else the next verdict would be glued to it
        for line in whole.splitlines():
            try:
                expected, given, equal = json.loads(line)
            except (ValueError, TypeError):
                continue
            self.known[expected, given] = bool(equal)

    def _append(self, entry: list[object]) -> None:
        assert self.path is not None
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise TrainingError(
                f"could not write {self.path}: {error}; make room and resume"
            ) from error

    def close(self) -> None:
        """End the judge's process."""
        self.judge.close()


def is_right(answer: str | None, expected: str, family: str, verdicts: Verdicts) -> bool:
    """Whether an extracted answer is the expected one.

    Generated families have one way to write an answer; everything else goes to the verdicts.
    """
    if answer is None:
        return False
    wanted, given = canonical(expected), canonical(answer)
    if wanted == given:
        return True
    return family not in FAMILIES and verdicts.equal(wanted, given)


def verified_lines(thought: str, reference_thought: str) -> tuple[int, int]:
    """Return how many distinct lines of a thought (held, are broken equations).

    A line holds when it is a line of the reference (a fact of the problem), or an equation that is
    true; the same equation behind another label is not another one. What is neither a fact nor an
    equation counts for nothing.
    """
    facts = {line.strip() for line in reference_thought.split("\n")} - {""}
    lines = {line.strip() for line in thought.split("\n")} - {""}
    true: set[str] = set()
    broken = 0
    for line in lines - facts:
        if is_step(line):
            if check_steps(line):
                true.add(line.rpartition(":")[2])
            else:
                broken += 1
    return len(lines & facts) + len(true), broken


def depth(thought: str, num_tokens: int, reference_thought: str, reference_tokens: int) -> float:
    """Coverage x density in [0, 1]: verified steps, as many and as close together as needed.

    good = held - broken lines; coverage = min(1, good / lines of the reference); density =
    min(1, good per token / the reference's lines per token). Repeating, padding and unverified
    talk lower the density; leaving steps out lowers the coverage. Tokens are the responses'.
    """
    wanted = len({line.strip() for line in reference_thought.split("\n")} - {""})
    if not wanted or not num_tokens:
        return 0.0
    held, broken = verified_lines(thought, reference_thought)
    good = max(0, held - broken)
    coverage = min(1.0, good / wanted)
    density = min(1.0, (good / num_tokens) / (wanted / max(1, reference_tokens)))
    return coverage * density


def is_well_formed(text: str, ended: bool) -> bool:
    """Whether a response ends by itself with one closed, non-empty thought and text after it.

    The opening marker stands in the prompt.
    """
    thought, closed, after = text.partition(END_OF_THOUGHT)
    return (
        ended
        and bool(closed)
        and END_OF_THOUGHT not in after
        and "<think>" not in text
        and bool(thought.strip())
        and bool(after.strip())
    )


def response_answer(text: str) -> str | None:
    """The answer a response gives after its thought; None while the thought is open."""
    _, closed, after = text.rpartition(END_OF_THOUGHT)
    return extract(after) if closed else None


def brevity(lengths: Sequence[int], right: Sequence[bool], from_share: float) -> list[float]:
    """(mean - length) / mean among a group's right rollouts, cut to [-1, 1]; else 0.

    Acts only in a group of which at least `from_share` is right, and there on the right ones only:
    being brief never pays instead of being right.
    """
    count = sum(right)
    if not count or count < from_share * len(right):
        return [0.0] * len(right)
    mean = sum(n for n, r in zip(lengths, right, strict=True) if r) / count
    return [
        max(-1.0, min(1.0, (mean - n) / mean)) if r else 0.0
        for n, r in zip(lengths, right, strict=True)
    ]
