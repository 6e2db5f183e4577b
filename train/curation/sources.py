"""Where records come from: generators, JSONL, GSM8K, MATH, Parquet.

A position is (ordinal, 0) for what is generated, (byte offset, line number) for a file of lines,
(row, 0) for Parquet, (rank of the file, 0) for MATH: a run that was killed reads on from where its
last shard ended.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from falcon_h1r.errors import ConfigError
from falcon_h1r.train.curation import formats
from falcon_h1r.train.curation.drafts import Broken, Draft, Position, Record, Source, missing
from falcon_h1r.train.curation.gym import ReasoningGymSource
from falcon_h1r.train.curation.recipe import SourceRecipe
from falcon_h1r.train.tasks import FAMILIES, draw_trainable

MAX_LINE_BYTES = 16 << 20
"""Longest line that is read; a longer one counts as broken."""

Parse = Callable[[Any, str], Record]


class GeneratorSource:
    """Problems of our own families; record n is the same in every run."""

    def __init__(self, name: str, recipe: SourceRecipe, seed: int) -> None:
        self.name, self.recipe, self.seed = name, recipe, seed
        self.families = recipe.families or dict.fromkeys(FAMILIES, 1.0)
        self.count = recipe.count or 0

    def read(self, position: Position, limit: int) -> tuple[list[Record], Position | None]:
        """Draw the next problems; those held out for evaluation are drawn again."""
        first, end = position[0], min(self.count, position[0] + limit)
        records: list[Record] = [self.draw(ordinal) for ordinal in range(first, end)]
        return records, (end, 0) if end < self.count else None

    def share(self, position: Position) -> float:
        """Of the problems."""
        return position[0] / self.count

    def draw(self, ordinal: int) -> Draft:
        """The problem with this number."""
        rng = Random(f"curate {self.seed} {self.name} {ordinal}")
        family = rng.choices(list(self.families), list(self.families.values()))[0]
        levels = self.recipe.levels
        level = rng.choices(list(levels), list(levels.values()))[0]
        style = self.recipe.style or "generated"
        return generated(rng, family, level, f"problem {ordinal}", self.name, style)


def generated(rng: Random, family: str, level: int, where: str, source: str, style: str) -> Draft:
    """Draw a problem of a family that belongs to training, never to the evaluation."""
    problem = draw_trainable(rng, family, level)
    return Draft(
        where=f"{where} of {source}",
        problem=problem.problem,
        thought=problem.thought,
        answer=problem.answer,
        family=problem.family,
        level=problem.level,
        source=source,
        style=style,
    )


class LinesSource:
    """A file of JSON lines, read a few at a time; a position is where the next one starts."""

    def __init__(self, name: str, path: Path, parse: Parse) -> None:
        self.name, self.path, self.parse = name, path, parse

    def read(self, position: Position, limit: int) -> tuple[list[Record], Position | None]:
        """Read the next lines; empty ones are passed over."""
        records: list[Record] = []
        with self.path.open("rb") as file:
            file.seek(position[0])
            number = position[1]
            while len(records) < limit:
                number += 1
                line = file.readline(MAX_LINE_BYTES + 1)
                if not line:
                    return records, None
                if not line.strip():
                    continue
                where = f"line {number} of {self.path.name}"
                if len(line) > MAX_LINE_BYTES:
                    while line and not line.endswith(b"\n"):
                        line = file.readline(MAX_LINE_BYTES)
                    records.append(_broken(where, "longer than 16 MiB"))
                    continue
                records.append(self._record(line, where))
            return records, (file.tell(), number)

    def share(self, position: Position) -> float:
        """Of the bytes."""
        return position[0] / max(1, self.path.stat().st_size)

    def _record(self, line: bytes, where: str) -> Record:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            return _broken(where, f"not JSON ({str(error).partition(':')[0]})")
        return self.parse(row, where)


class FolderSource:
    """A folder of JSON files, one record a file, in the order of their paths."""

    def __init__(self, name: str, path: Path, parse: Parse) -> None:
        self.name, self.path, self.parse = name, path, parse
        self.paths = sorted(path.rglob("*.json"))
        if not self.paths:
            raise ConfigError(
                f"{path} holds no .json file; MATH's own format is one file a problem"
            )

    def read(self, position: Position, limit: int) -> tuple[list[Record], Position | None]:
        """Read the next files."""
        first, end = position[0], min(len(self.paths), position[0] + limit)
        records = [self._record(path) for path in self.paths[first:end]]
        return records, (end, 0) if end < len(self.paths) else None

    def share(self, position: Position) -> float:
        """Of the files."""
        return position[0] / len(self.paths)

    def _record(self, path: Path) -> Record:
        where = str(path.relative_to(self.path))
        try:
            return self.parse(json.loads(path.read_bytes()), where)
        except (ValueError, RecursionError) as error:
            return _broken(where, f"not JSON ({str(error).partition(':')[0]})")


class ParquetSource:
    """Rows of a Parquet file, read a batch at a time; needs the extra "curate"."""

    def __init__(self, name: str, path: Path, parse: Parse) -> None:
        try:
            from pyarrow import ArrowException
            from pyarrow.parquet import ParquetFile
        except ImportError:
            raise missing("pyarrow", f"the source {name}") from None
        self.name, self.path, self.parse = name, path, parse
        try:
            self.file: Any = ParquetFile(path)
        except ArrowException as error:
            raise ConfigError(f"{path} is not a Parquet file: {str(error)[:200]}") from None
        self._group: tuple[int, Any] = (-1, None)

    def read(self, position: Position, limit: int) -> tuple[list[Record], Position | None]:
        """Read the next rows; only the row groups they stand in are opened."""
        first, end = position[0], min(self.file.metadata.num_rows, position[0] + limit)
        rows = self._rows(first, end)
        records = [
            self.parse(row, f"row {number} of {self.path.name}")
            for number, row in enumerate(rows, start=first)
        ]
        return records, (end, 0) if end < self.file.metadata.num_rows else None

    def share(self, position: Position) -> float:
        """Of the rows."""
        return position[0] / max(1, int(self.file.metadata.num_rows))

    def _rows(self, start: int, end: int) -> Iterator[Any]:
        first = 0
        for group in range(self.file.num_row_groups):
            length = self.file.metadata.row_group(group).num_rows
            low, high = max(start, first), min(end, first + length)
            if low < high:
                if self._group[0] != group:  # many reads fall into one: it is opened once
                    self._group = (group, self.file.read_row_group(group))
                yield from self._group[1].slice(low - first, high - low).to_pylist()
            first += length


def open_source(name: str, recipe: SourceRecipe, seed: int) -> Source:
    """Open a source. Raises ConfigError naming a missing file, package or task."""
    if recipe.kind == "generator":
        return GeneratorSource(name, recipe, seed)
    if recipe.kind == "reasoning_gym":
        return ReasoningGymSource(name, recipe, seed)
    path = Path(recipe.path or "")
    if not path.exists():
        raise ConfigError(f"sources.{name}.path is {recipe.path!r}; there is no such file")
    if recipe.kind != "math" and not path.is_file():
        raise ConfigError(f"sources.{name}.path is {path}, a folder; name one file")
    family, style = recipe.family or name, recipe.style or recipe.kind
    if recipe.kind == "gsm8k":
        return LinesSource(
            name, path, lambda row, where: formats.gsm8k(row, where, name, family, style)
        )
    if recipe.kind == "math":
        if not path.is_dir():
            raise ConfigError(f"sources.{name}.path is {path}; MATH's own format is a folder")
        return FolderSource(name, path, lambda row, where: formats.math(row, where, name, style))

    def parse(row: Any, where: str) -> Record:
        return formats.chain(row, where, name, family, style, recipe.fields)

    if recipe.kind == "parquet":
        return ParquetSource(name, path, parse)
    return LinesSource(name, path, parse)


def _broken(where: str, message: str) -> Broken:
    return Broken(where=where, reason="broken line", message=message)
