"""Runs that differ in one thing: trained once, measured on the same problems, compared in pairs.

Every run has its folder and is whole, or goes on where it stopped, when it is asked for again.
"""

import json
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from falcon_h1r.errors import ConfigError, FalconH1RError
from falcon_h1r.evaluate import EvalConfig, EvalResult, Item, evaluate
from falcon_h1r.evaluate.items import numbered
from falcon_h1r.evaluate.machine import machine, utc_now
from falcon_h1r.evaluate.records import write_whole
from falcon_h1r.evaluate.run import Progress
from falcon_h1r.llm import LLM
from falcon_h1r.thinking.deepconf import DeepConf
from falcon_h1r.train.config import RECIPE, known_name, load_recipe, recipe_text, require
from falcon_h1r.train.grpo import run_grpo
from falcon_h1r.train.held_out import reference_items
from falcon_h1r.train.loop import FINAL, METRICS, Report, duration
from falcon_h1r.train.recipe_rl import GrpoRecipe
from falcon_h1r.train.recipe_sft import SftRecipe
from falcon_h1r.train.sft import run_sft
from falcon_h1r.train.tasks import EVALUATED

Method = Literal["sft", "grpo"]
SPENT = "processor_seconds.json"
_INTERVAL = 15.0
"""Seconds between two lines of progress of an evaluation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """A run that has ended."""

    model: Path
    processor_seconds: float
    """Of this process while it trained, all calls together."""
    metrics: list[dict[str, Any]]
    """A mapping a step."""

    def late(self, name: str) -> float:
        """Mean of a metric over the last fifth of the steps."""
        last = self.metrics[-max(1, len(self.metrics) // 5) :]
        return sum(float(line[name]) for line in last) / len(last)


def train_once(
    method: Method, recipe: str | Path, output: Path, overrides: Sequence[str], report: Report
) -> Trained:
    """Train in `output` unless that is done; an earlier call that was stopped is resumed.

    Raises ConfigError when the folder is of other settings, KeyboardInterrupt when it was stopped.
    """
    if method == "sft":
        wanted = recipe_text(load_recipe(SftRecipe, recipe, overrides))
    else:
        wanted = recipe_text(load_recipe(GrpoRecipe, recipe, overrides))
    known = output / RECIPE
    if known.exists() and known.read_text() != wanted:
        raise ConfigError(
            f"{output} was trained with other settings; give another --output, or the same"
        )
    spent = output / SPENT
    before = json.loads(spent.read_text()) if spent.exists() else 0.0
    if not (output / FINAL).exists():
        began = time.process_time()

        def told(line: str) -> None:
            write_whole(spent, json.dumps(before + time.process_time() - began))
            report(line)

        train: Callable[..., Path | None] = run_sft if method == "sft" else run_grpo
        if train(recipe, output, overrides, report=told) is None:
            told("stopped")
            raise KeyboardInterrupt
        told("trained")
        before = json.loads(spent.read_text())
    lines = (output / METRICS).read_text(encoding="utf-8").splitlines()
    return Trained(
        model=output / FINAL,
        processor_seconds=before,
        metrics=[json.loads(line) for line in lines],
    )


def weighted_families(names: str = "") -> dict[str, float]:
    """Families by name ("sums,lies"; "": all of `reference_grpo`) with that recipe's weights."""
    weights = load_recipe(GrpoRecipe, "reference_grpo").data.families
    return {name: weights.get(name, 1.0) for name in names.split(",")} if names else weights


def held_out_items(
    families: Iterable[str], levels: Iterable[int], count: int, seed: int = 0
) -> list[Item]:
    """Held-out problems, `count` a family and level; a level that is only a drill has none."""
    families, levels, items = list(families), list(levels), []
    for family in families:
        known_name(family, EVALUATED, family, "a family that is measured")
    for level in levels:
        require(level in (1, 2, 3), "level", level, "1, 2 or 3")
        for family in families:
            try:
                items += reference_items(f"reference:{family}@{level}", count, seed=seed)
            except ConfigError:  # products at level 1
                continue
    return numbered(items)


def measure(
    model: Path, items: Sequence[Item], output: Path, config: EvalConfig, report: Report
) -> EvalResult:
    """Evaluate a model into a folder, or read it back; KeyboardInterrupt when it was stopped."""
    last = time.monotonic()

    def progress(now: Progress) -> None:
        nonlocal last
        if time.monotonic() - last > _INTERVAL:
            last = time.monotonic()
            rate = now.num_tokens / max(now.seconds, 1e-9)
            report(f"{now.done}/{now.total} problems measured, {rate:.0f} tokens/s")

    with LLM(model) as llm:
        result = evaluate(llm, items, config, output=output, progress=progress)
    if result.interrupted:
        raise KeyboardInterrupt
    return result


def plain_sampling(traces: int, max_tokens: int) -> EvalConfig:
    """Pass@1 over so many traces a problem, at temperature 1 over the whole distribution."""
    return EvalConfig(
        modes=("pass@1",),
        deepconf=DeepConf(budget=traces),
        temperature=1.0,
        top_p=1.0,
        max_tokens=max_tokens,
    )


def values(results: Sequence[EvalResult], keys: Sequence[str]) -> list[list[float]]:
    """Pass@1 by run and problem."""
    return [result.values("pass@1", keys) for result in results]


def mean_tokens(results: Sequence[EvalResult], keys: Sequence[str]) -> list[float]:
    """Mean tokens of a response to each problem, over the runs."""
    sums = [0.0] * len(keys)
    for result in results:
        for i, key in enumerate(keys):
            lengths = result.records[key, "full"].lengths
            sums[i] += sum(lengths) / max(1, len(lengths)) / len(results)
    return sums


def run_script(work: Callable[[], None], show: Report) -> int:
    """Do the work of a script; 130 where it was stopped, 1 with a line where it could not be."""
    try:
        work()
    except KeyboardInterrupt:
        show("stopped; the same command goes on from here")
        return 130
    except FalconH1RError as error:
        show(f"error: {error}")
        return 1
    return 0


def settings(args: Namespace) -> dict[str, Any]:
    """The settings of a script, without the folders of one machine."""
    folders = ("model", "output", "results")
    kept = {name: value for name, value in vars(args).items() if name not in folders}
    return kept | {"model": Path(args.model).name}


class Board:
    """Tells which of the runs is at work, and how long the rest will take."""

    def __init__(self, total: int, show: Report) -> None:
        self.total, self.show = total, show
        self.done, self.name, self.began = 0, "", time.monotonic()

    def start(self, name: str) -> Report:
        """Begin the next part; what it reports is shown behind its name."""
        if self.done:
            left = (time.monotonic() - self.began) / self.done * (self.total - self.done)
            self.show(f"about {duration(left)} left")
        self.done += 1
        self.name = name
        return self.report

    def report(self, line: str) -> None:
        """Show a line of the part at work."""
        self.show(f"[{self.done}/{self.total}] {self.name}: {line}")


def save_rows(
    folder: Path, name: str, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> Path:
    """Write `folder`/NAME-DATE.json: what was measured, where, when and with which settings."""
    folder.mkdir(parents=True, exist_ok=True)
    now = utc_now()
    result = {
        "bench": name,
        "date": now,
        "machine": machine(),
        "settings": dict(settings),
        "rows": [dict(row) for row in rows],
    }
    path = folder / f"{name}-{now[:10]}.json"
    write_whole(path, json.dumps(result, indent=1) + "\n")
    return path
