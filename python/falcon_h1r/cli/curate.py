"""Make one training set of many sources: filtered, deduplicated, balanced, tokenised.

The same command again goes on where it was stopped. DIR is the finished set, with report.md;
DIR.work holds what is under way.
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from falcon_h1r.cli.report import printable

if TYPE_CHECKING:
    from falcon_h1r.train.curate import Watch
    from falcon_h1r.train.loop import Report

INTERRUPTED = 130
INTERVAL = 5.0
"""Seconds between two lines of progress where there is no terminal."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `falcon-h1r curate`."""
    parser.add_argument(
        "--recipe", required=True, metavar="NAME_OR_PATH", help="name of a recipe or a YAML file"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="the folder of the set")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="change one key of the recipe, such as filters.looping=false; may be repeated",
    )
    parser.add_argument("--augment", action="store_true", help="switch augment.enabled on")
    parser.add_argument("--fresh", action="store_true", help="start over instead of resuming")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Curate; 130 when interrupted, to be resumed by the same call.

    Raises ConfigError for a recipe or folder that is not usable, TrainingError when too many
    records are broken or nothing is left.
    """
    from falcon_h1r.train.curate import run_curate

    stream = sys.stderr if args.json else sys.stdout
    with _watching(stream) as (report, watch):
        made = run_curate(
            args.recipe,
            args.output,
            args.overrides,
            augment=args.augment,
            fresh=args.fresh,
            report=report,
            watch=watch,
        )
    if made is None:
        return INTERRUPTED
    if args.json:
        sys.stdout.write(json.dumps(made, ensure_ascii=False) + "\n")
        return 0
    num_read = sum(made["read"].values())
    sys.stdout.write(f"{made['samples']} samples of {num_read} records, {_dropped(made)}\n")
    sys.stdout.write(f"the set and its report.md are in {args.output}\n")
    return 0


def _dropped(made: dict[str, Any]) -> str:
    sums = {reason: sum(by_source.values()) for reason, by_source in made["dropped"].items()}
    most = sorted(sums.items(), key=lambda item: (-item[1], item[0]))[:4]
    return "dropped " + (", ".join(f"{n} {reason}" for reason, n in most) or "none")


@contextlib.contextmanager
def _watching(stream: TextIO) -> Iterator[tuple["Report", "Watch"]]:
    """What writes lines and what shows the progress: bars on a terminal, else a line at times."""
    if not stream.isatty():
        yield _lines(stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    console = Console(file=stream, highlight=False, markup=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def show(source: str, num_read: int, num_kept: int, share: float | None) -> None:
            if source not in tasks:
                tasks[source] = bars.add_task(source, total=1.0)
            text = printable(f"{source}: {num_read} read, {num_kept} kept")
            bars.update(tasks[source], description=text, completed=share or 0.0)

        yield console.print, show


def _lines(stream: TextIO) -> tuple["Report", "Watch"]:
    last = time.monotonic()

    def report(line: str) -> None:
        stream.write(line + "\n")
        stream.flush()

    def watch(source: str, num_read: int, num_kept: int, share: float | None) -> None:
        nonlocal last
        if share == 1.0 or time.monotonic() - last > INTERVAL:
            last = time.monotonic()
            done = "" if share is None else f" ({share:.0%})"
            report(f"{source}: {num_read} records read{done}, {num_kept} samples kept")

    return report, watch
