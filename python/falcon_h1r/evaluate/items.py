"""Items to evaluate on, and how a list of task names becomes one. Nothing is downloaded."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from falcon_h1r.errors import ConfigError


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


def load_items(
    tasks: str | Sequence[str], data: str | Path | None = None, limit: int | None = None
) -> list[Item]:
    """Return the items of tasks such as "gsm8k", "math/algebra", "bbh", "jsonl:FILE".

    `data` is the folder that holds their files; `limit` the most items a task (of a task with
    parts, a part), the first ones of the file. Raises ConfigError that says which file to bring.
    """
    from falcon_h1r.evaluate.formats import read_task

    names = [name for name in tasks.split(",") if name] if isinstance(tasks, str) else list(tasks)
    if not names:
        raise ConfigError("no task was given; name one, such as gsm8k or bbh/navigate")
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}; it must be at least 1")
    folder = None if data is None else Path(data)
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"no such folder: {str(folder)!r}; data is the folder of the task files")
    items = [item for name in names for item in read_task(name, folder)]
    return numbered(first_of_each(items, limit))


def first_of_each(items: list[Item], limit: int | None) -> list[Item]:
    """Return the first `limit` items of every task."""
    seen: Counter[str] = Counter()
    kept = []
    for item in items:
        seen[item.task] += 1
        if limit is None or seen[item.task] <= limit:
            kept.append(item)
    return kept


def numbered(items: list[Item]) -> list[Item]:
    """Return the items with `repeat` set, so that every key occurs once."""
    seen: Counter[tuple[str, int | None, str, str]] = Counter()
    result = []
    for item in items:
        same = (item.task, item.level, item.problem, item.answer)
        result.append(dataclasses.replace(item, repeat=seen[same]))
        seen[same] += 1
    return result
