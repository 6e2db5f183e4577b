"""Continue a prompt, or chat over several turns, streaming the text.

With --chat every line of standard input is a turn; what the model thought before earlier answers
is left out of the context. Ctrl-C ends an answer, at the prompt it ends the chat.
"""

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from falcon_h1r.cli.options import add_model_options, load_llm
from falcon_h1r.cli.problems import checked_unicode, read_text
from falcon_h1r.cli.report import printable
from falcon_h1r.errors import RequestError

if TYPE_CHECKING:
    from falcon_h1r.engine.params import SamplingParams
    from falcon_h1r.llm import LLM
    from falcon_h1r.thinking.prompts import Prompt

INTERRUPTED = 130
USER = "> "
"""What a terminal shows before a turn."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `falcon-h1r generate`."""
    parser.add_argument(
        "prompt", nargs="?", help="text to continue, or the first turn; else standard input"
    )
    parser.add_argument("--chat", action="store_true", help="turns of chat, one a line")
    parser.add_argument("--system", help="the system prompt of a chat")
    parser.add_argument(
        "--token-ids", metavar="IDS", help="a prompt as 1,2,3, for a checkpoint without tokenizer"
    )
    sample = parser.add_argument_group("sampling")
    sample.add_argument("--max-tokens", type=int, help="tokens of an answer (the context)")
    sample.add_argument("--temperature", type=float, help="0 is greedy (0.6, or the model's)")
    sample.add_argument("--top-p", type=float, help="(0.95, or the model's)")
    sample.add_argument("--top-k", type=int)
    sample.add_argument("--min-p", type=float)
    sample.add_argument("--repetition-penalty", type=float)
    sample.add_argument("--stop", action="append", help="a text that ends the answer; repeatable")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Stream the continuation, or chat; return the exit status.

    Raises RequestError for a refused value before the model is loaded.
    """
    from dataclasses import replace

    from falcon_h1r.thinking.deepconf import ThinkingDefaults

    if args.token_ids is not None and (args.chat or args.prompt is not None):
        raise RequestError("--token-ids was given beside a prompt or --chat: give one of them")
    changes = _given(args)
    replace(ThinkingDefaults().sampling_params(), **changes)
    prompt: str | list[int] = ""
    if args.token_ids is not None:
        prompt = _token_ids(args.token_ids)
    elif not args.chat:
        prompt = _prompt(args.prompt)
    llm = load_llm(args)
    params = replace(llm.thinking_defaults.sampling_params(), **changes)
    if args.chat:
        return chat(llm, params, args.system, args.prompt)
    try:
        _stream(llm, prompt, params)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def chat(llm: "LLM", params: "SamplingParams", system: str | None, first: str | None) -> int:
    """Talk until standard input ends; `first` is the first turn. Return the exit status."""
    from falcon_h1r.thinking.prompts import (
        after_thought,
        opens_thought,
        without_earlier_thoughts,
    )

    if llm.tokenizer is None or llm.tokenizer.chat_template is None:
        raise RequestError("this checkpoint has no chat template; leave --chat out")
    messages: list[dict[str, Any]] = []
    if system is not None:
        messages.append({"role": "system", "content": system})
    turns = _turns(None if first is None else checked_unicode(first, "the first turn"))
    while (turn := next(turns, None)) is not None:
        messages.append({"role": "user", "content": turn})
        try:
            is_open = opens_thought(llm.tokenizer, llm.encode(messages)[1])
            text, token_ids = _stream(llm, messages, params)
        except KeyboardInterrupt:
            messages.pop()  # the turn counts for nothing, the conversation goes on
            continue
        said = after_thought(llm.tokenizer, text, token_ids, is_open)
        messages.append({"role": "assistant", "content": said or ""})
        messages = without_earlier_thoughts(messages)
    return 0


def _turns(first: str | None) -> Iterator[str]:
    """Yield the user's turns: `first`, then the lines of standard input that are not empty."""
    if first is not None:
        yield first
    is_terminal = sys.stdin.isatty()
    while True:
        if is_terminal:
            sys.stdout.write(USER)
            sys.stdout.flush()
        line = read_text(sys.stdin.buffer.readline())
        if not line:
            return
        if line.strip():
            yield line.strip()


def _stream(llm: "LLM", prompt: "Prompt", params: "SamplingParams") -> tuple[str, list[int]]:
    """Write a continuation as it grows (ids where there is no tokenizer); return text and ids."""
    pieces: list[str] = []
    token_ids: list[int] = []
    events = llm.stream(prompt, params)
    try:
        for event in events:
            pieces.append(event.text)
            token_ids += event.token_ids
            shown = event.text if llm.tokenizer is not None else _ids(event.token_ids)
            sys.stdout.write(printable(shown))
            sys.stdout.flush()
    finally:
        events.close()
        if pieces:  # nothing is written for a prompt that was refused
            sys.stdout.write("\n")
            sys.stdout.flush()
    return "".join(pieces), token_ids


def _ids(token_ids: tuple[int, ...]) -> str:
    return "".join(f"{token_id} " for token_id in token_ids)


def _prompt(text: str | None) -> str:
    if text is None:
        if sys.stdin.isatty():
            raise RequestError("no prompt was given: give one, --chat, or pipe one in")
        text = read_text(sys.stdin.buffer.read())
    if not text:
        raise RequestError("the prompt is empty; write at least one character")
    return checked_unicode(text, "the prompt")


def _token_ids(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise RequestError(f"--token-ids is {text!r}; write numbers as 1,2,3") from None


def _given(args: argparse.Namespace) -> dict[str, Any]:
    names = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "stop")
    values = {name: getattr(args, name) for name in (*names, "seed")}
    return {name: value for name, value in values.items() if value is not None}
