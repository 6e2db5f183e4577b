"""Samples of a training set: JSONL, the folder a curation writes, and the stream SFT draws from.

A curated set is a folder of shards. `samples-00000.jsonl` is to be read; beside it
`tokens-00000.safetensors` is to be mapped: `ids` uint32, the documents end to end, `offsets` int64
[n + 1], and `prompt_lengths` int32 [n], the tokens of each that are not learnt.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from falcon_h1r.errors import ConfigError, TrainingError
from falcon_h1r.thinking.prompts import END_OF_THOUGHT, encode_prompt
from falcon_h1r.train.checkpoint import verify_folder
from falcon_h1r.train.packing import Document

UNKNOWN_LEVEL = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A problem with a chain of thought and its final answer."""

    problem: str
    """What the user types."""
    thought: str
    """The chain of thought, without the think markers."""
    answer: str
    """The final answer, as it appears in "The answer is ..."."""
    family: str
    """What kind of problem; for generated ones a key of `tasks.FAMILIES`."""
    level: int
    """1 easy, 2 middle, 3 hard, 0 unknown."""
    source: str
    """Name of the recipe's source it came from."""
    style: str
    """How the thought came to be: "generated", "gsm8k", "distilled", ..."""
    pass_rate: float | None = None
    """Share of a model's rollouts that were right; None where it was not asked."""

    @property
    def response(self) -> str:
        """What follows the opening think marker, up to the end of the turn."""
        return f"{self.thought}\n{END_OF_THOUGHT}\nThe answer is {self.answer}."


_TYPES: dict[str, tuple[type, ...]] = {
    "level": (int,),
    "pass_rate": (int, float, type(None)),
}


def sample_from_json(line: str) -> Sample:
    """Read one line of a sample file. Raises ValueError saying what is wrong with it."""
    row = json.loads(line)
    names = [field.name for field in fields(Sample)]
    if not isinstance(row, dict) or sorted(row) != sorted(names):
        raise ValueError(f"not an object with the keys {', '.join(names)}")
    for name, value in row.items():
        if not isinstance(value, _TYPES.get(name, (str,))) or isinstance(value, bool):
            raise ValueError(f"{name} is {value!r:.40}")
    return Sample(**row)


def sample_to_json(sample: Sample) -> str:
    """One line without its end."""
    return json.dumps(asdict(sample), ensure_ascii=False)


def read_samples(path: Path) -> Iterator[Sample]:
    """Read a sample file line by line. Raises TrainingError naming the line."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield sample_from_json(line)
            except ValueError as error:
                raise TrainingError(f"line {number} of {path}: {error}") from None


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write a sample file."""
    with path.open("w", encoding="utf-8") as file:
        for sample in samples:
            file.write(sample_to_json(sample) + "\n")


class SampleTokenizer(Protocol):
    """What tokenising a sample needs of `Tokenizer`."""

    chat_template: str | None
    eos_token_ids: tuple[int, ...]

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Token ids of a text that may hold control tokens."""

    def encode_chat(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """Ids of a conversation up to where the assistant speaks next."""

    def encode_segments(self, segments: Sequence[tuple[str, bool]]) -> list[int]:
        """Ids of all texts joined; only texts marked True hold control tokens."""


def encode_response(tokenizer: SampleTokenizer, thought: str, answer: str) -> list[int]:
    """Token ids of a thought and its answer, to the token that ends a text.

    Neither can spell a control token.
    """
    response = tokenizer.encode_segments(
        [
            (f"{thought}\n", False),
            (END_OF_THOUGHT, True),
            (f"\nThe answer is {answer}.", False),
        ]
    )
    return [*response, *tokenizer.eos_token_ids[:1]]


def encode_sample(tokenizer: SampleTokenizer, sample: Sample) -> tuple[list[int], list[int]]:
    """(prompt, response) token ids: the prompt as generation asks it, the response to its end."""
    prompt = encode_prompt(tokenizer, sample.problem)
    return prompt, encode_response(tokenizer, sample.thought, sample.answer)


def write_shard(
    folder: Path, index: int, samples: Sequence[Sample], tokenizer: SampleTokenizer
) -> int:
    """Write shard `index` of a curated set into `folder`; return its number of tokens."""
    write_samples(folder / f"samples-{index:05d}.jsonl", samples)
    ids: list[int] = []
    offsets, prompt_lengths = [0], []
    for sample in samples:
        prompt, response = encode_sample(tokenizer, sample)
        ids += prompt + response
        offsets.append(len(ids))
        prompt_lengths.append(len(prompt))
    tensors: dict[str, NDArray[Any]] = {
        "ids": np.array(ids, np.uint32),
        "offsets": np.array(offsets, np.int64),
        "prompt_lengths": np.array(prompt_lengths, np.int32),
    }
    save_file(tensors, folder / f"tokens-{index:05d}.safetensors")
    return len(ids)


_WORD = (1 << 64) - 1


def permuted(index: int, size: int, key: int) -> int:
    """Where `index` stands in a shuffle of range(size): a keyed bijection, nothing is stored.

    Six Feistel rounds over the next even power of two (256 at least: smaller halves mix badly),
    walked until the value is in range.
    """
    half = max(4, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for step in range(6):
            mixed = ((right + 1) * 0x9E3779B97F4A7C15 + key * 0xBF58476D1CE4E5B9 + step) & _WORD
            mixed = ((mixed ^ (mixed >> 29)) * 0x94D049BB133111EB) & _WORD
            left, right = right, left ^ ((mixed >> 33) & mask)
        index = (left << half) | right
        if index < size:
            return index


class CuratedStream:
    """Draws the documents of a curated set for ever, shuffled anew each epoch.

    Document number n is the same in every run: n // len is the epoch, n % len the place in its
    shuffle. Tokens stay on disk until they are drawn.
    """

    def __init__(self, folder: str | Path, *, seed: int, max_length: int) -> None:
        """Open a set and leave out the documents of more than `max_length` tokens.

        Raises TrainingError when the folder is damaged, ConfigError when it is no curated set or
        every document is too long.
        """
        folder = Path(folder)
        paths = sorted(folder.glob("tokens-*.safetensors"))
        if not paths:
            raise ConfigError(f"{folder} is not a curated set; make one by `falcon-h1r curate`")
        if (damage := verify_folder(folder)) is not None:
            raise TrainingError(f"{folder}: {damage}; run `falcon-h1r curate --fresh` again")
        self.folder, self.seed, self.max_length = folder, seed, max_length
        self._shards: list[Any] = [safe_open(path, framework="numpy") for path in paths]
        self._offsets: list[NDArray[np.int64]] = [s.get_tensor("offsets") for s in self._shards]
        self._prompts: list[NDArray[np.int32]] = [
            s.get_tensor("prompt_lengths") for s in self._shards
        ]
        lengths = np.concatenate([np.diff(offsets) for offsets in self._offsets])
        self._first = np.cumsum([0, *(len(prompts) for prompts in self._prompts)])
        self._fitting = np.flatnonzero(lengths <= max_length)
        self.num_too_long = len(lengths) - len(self._fitting)
        """Documents left out because they are longer than `max_length`."""
        if not len(self._fitting):
            raise ConfigError(
                f"no document of {folder} fits: the shortest has {lengths.min()} tokens and "
                f"max_length is {max_length}; raise it or curate shorter samples"
            )

    def __len__(self) -> int:
        """Documents of an epoch."""
        return len(self._fitting)

    def document(self, ordinal: int) -> Document:
        """The document with this number."""
        epoch, place = divmod(ordinal, len(self))
        chosen = permuted(place, len(self), self.seed * 1_000_003 + epoch)
        index = int(self._fitting[chosen])
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        row = index - int(self._first[shard])
        start, end = (int(x) for x in self._offsets[shard][row : row + 2])
        ids = self._shards[shard].get_slice("ids")[start:end]
        return Document(ordinal, tuple(ids.tolist()), int(self._prompts[shard][row]))

    def documents(self, first: int) -> Iterator[Document]:
        """All documents from number `first` on."""
        ordinal = first
        while True:
            yield self.document(ordinal)
            ordinal += 1
