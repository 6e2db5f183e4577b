"""Packs documents into rows of one fixed length, so that every step has the same shape.

Legend: R rows, L row length, T = R * L tokens of a step, S documents and paddings.
"""

from collections.abc import Iterator
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


def pack_rows(
    documents: Iterator[Document], pool: list[Document], num_rows: int, row_length: int
) -> PackedRows:
    """Fill `num_rows` rows from the pool, longest first that fits; the pool is refilled in order.

    Every document must be of at most `row_length` tokens and learn at least one token. `pool` is
    changed: what stays in it is the only state besides the position of the stream.
    """
    total = num_rows * row_length
    input_ids = np.zeros(total, np.int64)
    targets = np.zeros(total, np.int64)
    loss_mask = np.zeros(total, np.bool_)
    bounds = [0]
    count = 0
    for row in range(num_rows):
        cursor, end, first = row * row_length, (row + 1) * row_length, True
        while True:
            while len(pool) < POOL_SIZE:
                pool.append(next(documents))
            # The oldest document opens a row, so that none waits for ever.
            room = end - cursor
            fitting = [i for i, d in enumerate(pool) if len(d.token_ids) <= room]
            if not fitting:
                break
            best = 0 if first else max(fitting, key=lambda i: len(pool[i].token_ids))
            document = pool.pop(best)
            ids = np.array(document.token_ids, np.int64)
            stop = cursor + len(ids)
            input_ids[cursor:stop] = ids
            targets[cursor : stop - 1] = ids[1:]
            loss_mask[cursor + document.prompt_length - 1 : stop - 1] = True
            bounds.append(stop)
            cursor, first, count = stop, False, count + 1
        if cursor < end:
            bounds.append(end)
    targets[~loss_mask] = 0
    return PackedRows(
        input_ids=input_ids,
        targets=targets,
        loss_mask=loss_mask,
        cu_seqlens=np.array(bounds, np.int32),
        row_length=row_length,
        num_documents=count,
    )
