"""Options that several commands share, and the making of an LLM from them."""

import argparse
from typing import TYPE_CHECKING, Any

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


DEEPCONF_OPTIONS = (
    "budget", "warmup", "keep", "window", "confidence", "top_logprobs", "vote", "power",
    "consensus", "total_tokens",
)  # fmt: skip
"""Options that are fields of DeepConf."""


def add_deepconf_options(parser: argparse.ArgumentParser, budget: int) -> "argparse._ArgumentGroup":
    """Declare the fields of DeepConf as options and return their group."""
    think = parser.add_argument_group("thinking (defaults suit the model)")
    think.add_argument("--budget", type=int, help=f"traces a problem ({budget})")
    think.add_argument("--warmup", type=int, help="first traces, which fix the threshold")
    think.add_argument("--keep", type=float, help="share of traces to keep (0.9, or the model's)")
    think.add_argument("--window", type=int, help="tokens of a confidence group")
    think.add_argument("--confidence", help="top_logprobs, logprob or entropy")
    think.add_argument("--top-logprobs", type=int, help="width of the measure top_logprobs (20)")
    think.add_argument(
        "--vote", help="lowest_group (default), bottom_groups, tail, mean or majority"
    )
    think.add_argument(
        "--power", type=float, help="what a vote's weight is raised to (1, or the model's)"
    )
    think.add_argument(
        "--consensus", type=number_or_none, default=..., metavar="SHARE", help="0.95; none: never"
    )
    think.add_argument("--total-tokens", type=int, help="tokens all traces may spend together")
    return think


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Declare --temperature, --top-p and --max-tokens."""
    sample = parser.add_argument_group("sampling")
    sample.add_argument("--temperature", type=float)
    sample.add_argument("--top-p", type=float)
    sample.add_argument("--max-tokens", type=int, help="tokens a trace may have")


def given(args: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the options that were given; `...` marks one whose value may be None."""
    values = {name: getattr(args, name) for name in names}
    return {
        name: value
        for name, value in values.items()
        if value is not ... and (value is not None or name == "consensus")
    }


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
