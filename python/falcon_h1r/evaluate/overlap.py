"""How much of an evaluation stands in a training set: shared runs of words. Imports no torch.

Words are the runs of letters and digits, in lower case, and single other characters. An item is
*contained* when every run of `n` words of its problem occurs in the training set (a problem shorter
than `n`: when the whole problem does), and *identical* when a training text is the same words.
Formats whose wording is fixed share runs of words with any set in that wording, so the mean share
tells of wording and only `identical` and `contained` of items.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from falcon_h1r.errors import ConfigError
from falcon_h1r.evaluate.items import Item

NGRAM = 13
"""Words of a run, as in the overlap analysis of GPT-3 (Brown et al. 2020, appendix C)."""
_WORD = re.compile(r"[^\W_]+|[^\w\s]|_")


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlap:
    """What items share with a training set."""

    name: str
    """Of the training set."""
    n: int
    num_items: int
    num_texts: int
    """Training texts that were read."""
    identical: int
    contained: int
    mean_share: float
    """Mean over the items of the share of their runs of words that occur in training."""

    def sentence(self) -> str:
        """Return the overlap in words."""
        return (
            f"Overlap with {self.name} ({self.num_texts} texts, runs of {self.n} words): "
            f"{self.identical} of {self.num_items} problems stand in it word for word, "
            f"{self.contained} with every run of words; mean share of runs {self.mean_share:.1%}."
        )


def measure_overlap(
    items: Iterable[Item], texts: Iterable[str], name: str, n: int = NGRAM
) -> Overlap:
    """Return what the items' problems share with training texts, which are read once, in a stream.

    Memory grows with the items, not with the training set.
    """
    problems = [words_of(item.problem) for item in items]
    runs = [_runs(words, n) for words in problems]
    unseen = set().union(*runs) if runs else set()
    lengths = {len(run) for run in unseen}
    wanted = {tuple(words) for words in problems}
    seen: set[tuple[str, ...]] = set()
    same: set[tuple[str, ...]] = set()
    num_texts = 0
    for text in texts:
        num_texts += 1
        words = words_of(text)
        if (whole := tuple(words)) in wanted:
            same.add(whole)
        for length in lengths:
            for start in range(len(words) - length + 1):
                run = tuple(words[start : start + length])
                if run in unseen:
                    seen.add(run)
    shares = [len(r & seen) / len(r) for r in runs if r]
    return Overlap(
        name=name,
        n=n,
        num_items=len(problems),
        num_texts=num_texts,
        identical=sum(tuple(words) in same for words in problems),
        contained=sum(share == 1.0 for share in shares),
        mean_share=sum(shares) / len(shares) if shares else 0.0,
    )


def training_texts(path: Path) -> Iterator[str]:
    """Yield the problems of a JSONL file or a folder: a curated set's samples, or all JSONL.

    Raises ConfigError for a missing file or a line without a text.
    """
    files = [path]
    if path.is_dir():
        files = sorted(path.glob("samples-*.jsonl")) or sorted(path.glob("*.jsonl"))
    if not files or not all(file.is_file() for file in files):
        raise ConfigError(f"{str(path)!r} is neither a JSONL file nor a folder with any")
    for file in files:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _text(line, f"line {number} of {file}")


def words_of(text: str) -> list[str]:
    """Return the words that runs are made of."""
    return _WORD.findall(text.lower())


def _runs(words: list[str], n: int) -> set[tuple[str, ...]]:
    if len(words) <= n:
        return {tuple(words)} if words else set()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def _text(line: bytes, where: str) -> str:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise ConfigError(f"{where} is not JSON; mend the file") from None
    for key in ("problem", "question", "input", "text"):
        if isinstance(row, dict) and isinstance(row.get(key), str):
            return str(row[key])
    raise ConfigError(f'{where} has no text "problem", "question", "input" or "text"')
