"""Options that several commands share, and the making of an LLM from them."""

import argparse
from typing import TYPE_CHECKING

from falcon_h1r.errors import RequestError

if TYPE_CHECKING:
    from falcon_h1r.llm import LLM


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Declare --model, --device, --dtype and --seed."""
    parser.add_argument(
        "--model", metavar="FOLDER_OR_HUB_ID", help="default: the model in the wheel"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--seed", type=int, help="seed of the sampling (default: 0)")


def load_llm(args: argparse.Namespace) -> "LLM":
    """Return the LLM that --model, --device and --dtype name."""
    from falcon_h1r.llm import LLM

    return LLM(args.model, device=args.device, dtype=args.dtype)


def number_or_none(text: str) -> float | None:
    """Read a number or the word "none"."""
    if text.lower() == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise RequestError(f"{text!r} is not a number or none") from None
