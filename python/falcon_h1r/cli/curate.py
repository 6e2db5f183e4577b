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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from falcon_h1r.train.curate import Watch

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

    def report(line: str) -> None:
        stream.write(line + "\n")
        stream.flush()

    with _watching(stream.isatty(), report) as watch:
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
    report(f"{made['samples']} samples of {sum(made['read'].values())} records, {_dropped(made)}")
    report(f"the set and its report.md are in {args.output}")
    return 0


def _dropped(made: dict[str, Any]) -> str:
    sums = {reason: sum(by_source.values()) for reason, by_source in made["dropped"].items()}
    most = sorted(sums.items(), key=lambda item: (-item[1], item[0]))[:4]
    return "dropped " + (", ".join(f"{n} {reason}" for reason, n in most) or "none")


@contextlib.contextmanager
def _watching(is_terminal: bool, report: Any) -> Iterator["Watch"]:
    """What shows the progress: a bar for each source on a terminal, else a line now and then."""
    if not is_terminal:
        last = time.monotonic()

        def watch(source: str, num_read: int, num_kept: int, share: float | None) -> None:
            nonlocal last
            if share == 1.0 or time.monotonic() - last > INTERVAL:
                last = time.monotonic()
                done = "" if share is None else f" ({share:.0%})"
                report(f"{source}: {num_read} records read{done}, {num_kept} samples kept")

        yield watch
        return
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns) as bars:
        tasks: dict[str, TaskID] = {}

        def show(source: str, num_read: int, num_kept: int, share: float | None) -> None:
            if source not in tasks:
                tasks[source] = bars.add_task(source, total=1.0)
            text = f"{source}: {num_read} read, {num_kept} kept"
            bars.update(tasks[source], description=text, completed=share or 0.0)

        yield show
