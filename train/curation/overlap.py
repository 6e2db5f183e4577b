"""Overlap with evaluation sets: shared n-grams of words.

An evaluation problem of 13 words or more is known by its 13-grams, one of 8 to 12 words by its
8-grams, a shorter one only as a whole. N-grams that stand in more than ten problems of one set, or
in more than a tenth of them (three at least), are its template ("if you follow these instructions
..."), not a problem, and do not count.
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
"""Problems of one large set that may share an n-gram before it counts as their template."""
_NAMES = ("input", "problem", "question", "prompt", "instruction", "stem", "text")
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)
_WORD = re.compile(r"\w+|[^\w\s]")


def words_of(text: str) -> list[str]:
    """Words and signs, without regard to case: signs tell arithmetic problems apart."""
    return _WORD.findall(text.casefold())


@lru_cache(maxsize=1 << 16)
def _word_hash(word: str) -> int:
    return int.from_bytes(
        blake2b(word.encode(errors="surrogatepass"), digest_size=8).digest(), "little"
    )


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

    def at(self, start: int, n: int) -> tuple[int, int]:
        """(n, hash) of the n words from `start`; a hash of nothing where they do not fit."""
        if start + n >= len(self._sums):
            return n, -1
        difference = int(self._sums[start + n]) - int(self._sums[start])
        return n, difference * pow(_INVERSE, start, 1 << 64) % (1 << 64)

    def whole(self) -> tuple[int, int]:
        """(number of words, hash) of the whole text."""
        return self.at(0, len(self._sums) - 1)


def _powers(count: int, base: int = _BASE) -> NDArray[np.uint64]:
    """base^0, base^1, ... modulo 2^64."""
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors)


class EvaluationSets:
    """The n-grams of every evaluation problem, as hashes."""

    def __init__(self, paths: list[str]) -> None:
        """Read the problems of files and folders. Raises ConfigError naming what has none."""
        self._ngrams: dict[int, set[int]] = {LONG: set(), SHORT: set()}
        """n -> the n-grams that tell a problem."""
        self._wholes: set[tuple[int, int]] = set()
        """(number of words, hash) of every problem."""
        self._openings: dict[int, set[int]] = {}
        """First 8-gram -> numbers of words of the problems that begin with it."""
        self.num_problems = 0
        for path in paths:
            before = self.num_problems
            for texts in problem_sets(Path(path)).values():
                self._add(texts)
            if self.num_problems == before:
                raise ConfigError(f"evaluation: {path} holds no problem; give JSON or JSON lines")

    def _add(self, texts: list[str]) -> None:
        items: list[tuple[int, set[int]]] = []
        common: Counter[int] = Counter()
        for text in texts:
            words = words_of(text)
            if not words:
                continue
            grams = Grams(words)
            self._wholes.add(grams.whole())
            if len(words) >= SHORT:
                opening = int(grams.of(SHORT)[0])
                self._openings.setdefault(opening, set()).add(len(words))
            n = LONG if len(words) >= LONG else SHORT
            items.append((n, set(grams.of(n).tolist())))
            common.update(items[-1][1])
        self.num_problems += len(items)
        most = max(2, min(MAX_COMMON, len(items) // 10))
        for n, found in items:
            self._ngrams[n].update(gram for gram in found if common[gram] <= most)

    def shares_ngram(self, problem: str, thought: str) -> bool:
        """Whether a sample shares an n-gram with a problem, or asks a short one."""
        if Grams(words_of(problem)).whole() in self._wholes:
            return True
        grams = Grams(words_of(f"{problem}\n{thought}"))
        return any(not known.isdisjoint(grams.of(n).tolist()) for n, known in self._ngrams.items())

    def holds_item(self, problem: str) -> bool:
        """Whether a whole evaluation problem of at least 8 words stands in one, or is it."""
        grams = Grams(words_of(problem))
        if grams.whole() in self._wholes:
            return True
        openings = grams.of(SHORT).tolist()
        return any(
            grams.at(start, length) in self._wholes
            for start, opening in enumerate(openings)
            for length in self._openings.get(opening, ())
        )


def problem_sets(path: Path) -> dict[Path, list[str]]:
    """The problems of a JSON or JSON-lines file, or of all such files of a folder, by set.

    A file is a set; files of one problem each are one set a folder.
    """
    if not path.exists():
        raise ConfigError(f"evaluation: there is no {path}; give an existing file or folder")
    paths = [path]
    if path.is_dir():
        paths = sorted(p for p in path.rglob("*") if p.suffix in (".json", ".jsonl"))
    sets: dict[Path, list[str]] = {}
    for file in paths:
        try:
            texts = list(_problems(file))
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"evaluation: {file} is not JSON: {error}") from None
        sets.setdefault(file if len(texts) > 1 else file.parent, []).extend(texts)
    return sets


def _problems(file: Path) -> Iterator[str]:
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".jsonl":
        yield from _texts(json.loads(text))
        return
    for line in text.split("\n"):  # splitlines would cut at signs that JSON allows inside a text
        if line.strip():
            yield from _texts(json.loads(line))


def _texts(value: Any) -> Iterator[str]:
    """Every problem found in a JSON value: the first known name of each object that has one."""
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        found = [name for name in _NAMES if str(value.get(name) or "").strip()]
        name = next((name for name in found if isinstance(value[name], str)), None)
        if name == "input" and isinstance(value.get("instruction"), str):
            yield f"{value['instruction']}\n{value['input']}"  # Alpaca's form
        elif name is not None:
            yield value[name]
        else:
            for item in value.values():
                if isinstance(item, dict | list):
                    yield from _texts(item)
