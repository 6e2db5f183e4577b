"""Packs documents into rows of one fixed length, so that every step has the same shape.

Legend: R rows, L row length, T = R * L tokens of a step, S documents and paddings.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

POOL_SIZE = 48
"""Documents that wait to be placed; more fill the rows better."""


@dataclass(frozen=True, slots=True)
class Document:
    """Token ids of one document, of which those from `prompt_length` on are learnt."""

    ordinal: int
    """Which document of the stream this is: the stream can draw it again from this number."""
    token_ids: tuple[int, ...]
    prompt_length: int


@dataclass(frozen=True, slots=True)
class PackedRows:
    """One step's tokens. Documents never cross a row; padding is a segment of its own."""

    input_ids: NDArray[np.int64]
    """[T]"""
    targets: NDArray[np.int64]
    """[T]: the token that follows, where `loss_mask` is set; 0 elsewhere."""
    loss_mask: NDArray[np.bool_]
    """[T]: positions whose following token is learnt."""
    cu_seqlens: NDArray[np.int32]
    """[S+1]: where each document or padding starts."""
    row_length: int
    num_documents: int

    @property
    def fill(self) -> float:
        """Share of the tokens that belong to a document."""
        return self.num_tokens / self.input_ids.size

    @property
    def num_tokens(self) -> int:
        """Tokens that belong to a document."""
        lengths = np.diff(self.cu_seqlens)
        real = self._is_document()
        return int(lengths[real].sum())

    def _is_document(self) -> NDArray[np.bool_]:
        """Which segments are documents: padding is all zeros and never learnt."""
        starts = self.cu_seqlens[:-1]
        learnt = np.add.reduceat(self.loss_mask.astype(np.int64), starts)
        return learnt > 0


def fill_best(lengths: Sequence[int], room: int) -> list[int]:
    """Which of the lengths add up to the largest sum that fits into `room`; the first preferred.

    Subset sum by dynamic programming: bit s of `reachable[i]` says that some of the first i
    lengths add up to s.
    """
    reachable = [1]
    mask = (1 << (room + 1)) - 1
    for length in lengths:
        reachable.append((reachable[-1] | reachable[-1] << length) & mask)
    total = reachable[-1].bit_length() - 1
    chosen: list[int] = []
    for i in range(len(lengths) - 1, -1, -1):
        if not reachable[i] >> total & 1:
            chosen.append(i)
            total -= lengths[i]
    return chosen[::-1]


def pack_rows(
    documents: Iterator[Document], pool: list[Document], num_rows: int, row_length: int
) -> PackedRows:
    """Fill `num_rows` rows from the pool, each as far as its documents allow.

    The oldest document opens a row, so that none waits for ever; those that fill the rest best
    follow, and the pool is refilled in order. Every document must be of at most `row_length`
    tokens and learn at least one token. `pool` is changed: what stays in it is the only state
    besides the position of the stream.
    """
    total = num_rows * row_length
    input_ids = np.zeros(total, np.int64)
    targets = np.zeros(total, np.int64)
    loss_mask = np.zeros(total, np.bool_)
    bounds = [0]
    count = 0
    for row in range(num_rows):
        while len(pool) < POOL_SIZE:
            pool.append(next(documents))
        first = pool.pop(0)
        fitting = fill_best([len(d.token_ids) for d in pool], row_length - len(first.token_ids))
        placed = [first, *(pool[i] for i in fitting)]
        for i in reversed(fitting):
            del pool[i]
        cursor = row * row_length
        for document in placed:
            ids = np.array(document.token_ids, np.int64)
            stop = cursor + len(ids)
            input_ids[cursor:stop] = ids
            targets[cursor : stop - 1] = ids[1:]
            loss_mask[cursor + document.prompt_length - 1 : stop - 1] = True
            bounds.append(stop)
            cursor = stop
        count += len(placed)
        if cursor < (row + 1) * row_length:
            bounds.append((row + 1) * row_length)
    targets[~loss_mask] = 0
    return PackedRows(
        input_ids=input_ids,
        targets=targets,
        loss_mask=loss_mask,
        cu_seqlens=np.array(bounds, np.int32),
        row_length=row_length,
        num_documents=count,
    )
