"""`falcon-h1r`: finds the subcommand, loads that one module, turns errors into one line.

A command is a module of this folder with two functions: `add_arguments(parser)` and
`run(args) -> int` (the exit status). Modules are imported when their command is called, so
`--help` and wrong usage cost neither torch nor rich.
"""

import argparse
import difflib
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import NoReturn

from falcon_h1r import __version__
from falcon_h1r.errors import ConfigError, FalconH1RError, RequestError

COMMANDS = {
    "solve": "think in parallel about a problem and answer it by a vote",
    "generate": "continue a prompt, or chat, streaming the text",
    "tokenize": "turn text into token ids, or count them",
    "curate": "make one training set of many sources, with a report; resumes too",
    "train": "train a model by a recipe; the same command again resumes",
    "calibrate": "choose a model's measure of confidence by traces on held-out problems",
    "eval": "measure a model on tasks: accuracy, tokens and speed, with intervals",
    "bench": "run the measurements of a source checkout",
    "doctor": "tell what is installed, which path will run, and what to do",
}
"""Name of the command and of its module in this folder -> one line of help."""

USAGE_ERROR = 2
"""Exit status for bad usage: unknown options and refused values alike."""
FAILURE = 1
"""Exit status when the work itself failed."""
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells use it."""


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line and the nearest option's name for a misspelt one."""

    def error(self, message: str) -> NoReturn:
        """Print one line that says what was wrong and where help is; exit with status 2."""
        message = " ".join(message.split())
        if message.startswith("unrecognized arguments: "):
            message += self._suggestion(message.removeprefix("unrecognized arguments: "))
        self.exit(USAGE_ERROR, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def _suggestion(self, unknown: str) -> str:
        word = unknown.split()[0].split("=")[0]
        near = difflib.get_close_matches(word, self._option_string_actions, n=1)
        return f"; did you mean {near[0]}?" if near else ""


def main(argv: list[str] | None = None) -> int:
    """Run `falcon-h1r` with `argv` (default: the process's arguments); return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    name = next((word for word in argv if not word.startswith("-")), None)
    if name not in COMMANDS or argv[0] != name:
        _overview().parse_args(argv)
        _overview().print_help()
        return USAGE_ERROR
    module = import_module(f"falcon_h1r.cli.{name}")
    parser = Parser(prog=f"falcon-h1r {name}", description=module.__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    module.add_arguments(parser)
    args = parser.parse_args(argv[1:])
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a lone surrogate is shown, never a traceback
            stream.reconfigure(errors="backslashreplace")
    return _run(module.run, args, parser.prog)


def _run(run: Callable[[argparse.Namespace], int], args: argparse.Namespace, prog: str) -> int:
    """Call a command; every foreseen failure becomes one line on stderr and a status."""
    try:
        status = run(args)
        sys.stdout.flush()
        return status
    except (RequestError, ConfigError) as error:
        return _fail(prog, str(error), USAGE_ERROR)
    except FalconH1RError as error:
        return _fail(prog, str(error), FAILURE)
    except BrokenPipeError:
        # The reader went away (`| head`). Point stdout elsewhere, so that exit does not flush it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(prog, f"{where}{error.strerror or error}", FAILURE)
    except KeyboardInterrupt:
        return _fail(prog, "interrupted", INTERRUPTED)


def _fail(prog: str, message: str, status: int) -> int:
    print(f"{prog}: error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    return status


def _overview() -> Parser:
    """Return the parser of `falcon-h1r` itself: --help, --version, and the list of commands."""
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {line}" for name, line in COMMANDS.items())
    parser = Parser(
        prog="falcon-h1r",
        usage="falcon-h1r COMMAND [options]",
        description="Reason with Falcon-H1 models: think in parallel, vote by confidence.",
        epilog=f"commands:\n{lines}\n\nfalcon-h1r COMMAND --help tells a command's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"falcon-h1r {__version__}")
    parser.add_argument("command", nargs="?", choices=list(COMMANDS), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
