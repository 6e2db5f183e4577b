"""What an evaluation comes to: rows of measures a task, a group and in all. Imports no torch."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from falcon_h1r.evaluate import statistics
from falcon_h1r.evaluate.items import ItemId
from falcon_h1r.evaluate.records import RUNS, Run, RunRecord, read_folder
from falcon_h1r.evaluate.statistics import Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Tokens, time and operations of one run over the problems of a row."""

    num_problems: int
    num_tokens: int
    """Generated, all traces."""
    seconds: float
    """0 where nothing was run: DeepConf replayed."""
    flops: float
    """Mean over the problems, prompt included; nan where the model's sizes are not known."""

    @property
    def tokens_per_problem(self) -> float:
        """Generated tokens of a problem, mean."""
        return self.num_tokens / self.num_problems if self.num_problems else math.nan

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens of all problems over the wall time."""
        return self.num_tokens / self.seconds if self.seconds else math.nan

    @property
    def seconds_per_problem(self) -> float:
        """Wall time over the problems, which run side by side."""
        return self.seconds / self.num_problems if self.seconds else math.nan

    @property
    def seconds_per_100_tokens(self) -> float:
        """Wall time of 100 tokens of thought."""
        return 100 * self.seconds / self.num_tokens if self.seconds else math.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """The measures of one task (and level), of a group of tasks, or of everything."""

    task: str
    level: int | None
    num_problems: int
    """Problems that every run of the row has done."""
    accuracy: dict[str, Estimate]
    """By mode: "greedy", "pass@1", "pass@8", "majority", "deepconf"; those that were asked for."""
    difference: Estimate | None
    """DeepConf's accuracy minus the majority's on the same problems."""
    saved: Estimate | None
    """Share of the tokens of the whole budget that DeepConf did not spend, measured."""
    saved_estimate: float | None
    """The same as DeepConf itself estimates it."""
    speed: dict[Run, Speed]
    stopped_by: dict[str, int]
    """How DeepConf's traces ended."""
    does_not_fit: int
    """Problems whose prompt leaves no room for an answer; they count as wrong."""

    @property
    def name(self) -> str:
        """Task with its level."""
        return self.task if self.level is None else f"{self.task}@{self.level}"


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalResult:
    """Everything that was measured. `rows()` are the tables, `report` draws them."""

    items: list[ItemId]
    records: dict[tuple[str, Run], RunRecord]
    modes: tuple[str, ...]
    header: dict[str, Any]
    """Model, configuration, machine, date and command."""
    interrupted: bool = False

    @classmethod
    def load(cls, folder: str | Path) -> "EvalResult":
        """Read a folder of results back; ConfigError when it is none."""
        header, records = read_folder(folder)
        found = dict.fromkeys(record.item for record in records.values())
        items = sorted(found, key=lambda item: (item.task, item.level or 0))
        return cls(items=items, records=records, modes=tuple(header["modes"]), header=header)

    @property
    def budget(self) -> int:
        """Traces of a problem, in every run but the greedy one."""
        return int(self.header["config"]["deepconf"]["budget"])

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs that the modes need."""
        return runs_of(self.modes)

    def done(self) -> list[ItemId]:
        """Return the items that every run has done."""
        return [i for i in self.items if all((i.key, run) in self.records for run in self.runs)]

    def rows(self) -> list[Row]:
        """Return a row a task and level, in the order of the items."""
        rows: dict[tuple[str, int | None], list[ItemId]] = {}
        for item in self.done():
            rows.setdefault((item.task, item.level), []).append(item)
        return [self._row(task, level, items) for (task, level), items in rows.items()]

    def group_rows(self) -> list[Row]:
        """Return the rows that stand for several: a group of tasks ("bbh" of "bbh/navigate"), and
        its levels, each over all tasks of the group."""
        groups: dict[str, dict[int | None, list[ItemId]]] = {}
        for item in self.done():
            levels = groups.setdefault(item.task.partition("/")[0], {})
            levels.setdefault(item.level, []).append(item)
        rows = []
        for group, levels in groups.items():
            if (
                len(levels) > 1
                and len({item.task for part in levels.values() for item in part}) > 1
            ):
                known = sorted(level for level in levels if level is not None)
                rows += [self._row(group, level, levels[level]) for level in known]
            items = [item for part in levels.values() for item in part]
            if len({(item.task, item.level) for item in items}) > 1:
                rows.append(self._row(group, None, items))
        return rows

    def total(self) -> Row:
        """Return the row of all problems, each counting one."""
        return self._row("all", None, self.done())

    def records_of(self, run: Run, items: Iterable[ItemId]) -> list[RunRecord]:
        """Return the records of a run in the order of the items."""
        return [self.records[(item.key, run)] for item in items]

    def values(self, mode: str, keys: Iterable[str]) -> list[float]:
        """Return a mode's measure of every problem named, in [0, 1]."""
        return _values(mode, [self.records[(key, run_of(mode))] for key in keys])

    def _row(self, task: str, level: int | None, items: list[ItemId]) -> Row:
        by_run = {run: self.records_of(run, items) for run in self.runs}
        full, ours = by_run.get("full"), by_run.get("deepconf")
        tokens = {run: [float(r.num_tokens) for r in rows] for run, rows in by_run.items()}
        both = full is not None and ours is not None
        stopped: Counter[str] = Counter()
        for record in ours or []:
            stopped.update(record.stopped_by)
        spent, guessed = sum(tokens.get("deepconf", [])), 0
        guessed = sum(record.num_tokens_saved for record in ours or [])
        return Row(
            task=task,
            level=level,
            num_problems=len(items),
            accuracy={
                mode: statistics.mean(_values(mode, by_run[run_of(mode)])) for mode in self.modes
            },
            difference=statistics.difference(_rights(ours), _rights(full)) if both else None,
            saved=statistics.share_saved(tokens["deepconf"], tokens["full"]) if both else None,
            saved_estimate=guessed / (spent + guessed) if spent else None,
            speed={run: self._speed(rows) for run, rows in by_run.items()},
            stopped_by=dict(stopped),
            does_not_fit=sum(r.does_not_fit for r in next(iter(by_run.values()), [])),
        )

    def _speed(self, records: list[RunRecord]) -> Speed:
        config = self.header.get("model", {}).get("config")
        return Speed(
            num_problems=len(records),
            num_tokens=sum(record.num_tokens for record in records),
            seconds=sum(record.seconds for record in records),
            flops=_mean_flops(config, records),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return every row with its measures, ready for JSON."""
        return {
            "model": {k: v for k, v in self.header.get("model", {}).items() if k != "config"},
            "budget": self.budget,
            "interrupted": self.interrupted,
            "rows": [row_dict(row) for row in [*self.rows(), *self.group_rows(), self.total()]],
        }


def run_of(mode: str) -> Run:
    """Return the run that a mode is measured in."""
    runs: dict[str, Run] = {"greedy": "greedy", "deepconf": "deepconf"}
    return runs.get(mode, "full")


def runs_of(modes: Iterable[str]) -> tuple[Run, ...]:
    """Return the runs that modes need, each once."""
    needed = {run_of(mode) for mode in modes}
    return tuple(run for run in RUNS if run in needed)


def row_dict(row: Row) -> dict[str, Any]:
    """Return a row ready for JSON; estimates as [value, low, high]."""

    def numbers(estimate: Estimate | None) -> list[float | None] | None:
        return None if estimate is None else [_rounded(number, 4) for number in estimate]

    return {
        "task": row.task,
        "level": row.level,
        "problems": row.num_problems,
        "does_not_fit": row.does_not_fit,
        **{mode: numbers(estimate) for mode, estimate in row.accuracy.items()},
        "deepconf_minus_majority": numbers(row.difference),
        "tokens_saved": numbers(row.saved),
        "stopped_by": row.stopped_by,
        "speed": {
            run: {
                "tokens_per_problem": _rounded(speed.tokens_per_problem, 1),
                "seconds_per_problem": _rounded(speed.seconds_per_problem, 4),
                "tokens_per_second": _rounded(speed.tokens_per_second, 1),
                "seconds_per_100_tokens": _rounded(speed.seconds_per_100_tokens, 4),
                "flops_per_problem": _rounded(speed.flops, 0),
            }
            for run, speed in row.speed.items()
        },
    }


def _rounded(value: float, digits: int) -> float | None:
    """Return a number for JSON, which has no nan."""
    return round(value, digits) if math.isfinite(value) else None


def _values(mode: str, records: list[RunRecord]) -> list[float]:
    """Return the measure of every problem, in [0, 1]."""
    if not mode.startswith("pass@"):
        return _rights(records)
    k = int(mode.removeprefix("pass@"))
    return [
        statistics.pass_at_k(len(r.rights), sum(r.rights), k) if r.rights else 0.0 for r in records
    ]


def _rights(records: list[RunRecord] | None) -> list[float]:
    return [float(record.is_right) for record in records or []]


def _mean_flops(config: dict[str, Any] | None, records: list[RunRecord]) -> float:
    if not config or not records:
        return math.nan
    from falcon_h1r.evaluate.flops import query_flops
    from falcon_h1r.model.config import FalconH1Config

    sizes = FalconH1Config.from_dict(config)
    return sum(query_flops(sizes, r.num_prompt_tokens, r.lengths) for r in records) / len(records)
