"""Items to evaluate on."""

import dataclasses
from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple


class ItemId(NamedTuple):
    """What results need to know of an item."""

    key: str
    """A name that does not depend on the item's place: results are kept by it."""
    task: str
    level: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One problem with its right answer."""

    problem: str
    """What the model is asked, as it stands in the file."""
    answer: str
    """The right answer as the file gives it."""
    task: str
    """Name of its row in a table, such as "bbh/navigate"; what stands before "/" is its group."""
    level: int | None = None
    """Difficulty, where the format has one."""
    choices: tuple[str, ...] = ()
    """Texts of the lettered choices, (A) first."""
    repeat: int = 0
    """How many equal items of the task stand before it."""

    @property
    def id(self) -> ItemId:
        """The item's name, from its task, level, text and answer."""
        text = "\0".join((self.problem, self.answer, str(self.repeat)))
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        level = "" if self.level is None else f"@{self.level}"
        return ItemId(f"{self.task}{level}#{digest}", self.task, self.level)


def numbered(items: list[Item]) -> list[Item]:
    """Return the items with `repeat` set, so that every key occurs once."""
    seen: Counter[tuple[str, int | None, str, str]] = Counter()
    result = []
    for item in items:
        same = (item.task, item.level, item.problem, item.answer)
        result.append(dataclasses.replace(item, repeat=seen[same]))
        seen[same] += 1
    return result
