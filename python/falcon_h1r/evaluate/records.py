"""What is kept of a measured problem, and the file it is appended to. Imports no torch.

A folder of results holds `run.json` (what was measured, with which settings), `items.jsonl` (a line
a problem and run, appended when it is done) and the report. A line cut off by a crash is dropped.
"""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from falcon_h1r.errors import ConfigError
from falcon_h1r.evaluate.items import ItemId

Run = Literal["greedy", "full", "deepconf"]
"""One trace at temperature 0; the whole budget in full; DeepConf within the same budget."""
RUNS: tuple[Run, ...] = ("greedy", "full", "deepconf")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """One problem in one run."""

    key: str
    task: str
    level: int | None
    """Key, task and level are the item's."""
    run: Run
    answer: str | None
    """What the run answers: "full" the plain majority of all traces, "deepconf" its vote."""
    is_right: bool
    num_prompt_tokens: int
    answers: list[str | None] = field(default_factory=list)
    """The answer of every trace, in trace order."""
    rights: list[bool] = field(default_factory=list)
    """Whether each of them is right."""
    lengths: list[int] = field(default_factory=list)
    """Tokens of every trace."""
    stopped_by: dict[str, int] = field(default_factory=dict)
    """How many traces ended in which way."""
    seconds: float = 0.0
    """Wall time since the problem before it was done: problems overlap, so only sums tell."""
    num_tokens_saved: int = 0
    """DeepConf's own estimate, beside which the measured figure stands."""
    does_not_fit: bool = False
    """The prompt leaves no room for an answer: counted as wrong."""

    @property
    def item(self) -> ItemId:
        """The item it is of."""
        return ItemId(self.key, self.task, self.level)

    @property
    def num_tokens(self) -> int:
        """Tokens of all traces."""
        return sum(self.lengths)


class Store:
    """The records of a folder, or of this process where `folder` is None."""

    def __init__(self, folder: Path | None, header: dict[str, Any]) -> None:
        """Open or continue a folder.

        Raises ConfigError when it holds results of other settings, naming the first difference.
        """
        self.records: dict[tuple[str, Run], RunRecord] = {}
        self._file = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "run.json"
        if path.exists():
            _check_same(path, header)
        write_whole(path, json.dumps(header, indent=1) + "\n")
        items = folder / "items.jsonl"
        whole = 0
        if items.exists():
            self.records, whole = _read(items)
        self._file = items.open("ab")
        self._file.truncate(whole)

    def add(self, record: RunRecord) -> None:
        """Keep a record; when this returns it is on the disk."""
        self.records[(record.key, record.run)] = record
        if self._file is not None:
            self._file.write(json.dumps(dataclasses.asdict(record)).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def read_folder(folder: str | Path) -> tuple[dict[str, Any], dict[tuple[str, Run], RunRecord]]:
    """Return the header and the records of a folder of results; ConfigError if it is none."""
    path = Path(folder) / "run.json"
    if not path.is_file():
        raise ConfigError(f"{str(folder)!r} holds no run.json; give the --output of an eval")
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ConfigError(f"{path} is not JSON; run the eval again into a new folder") from None
    items = Path(folder) / "items.jsonl"
    records = _read(items)[0] if items.exists() else {}
    return header, records


def _read(path: Path) -> tuple[dict[tuple[str, Run], RunRecord], int]:
    """Return the records of a file and how many of its bytes are whole lines."""
    records: dict[tuple[str, Run], RunRecord] = {}
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    for number, line in enumerate(data[:whole].splitlines(), start=1):
        try:
            record = RunRecord(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"line {number} of {path} is damaged ({error}); remove the line or the folder"
            ) from None
        records[(record.key, record.run)] = record
    return records, whole


def _check_same(path: Path, header: dict[str, Any]) -> None:
    try:
        found = json.loads(path.read_text())
    except ValueError:
        raise ConfigError(f"{path} is not JSON; give another output folder") from None
    for key in ("model", "config"):
        ours, theirs = _flat(header[key]), _flat(found.get(key, {}))
        for name in ours | theirs:
            if ours.get(name) != theirs.get(name):
                raise ConfigError(
                    f"{path.parent} holds results with {name} {theirs.get(name)!r}, and now it is "
                    f"{ours.get(name)!r}: give another output folder, or the same settings"
                )


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings with dotted names, as they come back from JSON."""
    flat: dict[str, Any] = {}
    for name, item in json.loads(json.dumps(value)).items():
        flat |= _flat(item, f"{prefix}{name}.") if isinstance(item, dict) else {prefix + name: item}
    return flat


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    draft = path.with_name(path.name + ".part")
    with draft.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
