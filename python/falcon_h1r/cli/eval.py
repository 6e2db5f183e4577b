"""Measure a model on tasks: greedy, pass@k, majority and DeepConf, with 95 % intervals.

Tasks are read from local files of their original formats; nothing is downloaded:
  gsm8k[/train]             DIR/gsm8k/test.jsonl
  math[/SUBJECT]            DIR/MATH/test/SUBJECT/*.json
  bbh[/TASK]                DIR/bbh/TASK.json (BIG-Bench-Hard)
  arc_easy, arc_challenge   DIR/ARC-Easy/ARC-Easy-Test.jsonl and so on
  jsonl:FILE                {"problem": ..., "answer": ...} a line
  reference[:FAMILY][@LEVEL]  held-out problems of the generators, no file needed

With --output every result is kept at once and the same command goes on where it stopped; the
folder gets report.html, report.png and results.json.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from falcon_h1r.cli.options import (
    DEEPCONF_OPTIONS,
    add_deepconf_options,
    add_model_options,
    add_sampling_options,
    given,
    load_llm,
)
from falcon_h1r.errors import ConfigError

if TYPE_CHECKING:
    from falcon_h1r.evaluate.items import Item
    from falcon_h1r.evaluate.overlap import Overlap
    from falcon_h1r.evaluate.results import EvalResult
    from falcon_h1r.evaluate.run import Progress

INTERRUPTED = 130
BUDGET = 32
RECIPE_DRAWS = 100_000
"""Problems drawn of a recipe's generators to state an overlap."""
PLAIN_SECONDS = 20.0
"""Time between two lines of progress where standard error is no terminal."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `falcon-h1r eval`."""
    parser.add_argument("--tasks", metavar="NAME,NAME", help="see above")
    parser.add_argument("--data", metavar="DIR", help="folder that holds the tasks' files")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="first N problems a task (reference: 100 a level)"
    )
    parser.add_argument(
        "--modes",
        default="greedy,pass@1,majority,deepconf",
        help="of greedy, pass@K, majority, deepconf (default: greedy,pass@1,majority,deepconf)",
    )
    think = add_deepconf_options(parser, budget=BUDGET)
    think.add_argument(
        "--replay",
        action="store_true",
        help="replay DeepConf over the full traces instead of running it: its vote, not its time",
    )
    add_sampling_options(parser)
    add_model_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--output", metavar="DIR", help="keep results and write the report here")
    output.add_argument("--json", action="store_true", help="the rows as one JSON object")
    output.add_argument(
        "--training-set",
        action="append",
        default=[],
        metavar="JSONL_DIR_OR_recipe:NAME",
        help="state the overlap of the problems with it (of a recipe's generators: the first "
        "100,000 draws); may be repeated",
    )
    output.add_argument(
        "--card", metavar="README", help="put the tables into a model card, between its marks"
    )
    output.add_argument(
        "--compare",
        nargs="+",
        metavar="DIR",
        help="put the folders of earlier runs beside each other instead of running",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate and show the tables; return the exit status.

    Raises ConfigError or RequestError for a refused value before the model is loaded.
    """
    if args.compare:
        return _compare(args)
    if not args.tasks:
        raise ConfigError("--tasks is missing; name tasks, such as --tasks gsm8k,bbh/navigate")
    from falcon_h1r.evaluate.card import EVALUATION, check_card
    from falcon_h1r.evaluate.run import EvalConfig, evaluate
    from falcon_h1r.thinking.deepconf import DeepConf

    deepconf = DeepConf(**{"budget": BUDGET} | given(args, DEEPCONF_OPTIONS))
    config = EvalConfig(
        modes=tuple(mode for mode in args.modes.split(",") if mode),
        deepconf=deepconf,
        replay=args.replay,
        seed=args.seed or 0,
        **given(args, ("temperature", "top_p", "max_tokens")),
    )
    for name in args.training_set:
        if not name.startswith("recipe:") and not Path(name).exists():
            raise ConfigError(f"no such file or folder: {name!r}; give the training set")
    if args.card:
        check_card(args.card, EVALUATION)
    items = read_items(args.tasks, args.data, args.limit)
    overlaps = _overlaps(items, args.training_set)
    with load_llm(args) as llm:
        result = evaluate(
            llm,
            items,
            config,
            output=args.output,
            progress=_reporter(),
            command=shlex.join(["falcon-h1r", "eval", *sys.argv[2:]]),
        )
    return _show(args, result, overlaps)


def read_items(tasks: str, data: str | None = None, limit: int | None = None) -> list["Item"]:
    """Return the items of a list of task names, "reference" and its parts included.

    What two names have in common counts once.
    """
    from falcon_h1r.evaluate.load import distinct, load_items
    from falcon_h1r.train.held_out import reference_items

    names = [name for name in tasks.split(",") if name]
    if not names:
        raise ConfigError("no task was given; name one, such as --tasks bbh")
    items = []
    for name in dict.fromkeys(names):
        if name.startswith("reference"):
            items += reference_items(name, limit)
        else:
            items += load_items([name], data, limit)
    return distinct(items)


def _overlaps(items: list["Item"], names: list[str]) -> list["Overlap"]:
    from falcon_h1r.evaluate.overlap import measure_overlap, training_texts
    from falcon_h1r.train.held_out import recipe_texts

    overlaps = []
    for name in names:
        if name.startswith("recipe:"):
            texts = recipe_texts(name.removeprefix("recipe:"), RECIPE_DRAWS)
        else:
            texts = training_texts(Path(name))
        overlaps.append(measure_overlap(items, texts, name))
    return overlaps


def _reporter() -> "Callable[[Progress], None]":
    """Return what shows progress on standard error: one line that moves, or a line at times."""
    last = time.perf_counter()
    is_terminal = sys.stderr.isatty()

    def report(progress: "Progress") -> None:
        nonlocal last
        now, is_last = time.perf_counter(), progress.done == progress.total
        if now - last < (0.2 if is_terminal else PLAIN_SECONDS) and not is_last:
            return
        last = now
        speed = progress.num_tokens / progress.seconds
        line = f"{progress.done}/{progress.total} {progress.run}, {speed:,.0f} tokens/s"
        end = "\n" if is_last or not is_terminal else ""
        sys.stderr.write(f"\r\x1b[K{line}{end}" if is_terminal else line + end)
        sys.stderr.flush()

    return report


def _show(args: argparse.Namespace, result: "EvalResult", overlaps: "list[Overlap]") -> int:
    from falcon_h1r.evaluate import figure, report, tables
    from falcon_h1r.evaluate.card import write_card

    if args.json:
        data = result.to_dict() | {"overlap": [overlap.sentence() for overlap in overlaps]}
        sys.stdout.write(json.dumps(data) + "\n")
    elif result.done():
        parts = [tables.plain(tables.accuracy_table(result))]
        parts += [tables.plain(tables.speed_table(result)), report.stopped(result)]
        parts += [overlap.sentence() for overlap in overlaps]
        sys.stdout.write("\n\n".join(parts) + "\n")
    if args.output:
        paths = report.write_report(result, args.output, overlaps)
        sys.stderr.write(f"report: {', '.join(map(str, paths))}\n")
        if not figure.has_matplotlib():
            sys.stderr.write("no figure: pip install 'falcon-h1r[report]'\n")
    if args.card and result.done() and not result.interrupted:
        write_card(args.card, result)
    if result.interrupted:
        done = f"interrupted: {len(result.done())} of {len(result.items)} problems are done"
        sys.stderr.write(done + ("; the same command goes on\n" if args.output else "\n"))
        return INTERRUPTED
    return 0


def _compare(args: argparse.Namespace) -> int:
    from falcon_h1r.evaluate.compare import compare_table, write_comparison
    from falcon_h1r.evaluate.results import EvalResult
    from falcon_h1r.evaluate.tables import plain

    results = [EvalResult.load(folder) for folder in args.compare]
    names = [str(folder) for folder in args.compare]
    table = compare_table(results, names)
    if args.json:
        head, rows = table
        sys.stdout.write(json.dumps([dict(zip(head, row, strict=True)) for row in rows]) + "\n")
    else:
        sys.stdout.write(plain(table) + "\n")
    if args.output:
        paths = write_comparison(results, names, args.output)
        sys.stderr.write(f"report: {', '.join(map(str, paths))}\n")
    return 0
