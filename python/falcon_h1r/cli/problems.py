"""Reads the problems to solve: one from the command line or standard input, many from JSONL."""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from falcon_h1r.errors import RequestError


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem and where it came from."""

    text: str
    source: str
    """"line 3 of problems.jsonl", "the command line" or "standard input"."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that holds no problem, and why."""

    reason: str


def read_problems(text: str | None, file: str | None) -> list[Problem | BadLine]:
    """Return the problem given, or those of a JSONL file ("-": standard input), in order.

    Raises RequestError when both or none are given, or the one given is empty or not text;
    OSError when the file cannot be read.
    """
    if text is not None and file is not None:
        raise RequestError("both a problem and --file were given: give one of them")
    if file is not None:
        name = "standard input" if file == "-" else file
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        items = list(_lines(data.splitlines(), name))
        if not items:
            raise RequestError(f'{name} holds no line; write one {{"problem": "..."}} a line')
        return items
    if text is not None:
        return [Problem(_checked(text), "the command line")]
    if sys.stdin.isatty():
        raise RequestError("no problem was given: give one, --file, or pipe one in")
    return [Problem(_checked(read_text(sys.stdin.buffer.read())), "standard input")]


def read_text(data: bytes) -> str:
    """Return what was read from standard input as text; raises RequestError when it is none."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"standard input is not UTF-8 at byte {error.start}") from error


def checked_unicode(text: str, what: str) -> str:
    """Return `text` as it is. Raises RequestError when it holds a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"{what} is not valid Unicode at character {error.start} (a lone surrogate)"
        ) from error
    return text


def _lines(lines: Iterable[bytes], name: str) -> Iterable[Problem | BadLine]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        source = f"line {number} of {name}"
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not isinstance(row.get("problem"), str):
                yield BadLine(f'{source} is not an object with a string "problem"')
            else:
                yield Problem(_checked(row["problem"]), source)
        except RequestError as error:
            yield BadLine(f"{source}: {error}")
        except (ValueError, RecursionError) as error:
            yield BadLine(f"{source} is not JSON ({str(error).partition(':')[0]})")


def _checked(text: str) -> str:
    text = text.strip()
    if not text:
        raise RequestError("the problem is empty; write at least one word")
    return checked_unicode(text, "the problem")
