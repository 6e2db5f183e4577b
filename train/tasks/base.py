"""What a generated problem is, and which problems are never trained on."""

from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Protocol

from falcon_h1r.train.tasks.benchmark import is_benchmark_key

HELD_OUT_PERCENT = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One problem with a chain of thought that was checked by execution."""

    problem: str
    """What the user types."""
    thought: str
    """The chain of thought, without the think markers."""
    answer: str
    """The final answer, as it appears in "The answer is ..."."""
    family: str
    """Name of the family, a key of `FAMILIES`."""
    level: int
    """1 easy, 2 the level that is evaluated, 3 beyond it."""
    keys: tuple[str, ...]
    """Operands in a wording-free form; the first is the problem itself, others are parts of it
    that would give away a problem of another family. Empty: a drill that is never evaluated."""

    @property
    def response(self) -> str:
        """What follows the opening think marker, up to the end of the turn."""
        return f"{self.thought}\n</think>\nThe answer is {self.answer}."


class Family(Protocol):
    """A module of this package: `generate` draws a problem, `verify` solves it another way."""

    def generate(self, rng: Random, level: int) -> Problem:
        """Draw one problem of the given level."""

    def verify(self, problem: Problem) -> bool:
        """Solve the text of the problem by execution and check every step of the thought."""


def is_held_out_key(key: str) -> bool:
    """Whether the operands `key` belong to the evaluation (about 5 % do, by hash)."""
    digest = blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % 100 < HELD_OUT_PERCENT


def is_held_out(problem: Problem) -> bool:
    """Whether the problem itself belongs to our evaluation, whatever its wording.

    A known item of a public benchmark does not: nothing may be chosen or calibrated by it.
    """
    key = problem.keys[0] if problem.keys else ""
    return bool(key) and is_held_out_key(key) and not is_benchmark_key(key)


def may_train(problem: Problem) -> bool:
    """Whether neither the problem nor a part of it belongs to our evaluation or a known one."""
    return not any(is_held_out_key(key) or is_benchmark_key(key) for key in problem.keys)
