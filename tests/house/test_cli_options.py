"""The options of the command line are a promise: each new or lost one is a line in a diff."""

import argparse
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from falcon_h1r.cli.main import COMMANDS

FROZEN = Path(__file__).with_name("cli_options.txt")


def options(command: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, nested in action.choices.items():
                yield from options(f"{command} {name}", nested)
        elif not isinstance(action, argparse._HelpAction):
            yield f"{command} {max(action.option_strings, key=len, default=action.dest.upper())}"


def test_options_are_as_frozen() -> None:
    present = []
    for command in COMMANDS:
        parser = argparse.ArgumentParser()
        import_module(f"falcon_h1r.cli.{command}").add_arguments(parser)
        present += options(command, parser)
    assert sorted(present) == FROZEN.read_text().splitlines(), (
        "options changed; if that is meant, write them to tests/house/cli_options.txt, sorted"
    )
