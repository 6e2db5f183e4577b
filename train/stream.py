"""The endless stream of training documents: document number n is the same in every run."""

import sys
from collections.abc import Iterator, Mapping
from random import Random

from falcon_h1r.errors import ConfigError
from falcon_h1r.thinking.prompts import encode_prompt
from falcon_h1r.train.packing import Document
from falcon_h1r.train.samples import SampleTokenizer, encode_response
from falcon_h1r.train.tasks import Problem, sample_problem

_MAX_DRAWS = 1000
TURN_END = "<|im_end|>"
_ROLE = "<|im_start|>"


def prompt_text(problem: str) -> str:
    """The chat template of the reference model, spelled out for one user turn."""
    return f"{_ROLE}user\n{problem}{TURN_END}\n{_ROLE}assistant\n<think>\n"


def encode_document(
    tokenizer: SampleTokenizer,
    problem: Problem,
    *,
    ordinal: int = 0,
    earlier: Problem | None = None,
) -> Document:
    """A problem as generation asks it, and its response; behind another turn where there is one."""
    turns = [{"role": "user", "content": problem.problem}]
    if earlier is not None:
        answer = f"The answer is {earlier.answer}."  # without its thought, as templates show it
        turns = [
            {"role": "user", "content": earlier.problem},
            {"role": "assistant", "content": answer},
            *turns,
        ]
    prompt = encode_prompt(tokenizer, problem.problem if earlier is None else turns)
    response = encode_response(tokenizer, problem.thought, problem.answer)
    return Document(ordinal, (*prompt, *response), len(prompt))


class DocumentStream:
    """Draws family, level and problem from a generator seeded by (seed, ordinal)."""

    def __init__(
        self,
        encoder: SampleTokenizer,
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
            earlier = None
            if rng.random() < self.two_turn_share:
                earlier = self._problem(rng)
            if self.encoder.chat_template is None:  # it knows no turns
                earlier = None
            document = encode_document(self.encoder, problem, ordinal=ordinal, earlier=earlier)
            if len(document.token_ids) <= self.max_length:
                return document
            shortest = min(len(document.token_ids), shortest or sys.maxsize)
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
