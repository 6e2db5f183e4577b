"""A stand-in for the LLM: the real scheduler over scripted traces."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "thinking"))

from thinking_fake import FakeEngine, Script, random_scripts

from falcon_h1r.thinking.deepconf import ThinkingDefaults
from falcon_h1r.thinking.think import Thinking


class Characters:
    """A tokenizer whose ids are the characters (in ASCII)."""

    chat_template = None

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [ord(c) % 1000 for c in text]


class ScriptedLLM:
    """The part of `LLM` that `solve` uses; a problem's first letter picks its script."""

    def __init__(self, scripts: dict[int, Script]) -> None:
        self.engine = FakeEngine(scripts)
        self.tokenizer = Characters()
        self.thinking_defaults = ThinkingDefaults(window=8, warmup=6)
        self.calls: list[Any] = []

    def thinking(self, prompts: Any, deepconf: Any, params: Any, **options: Any) -> Thinking:
        self.calls.append((deepconf, params))
        defaults = self.thinking_defaults
        return Thinking(self.engine, prompts, deepconf, params, defaults=defaults, **options)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> ScriptedLLM:
    """`solve` with an LLM that plays 24 scripted traces for any capital letter."""
    llm = ScriptedLLM({ord(c): random_scripts(ord(c), 24) for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"})

    def load(args: argparse.Namespace) -> ScriptedLLM:
        return llm

    monkeypatch.setattr("falcon_h1r.cli.solve.load_llm", load)
    return llm


@pytest.fixture
def status_of() -> Callable[[list[str]], int]:
    """Run the command line; return its exit status."""
    from falcon_h1r.cli.main import main

    def run(argv: list[str]) -> int:
        try:
            return main(argv)
        except SystemExit as stop:
            return int(stop.code or 0)

    return run
