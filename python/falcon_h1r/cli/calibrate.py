"""Choose what a model's thinking.json says, by traces on held-out problems of the generators.

Three measures of confidence, five windows and six powers of a vote's weight are judged by how often
the vote is right; then how many weak traces to stop, by replayed votes. DIR gets the model's files,
thinking.json and calibration.json. The same command again goes on where it was stopped; DIR.work
holds what is under way.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from falcon_h1r.train.judged import Part

INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `falcon-h1r calibrate`."""
    parser.add_argument(
        "--model", required=True, metavar="FOLDER_OR_HUB_ID", help="the model, with its tokenizer"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="the calibrated model")
    parser.add_argument("--families", metavar="NAME,NAME", help="default: all that are evaluated")
    parser.add_argument("--levels", default="2,3", metavar="N,N", help="default: 2,3")
    parser.add_argument(
        "--problems", type=int, default=16, metavar="N", help="a family and level (default: 16)"
    )
    parser.add_argument("--traces", type=int, default=16, metavar="N", help="a problem (16)")
    parser.add_argument(
        "--keep", type=float, metavar="SHARE", help="written as it is (default: it is searched for)"
    )
    parser.add_argument(
        "--max-tokens", type=int, default=512, metavar="N", help="of a trace (default: 512)"
    )
    parser.add_argument(
        "--card", metavar="README", help="put the table into a model card, between its marks"
    )


def run(args: argparse.Namespace) -> int:
    """Calibrate and show the choice; 130 when interrupted, to be resumed by the same call.

    Raises ConfigError for a refused value before the model is loaded.
    """
    from falcon_h1r.evaluate.card import CALIBRATION, check_card, write_section
    from falcon_h1r.hub import model_folder
    from falcon_h1r.train.calibrate import calibrate
    from falcon_h1r.train.calibration import calibration_section
    from falcon_h1r.train.recipe_mix import levels_of
    from falcon_h1r.train.tasks import EVALUATED

    levels = tuple(levels_of(args.levels))
    if args.card:
        check_card(args.card, CALIBRATION)
    try:
        found = calibrate(
            model_folder(args.model),
            Path(args.output),
            families=args.families.split(",") if args.families else EVALUATED,
            levels=levels,
            problems=_positive("problems", args.problems),
            traces=_positive("traces", args.traces),
            keep=args.keep,
            max_tokens=_positive("max-tokens", args.max_tokens),
            watch=_show,
        )
    except KeyboardInterrupt:
        sys.stdout.write("stopped; the same command goes on\n")
        return INTERRUPTED
    section = calibration_section(found)
    if args.card:
        write_section(args.card, CALIBRATION, section)
    sys.stdout.write(f"{section}\n\nthe model is in {args.output}\n")
    return 0


def _show(part: "Part") -> None:
    how = " (of an earlier run)" if part.kept else ""
    sys.stdout.write(f"{part.done}/{part.total} {part.name}: {part.right:.1%} right{how}\n")
    sys.stdout.flush()


def _positive(name: str, value: int) -> int:
    from falcon_h1r.errors import ConfigError

    if value < 1:
        raise ConfigError(f"{name} is {value}; it must be at least 1")
    return value
