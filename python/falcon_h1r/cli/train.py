"""Train a model by a recipe; the same command again resumes."""

import argparse
import sys

INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `falcon-h1r train`."""
    methods = parser.add_subparsers(dest="method", required=True, metavar="METHOD")
    sft = methods.add_parser("sft", help="supervised fine-tuning", allow_abbrev=False)
    sft.add_argument(
        "--recipe", required=True, metavar="NAME_OR_PATH", help="name of a recipe or a YAML file"
    )
    sft.add_argument(
        "--output", required=True, metavar="DIR", help="checkpoints, metrics.jsonl, final/"
    )
    sft.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="change one key of the recipe, such as optimizer.steps=100; may be repeated",
    )
    sft.add_argument("--fresh", action="store_true", help="start over instead of resuming")


def run(args: argparse.Namespace) -> int:
    """Train to the end; 130 when interrupted, with a checkpoint that the next call resumes.

    Raises ConfigError for a recipe that is not usable, TrainingError for damaged state.
    """
    from falcon_h1r.train.sft import run_sft

    def report(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    final = run_sft(args.recipe, args.output, args.overrides, fresh=args.fresh, report=report)
    if final is None:
        return INTERRUPTED
    report(f"the model is in {final}")
    return 0
