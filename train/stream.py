"""The endless stream of training documents: document number n is the same in every run."""

import sys
from collections.abc import Iterator, Mapping
from random import Random
from typing import Protocol

from falcon_h1r.errors import ConfigError
from falcon_h1r.train.packing import Document
from falcon_h1r.train.tasks import Problem, sample_problem

_MAX_DRAWS = 1000
TURN_END = "<|im_end|>"
_ROLE = "<|im_start|>"


class Encoder(Protocol):
    """What the stream needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that may hold special tokens."""


def prompt_text(problem: str) -> str:
    """The chat template of the reference model, spelled out for one user turn."""
    return f"{_ROLE}user\n{problem}{TURN_END}\n{_ROLE}assistant\n<think>\n"


def _previous_turn(problem: Problem) -> str:
    """An earlier turn as the chat template shows it: without its thought."""
    answer = f"The answer is {problem.answer}."
    return f"{_ROLE}user\n{problem.problem}{TURN_END}\n{_ROLE}assistant\n{answer}{TURN_END}\n"


class DocumentStream:
    """Draws family, level and problem from a generator seeded by (seed, ordinal)."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        families: Mapping[str, float],
        levels: Mapping[int, float],
        seed: int,
        max_length: int,
        two_turn_share: float = 0.03,
    ) -> None:
        self.encoder = encoder
        self.families, self.levels = dict(families), dict(levels)
        self.seed, self.max_length = seed, max_length
        self.two_turn_share = two_turn_share

    def _problem(self, rng: Random) -> Problem:
        """Draw a problem that belongs to training: never one of the evaluation's operands."""
        return sample_problem(rng, self.families, self.levels)

    def document(self, ordinal: int) -> Document:
        """The document with this number; a too long one is replaced by the next draw.

        Raises ConfigError when none of a thousand draws fits.
        """
        rng = Random(f"train {self.seed} {ordinal}")
        shortest = None
        for _ in range(_MAX_DRAWS):
            problem = self._problem(rng)
            before = ""
            if rng.random() < self.two_turn_share:
                before = _previous_turn(self._problem(rng))
            prompt = self.encoder.encode(before + prompt_text(problem.problem))
            response = self.encoder.encode(problem.response + TURN_END)
            if len(prompt) + len(response) <= self.max_length:
                return Document(ordinal, (*prompt, *response), len(prompt))
            shortest = min(len(prompt) + len(response), shortest or sys.maxsize)
        raise ConfigError(
            f"no document of {sorted(self.families)} fits into {self.max_length} tokens: the "
            f"shortest of {_MAX_DRAWS} has {shortest}; raise data.row_length"
        )

    def documents(self, first: int) -> Iterator[Document]:
        """All documents from number `first` on."""
        ordinal = first
        while True:
            yield self.document(ordinal)
            ordinal += 1
