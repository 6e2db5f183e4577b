"""Packed micro-batches: which documents each holds depends on numbers, never on processes.

The global batch of a step is cut into lanes, one a micro-batch. Lane l of n draws the documents
l, l + n, l + 2 n, ... and packs them for itself; a process works on some of the lanes. So one
process that works through all lanes sees the batch of several that share them.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from falcon_h1r.train.packing import POOL_SIZE, Document, PackedRows, pack_rows


class Source(Protocol):
    """Where documents come from: number n is the same in every run."""

    def document(self, ordinal: int) -> Document:
        """The document with this number."""


class Batches:
    """The micro-batches of some lanes, and the few integers from which they resume."""

    def __init__(
        self, source: Source, *, lanes: Sequence[int], num_lanes: int, rows: int, row_length: int
    ) -> None:
        self.source, self.lanes, self.num_lanes = source, list(lanes), num_lanes
        self.rows, self.row_length = rows, row_length
        self.drawn = dict.fromkeys(self.lanes, 0)
        self.pools: dict[int, list[Document]] = {lane: [] for lane in self.lanes}

    def draw(self) -> list[PackedRows]:
        """The next micro-batch of each lane."""
        return [
            pack_rows(self._documents(lane), self.pools[lane], self.rows, self.row_length)
            for lane in self.lanes
        ]

    def _documents(self, lane: int) -> Iterator[Document]:
        while True:
            ordinal = lane + self.drawn[lane] * self.num_lanes
            self.drawn[lane] += 1
            yield self.source.document(ordinal)

    def state(self) -> Tensor:
        """int64 [num_lanes, 1 + POOL_SIZE]: documents drawn, then 1 + the number of each waiting.

        Lanes of other processes are zero, so that a sum over processes is the whole state.
        """
        state = torch.zeros(self.num_lanes, 1 + POOL_SIZE, dtype=torch.int64)
        for lane in self.lanes:
            waiting = [1 + document.ordinal for document in self.pools[lane]]
            state[lane, : 1 + len(waiting)] = torch.tensor([self.drawn[lane], *waiting])
        return state

    def load(self, state: Tensor) -> None:
        """Take over this process's lanes of a whole state; waiting documents are drawn again."""
        for lane in self.lanes:
            self.drawn[lane] = int(state[lane, 0])
            waiting = [int(n) - 1 for n in state[lane, 1:] if n]
            self.pools[lane] = [self.source.document(ordinal) for ordinal in waiting]
