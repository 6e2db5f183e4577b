"""Exact and near duplicates, by hashes only: no text is kept.

MinHash comes from the package rensa (the extra "curate"): 64 permutations of word 5-grams, 16
bands of 4 rows, so that pairs of similarity 0.8 are met with a chance of 0.9998; a candidate
counts when the share of equal rows, the estimated Jaccard similarity, reaches the threshold.
"""

from collections import Counter
from collections.abc import Collection
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from falcon_h1r.train.curation.drafts import missing
from falcon_h1r.train.curation.recipe import FilterRecipe
from falcon_h1r.train.samples import Sample

NUM_PERM = 64
NUM_BANDS = 16
SHINGLE = 5
"""Words of a shingle; a shorter text is one shingle."""
_SEED = 1
AUGMENTED_STYLES = frozenset({"rephrased", "renumbered", "composed", "distilled"})


def text_hash(*texts: str) -> int:
    """64 bits of texts that differ in more than case and white space."""
    digest = blake2b(digest_size=8)
    for text in texts:
        digest.update(" ".join(text.casefold().split()).encode(errors="surrogatepass") + b"\0")
    return int.from_bytes(digest.digest(), "little")


def shingles(text: str) -> list[str]:
    """The word 5-grams of a text, without regard to case."""
    words = text.casefold().split()
    last = max(1, len(words) - SHINGLE + 1)
    return [" ".join(words[i : i + SHINGLE]) for i in range(last)]


class MinHashIndex:
    """Texts seen so far; 2 KB of memory a text, most of it the library's tables."""

    def __init__(self, similarity: float) -> None:
        """Raises ConfigError when rensa is not installed."""
        try:
            import rensa
        except ImportError:
            raise missing("rensa", "filters.near_duplicates") from None
        self._rensa: Any = rensa
        self._lsh = rensa.RMinHashLSH(similarity, NUM_PERM, NUM_BANDS)
        self.similarity = similarity
        self._digests = np.empty((1024, NUM_PERM), np.uint32)
        self._count = 0

    def _minhash(self, text: str) -> tuple[Any, NDArray[np.uint32]]:
        minhash = self._rensa.RMinHash(NUM_PERM, _SEED)
        minhash.update(shingles(text))
        return minhash, np.array(minhash.digest(), np.uint32)

    def holds(self, text: str) -> bool:
        """Whether a text that is similar enough was added."""
        minhash, digest = self._minhash(text)
        candidates = self._lsh.query(minhash)
        if not candidates:
            return False
        shares = (self._digests[candidates] == digest).mean(axis=1)
        return bool(shares.max() >= self.similarity)

    def add(self, text: str) -> None:
        """Add a text."""
        minhash, digest = self._minhash(text)
        if self._count == len(self._digests):
            self._digests = np.concatenate([self._digests, np.empty_like(self._digests)])
        self._digests[self._count] = digest
        self._lsh.insert(self._count, minhash)
        self._count += 1


class Duplicates:
    """What was kept so far, and whether another sample repeats it."""

    def __init__(self, filters: FilterRecipe, near_sources: Collection[str]) -> None:
        """`near_sources`: sources among whose samples near-duplicates are looked for."""
        self.filters, self.near_sources = filters, frozenset(near_sources)
        self._exact: set[int] = set()
        self._solutions: Counter[int] = Counter()
        has_near = filters.near_duplicates and bool(self.near_sources)
        self._index = MinHashIndex(filters.similarity) if has_near else None

    def _looks_near(self, sample: Sample) -> bool:
        """Augmented samples resemble what they were made of; that is their purpose."""
        return sample.source in self.near_sources and sample.style not in AUGMENTED_STYLES

    def reason(self, sample: Sample) -> str | None:
        """Why the sample is a repetition, or None."""
        if self.filters.exact_duplicates:
            if text_hash(sample.problem, sample.thought) in self._exact:
                return "exact duplicate"
            if self._solutions[text_hash(sample.problem)] >= self.filters.max_solutions:
                return "solutions of one problem"
        if self._index is None or not self._looks_near(sample):
            return None
        return "near-duplicate" if self._index.holds(_text(sample)) else None

    def add(self, sample: Sample) -> None:
        """Remember a sample that is kept."""
        if self.filters.exact_duplicates:
            self._exact.add(text_hash(sample.problem, sample.thought))
            self._solutions[text_hash(sample.problem)] += 1
        if self._index is not None and self._looks_near(sample):
            self._index.add(_text(sample))


def _text(sample: Sample) -> str:
    return f"{sample.problem}\n{sample.thought}"
