"""What a source reads: a draft of a sample with all that a filter needs to judge it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from falcon_h1r.errors import ConfigError
from falcon_h1r.train.samples import Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A record as read, before any filter."""

    where: str
    """Where it stands: "line 3 of chains.jsonl"."""
    problem: str
    thought: str
    answer: str
    """The reference answer, or the one the text ends on where there is no reference."""
    family: str
    level: int
    source: str
    style: str
    final: str | None = None
    """The answer the text itself arrives at, where it was read apart from the reference."""
    is_cut: bool = False
    """Whether the text ends before its thought does."""
    steps: tuple[tuple[str, str], ...] = ()
    """Calculator marks: (expression, result)."""
    judge: Callable[[str], bool] | None = None
    """The source's own verdict on an answer, where it has one."""
    pass_rate: float | None = None
    has_reference: bool = True
    """False where the answer is only what the text itself ends on."""
    checked_by: str = "nothing"
    """What the answer was verified by; the filters fill it in."""

    def sample(self) -> Sample:
        """The sample that is written."""
        return Sample(
            problem=self.problem,
            thought=self.thought,
            answer=self.answer,
            family=self.family,
            level=self.level,
            source=self.source,
            style=self.style,
            pass_rate=self.pass_rate,
        )

    def but(self, **changes: object) -> "Draft":
        """The same draft with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True, slots=True)
class Broken:
    """A record that holds no draft."""

    where: str
    reason: str
    """A key of the report: "broken line" or "no answer"."""
    message: str


Record = Draft | Broken
Position = tuple[int, int]
"""Where a source reads on: numbers that only the source itself understands."""
START: Position = (0, 0)


class Source(Protocol):
    """A sequence of records that can be read on from any position it has named."""

    name: str

    def read(self, position: Position, limit: int) -> tuple[list[Record], Position | None]:
        """Up to `limit` records from `position`, and where to go on; None: the end."""

    def share(self, position: Position) -> float | None:
        """How much of the source lies before a position; None where that is not known."""


def missing(package: str, what: str) -> ConfigError:
    """The error that names the extra."""
    return ConfigError(f"{what} needs {package}; pip install 'falcon-h1r[curate]'")
