"""Train a model by a recipe; the same command again resumes."""

import argparse
import sys

INTERRUPTED = 130
METHODS = {
    "sft": "supervised fine-tuning",
    "ppo": "reinforcement learning by PPO, with a value head",
    "grpo": "reinforcement learning by GRPO, relative to a group of rollouts",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `falcon-h1r train`."""
    methods = parser.add_subparsers(dest="method", required=True, metavar="METHOD")
    for name, text in METHODS.items():
        method = methods.add_parser(name, help=text, allow_abbrev=False)
        method.add_argument(
            "--recipe",
            required=True,
            metavar="NAME_OR_PATH",
            help="name of a recipe or a YAML file",
        )
        method.add_argument(
            "--output", required=True, metavar="DIR", help="checkpoints, metrics.jsonl, final/"
        )
        method.add_argument(
            "--set",
            action="append",
            default=[],
            dest="overrides",
            metavar="KEY=VALUE",
            help="change one key of the recipe, such as optimizer.steps=100; may be repeated",
        )
        method.add_argument("--fresh", action="store_true", help="start over instead of resuming")


def run(args: argparse.Namespace) -> int:
    """Train to the end; 130 when interrupted, with a checkpoint that the next call resumes.

    Raises ConfigError for a recipe that is not usable, TrainingError for damaged state.
    """
    if args.method == "ppo":
        from falcon_h1r.train.ppo import run_ppo as train
    elif args.method == "grpo":
        from falcon_h1r.train.grpo import run_grpo as train
    else:
        from falcon_h1r.train.sft import run_sft as train

    def report(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    final = train(args.recipe, args.output, args.overrides, fresh=args.fresh, report=report)
    if final is None:
        return INTERRUPTED
    report(f"the model is in {final}")
    return 0
