"""Overlap with evaluation sets: shared n-grams of words.

An evaluation problem of 13 words or more is known by its 13-grams, one of 8 to 12 words by its
8-grams, a shorter one only as a whole. N-grams that stand in more than ten problems of
one set are its template ("if you follow these instructions ..."), not a problem, and do not count.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from falcon_h1r.errors import ConfigError

LONG, SHORT = 13, 8
MAX_COMMON = 10
"""Problems of one set that may share an n-gram before it counts as their template."""
_NAMES = ("input", "problem", "question", "prompt", "stem", "text")
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)
_WORD = re.compile(r"\w+|[^\w\s]")


def words_of(text: str) -> list[str]:
    """Words and signs, without regard to case: signs tell arithmetic problems apart."""
    return _WORD.findall(text.casefold())


@lru_cache(maxsize=1 << 16)
def _word_hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")


class Grams:
    """Hashes of a text's n-grams for any n.

    A polynomial of the words' hashes modulo 2^64; the sum up to each word is kept once, so that
    every n costs one subtraction a word.
    """

    def __init__(self, words: list[str]) -> None:
        hashes = np.array([_word_hash(word) for word in words], np.uint64)
        self._sums = np.concatenate(
            [np.zeros(1, np.uint64), np.cumsum(hashes * _powers(len(words)))]
        )

    def of(self, n: int) -> NDArray[np.uint64]:
        """The n-grams in order; none where the text is shorter."""
        count = len(self._sums) - n
        if count < 1:
            return np.empty(0, np.uint64)
        sums: NDArray[np.uint64] = self._sums[n:] - self._sums[:-n]
        return sums * _powers(count, _INVERSE)

    def whole(self) -> int:
        """The hash of the whole text."""
        return int(self._sums[-1])


def _powers(count: int, base: int = _BASE) -> NDArray[np.uint64]:
    """base^0, base^1, ... modulo 2^64."""
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors)


class EvaluationSets:
    """The n-grams of every evaluation problem, as hashes."""

    def __init__(self, paths: list[str]) -> None:
        """Read the problems of files and folders. Raises ConfigError naming what has none."""
        self._ngrams: dict[int, set[int]] = {}
        """n -> the n-grams that tell a problem."""
        self._lengths: dict[int, set[int]] = {}
        """Number of words -> whole problems of so many."""
        self.num_problems = 0
        for path in paths:
            self._add(path)

    def _add(self, path: str) -> None:
        items: list[tuple[int, list[int]]] = []
        common: Counter[int] = Counter()
        for text in problems_of(Path(path)):
            words = words_of(text)
            if not words:
                continue
            grams = Grams(words)
            self._lengths.setdefault(len(words), set()).add(grams.whole())
            n = LONG if len(words) >= LONG else SHORT
            items.append((n, grams.of(n).tolist()))
            common.update(set(items[-1][1]))
        if not items:
            raise ConfigError(f"evaluation: {path} holds no problem; give JSON or JSON lines")
        self.num_problems += len(items)
        for n, found in items:
            self._ngrams.setdefault(n, set()).update(g for g in found if common[g] <= MAX_COMMON)

    def shares_ngram(self, text: str) -> bool:
        """Whether the text shares an n-gram with a problem, or is a whole short one."""
        grams = Grams(words_of(text))
        return _meets(grams, self._ngrams) or self._is_item(grams)

    def holds_item(self, text: str) -> bool:
        """Whether a whole problem of at least 8 words stands in the text, or is the text."""
        grams = Grams(words_of(text))
        long = {n: known for n, known in self._lengths.items() if n >= SHORT}
        return _meets(grams, long) or self._is_item(grams)

    def _is_item(self, grams: Grams) -> bool:
        return any(grams.whole() in known for known in self._lengths.values())


def _meets(grams: Grams, known: dict[int, set[int]]) -> bool:
    return any(not hashes.isdisjoint(grams.of(n).tolist()) for n, hashes in known.items())


def problems_of(path: Path) -> Iterator[str]:
    """The problems of a JSON or JSON-lines file, or of all such files of a folder."""
    if not path.exists():
        raise ConfigError(f"evaluation: there is no {path}; give an existing file or folder")
    paths = [path]
    if path.is_dir():
        paths = sorted(p for p in path.rglob("*") if p.suffix in (".json", ".jsonl"))
    for file in paths:
        try:
            text = file.read_text(encoding="utf-8")
            if file.suffix == ".jsonl":
                for line in text.splitlines():
                    if line.strip():
                        yield from _texts(json.loads(line))
            else:
                yield from _texts(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"evaluation: {file} is not JSON: {error}") from None


def _texts(value: Any) -> Iterator[str]:
    """Every problem found in a JSON value: the first known name of each object that has one."""
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        name = next((name for name in _NAMES if isinstance(value.get(name), str)), None)
        if name is not None:
            yield value[name]
        else:
            for item in value.values():
                if isinstance(item, dict | list):
                    yield from _texts(item)
