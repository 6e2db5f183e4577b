"""Think about a problem in parallel and answer it by a vote weighed by confidence."""

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from falcon_h1r.cli.options import (
    DEEPCONF_OPTIONS,
    add_deepconf_options,
    add_model_options,
    add_sampling_options,
    given,
    load_llm,
)
from falcon_h1r.cli.problems import BadLine, Problem, read_problems
from falcon_h1r.errors import RequestError

if TYPE_CHECKING:
    from falcon_h1r.llm import LLM
    from falcon_h1r.thinking.think import Thinking

INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `falcon-h1r solve`; a Python field's option has its name."""
    parser.add_argument("problem", nargs="?", help="the problem; without it, standard input")
    parser.add_argument(
        "--file",
        metavar="JSONL",
        help='problems, one {"problem": "..."} a line; - is standard input',
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="warn of lines without a problem, answer the others"
    )
    think = add_deepconf_options(parser, budget=64)
    think.add_argument(
        "--offline", action="store_true", help="run every trace in full, filter afterwards"
    )
    add_sampling_options(parser)
    add_model_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="one JSON object a problem")
    output.add_argument("--show-traces", action="store_true", help="show every trace's text")
    output.add_argument(
        "--record", metavar="PATH", help="write the traces with confidences (JSONL)"
    )


def run(args: argparse.Namespace) -> int:
    """Answer the problems; return the exit status.

    Raises RequestError for a refused value before the model is loaded.
    """
    from falcon_h1r.thinking.deepconf import DeepConf, ThinkingDefaults

    deepconf = DeepConf(
        mode="offline" if args.offline else "online", **given(args, DEEPCONF_OPTIONS)
    )
    changes = given(args, ("temperature", "top_p", "max_tokens", "seed"))
    replace(ThinkingDefaults().sampling_params(), **changes)
    problems = _good_ones(read_problems(args.problem, args.file), args.skip_bad)
    llm = load_llm(args)
    params = replace(llm.thinking_defaults.sampling_params(), **changes)
    prompts = _encode(llm, problems, args.skip_bad)
    thinking = llm.thinking([ids for _, ids in prompts], deepconf, params, record=args.record)
    return _show(args, thinking, [problem.text for problem, _ in prompts])


def _good_ones(items: list[Problem | BadLine], skip_bad: bool) -> list[Problem]:
    good = []
    for item in items:
        if isinstance(item, Problem):
            good.append(item)
        else:
            _skip(item.reason, skip_bad)
    if not good:
        raise RequestError("no line holds a problem; write one")
    return good


def _encode(llm: "LLM", problems: list[Problem], skip_bad: bool) -> list[tuple[Problem, list[int]]]:
    """Return the problems with their token ids; too long ones are refused by their line."""
    from falcon_h1r.thinking.prompts import encode_prompt

    encoded = []
    for problem in problems:
        token_ids = encode_prompt(llm.tokenizer, problem.text, llm.thinking_defaults.system_prompt)
        if len(token_ids) < llm.engine.limits.max_model_len:
            encoded.append((problem, token_ids))
        else:
            limit = llm.engine.limits.max_model_len
            _skip(
                f"{problem.source} has {len(token_ids)} tokens; the context of {limit} leaves no "
                "room for an answer: shorten it",
                skip_bad,
            )
    if not encoded:
        raise RequestError("no problem fits the context; shorten them")
    return encoded


def _skip(reason: str, skip_bad: bool) -> None:
    if not skip_bad:
        raise RequestError(f"{reason} (--skip-bad answers the other lines)")
    sys.stderr.write(f"falcon-h1r solve: skipped: {reason}\n")


def _show(args: argparse.Namespace, thinking: "Thinking", problems: list[str]) -> int:
    """Run to the end and show it: live on a terminal, in order as plain lines or JSON elsewhere."""
    from falcon_h1r.cli.report import to_json, to_lines

    events = thinking.events()
    if sys.stdout.isatty() and not args.json:
        from falcon_h1r.cli.live import show_live

        return show_live(thinking, events, problems, args.show_traces)
    render = to_json if args.json else to_lines
    shown = 0
    status = 0
    try:
        for event in events:
            while event.kind == "result" and shown < len(problems):
                result = thinking.results[shown]
                if result is None:
                    break
                _write(render(problems[shown], result, args.show_traces), args.json)
                shown += 1
    except KeyboardInterrupt:
        status = INTERRUPTED
    finally:  # also when the record's disk is full: the answers are there
        events.close()
        for problem, result in list(zip(problems, thinking.results, strict=True))[shown:]:
            if result is not None:
                _write(render(problem, result, args.show_traces), args.json)
    return status


def _write(text: str, is_json: bool) -> None:
    sys.stdout.write(text + ("\n" if is_json else "\n\n"))
    sys.stdout.flush()
