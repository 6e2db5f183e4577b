"""Tasks by name: their items, read by `formats`, limited and numbered."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from falcon_h1r.errors import ConfigError
from falcon_h1r.evaluate.formats import read_task
from falcon_h1r.evaluate.items import Item, numbered


def load_items(
    tasks: str | Sequence[str], data: str | Path | None = None, limit: int | None = None
) -> list[Item]:
    """Return the items of tasks such as "gsm8k", "math/algebra", "bbh", "jsonl:FILE".

    `data` is the folder that holds their files; `limit` the most items a task (of a task with
    parts, a part), the first ones of the file. What two names have in common counts once. Raises
    ConfigError that says which file to bring.
    """
    names = [name for name in tasks.split(",") if name] if isinstance(tasks, str) else list(tasks)
    if not names:
        raise ConfigError("no task was given; name one, such as gsm8k or bbh/navigate")
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}; it must be at least 1")
    folder = None if data is None else Path(data)
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"no such folder: {str(folder)!r}; data is the folder of the task files")
    items = [item for name in names for item in numbered(read_task(name, folder))]
    return first_of_each(distinct(items), limit)


def distinct(items: Iterable[Item]) -> list[Item]:
    """Return the items without those whose key one before them has.

    Number the items of each task name first: equal ones of one name are then kept, and those of
    names that overlap ("bbh" and "bbh/navigate") are not counted twice.
    """
    kept: dict[str, Item] = {}
    for item in items:
        kept.setdefault(item.id.key, item)
    return list(kept.values())


def first_of_each(items: list[Item], limit: int | None) -> list[Item]:
    """Return the first `limit` items of every task."""
    seen: Counter[str] = Counter()
    kept = []
    for item in items:
        seen[item.task] += 1
        if limit is None or seen[item.task] <= limit:
            kept.append(item)
    return kept
