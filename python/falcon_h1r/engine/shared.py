"""One engine for several consumers, also of several threads.

Whoever needs events steps for all; each gets the events of its own requests, whoever stepped.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from falcon_h1r._rust import Tally
from falcon_h1r.engine.engine import Engine
from falcon_h1r.engine.interrupts import held_back
from falcon_h1r.engine.outputs import CompletionOutput, EngineEvent
from falcon_h1r.engine.params import SamplingParams


class SharedEngine:
    """An engine behind a lock, and whose each request is."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.lock = threading.RLock()
        self.owners: dict[int, Seat] = {}

        self._is_stepping = False
        self._put_off: list[Callable[[], None]] = []

    def seat(self) -> "Seat":
        """A place for one more consumer."""
        return Seat(self)

    def step(self) -> None:
        """Run one step of the engine and hand its events out; with the lock held."""
        with held_back():  # Ctrl-C is one consumer's, the events are everybody's
            self._is_stepping = True
            try:
                for event in self.engine.step():
                    if (owner := self.owners.get(event.request_id)) is not None:
                        owner._take(event)
            finally:
                self._is_stepping = False
                while self._put_off:
                    self._put_off.pop(0)()

    def change(self, call: Callable[[], None]) -> None:
        """Change what the engine runs; after the step, where this thread is in one.

        A stream that is collected as garbage closes itself at any moment, on any thread.
        """
        with self.lock:
            if self._is_stepping:
                self._put_off.append(call)
            else:
                call()


class Seat:
    """One consumer's requests, with the methods of `Engine` that concern them."""

    def __init__(self, shared: SharedEngine) -> None:
        self._shared = shared
        self._engine = shared.engine
        self._waiting: list[EngineEvent] = []
        """Events that somebody else's step brought."""
        self._held: set[int] = set()
        self._unfinished: set[int] = set()

    def add_request(
        self, prompt_token_ids: Sequence[int], params: SamplingParams, **options: Any
    ) -> int:
        """See Engine, whose keywords are taken."""
        with self._shared.lock:
            request_id = self._engine.add_request(prompt_token_ids, params, **options)
            self._shared.owners[request_id] = self
            self._held.add(request_id)
            self._unfinished.add(request_id)
        return request_id

    def step(self) -> list[EngineEvent]:
        """The events that wait for this consumer; if there are none, those of one step."""
        with self._shared.lock:
            if not self._waiting:
                self._shared.step()
            events, self._waiting = self._waiting, []
        return events

    def _take(self, event: EngineEvent) -> None:
        self._waiting.append(event)
        if event.kind == "request_finished":
            self._unfinished.discard(event.request_id)

    def has_unfinished(self) -> bool:
        """Whether a step would still bring an event of these requests."""
        return bool(self._waiting or self._unfinished)

    def set_answer(self, request_id: int, trace_index: int, answer_class: int | None) -> None:
        """See Engine."""
        self._shared.change(lambda: self._engine.set_answer(request_id, trace_index, answer_class))

    def tally(self, request_id: int) -> Tally:
        """See Engine."""
        with self._shared.lock:
            return self._engine.tally(request_id)

    def output(
        self, request_id: int, trace_index: int, reason: str | None = None
    ) -> CompletionOutput:
        """See Engine."""
        with self._shared.lock:
            return self._engine.output(request_id, trace_index, reason)

    def abort(self, request_id: int) -> None:
        """See Engine."""
        self._shared.change(lambda: self._engine.abort(request_id))

    def release(self, request_id: int) -> None:
        """See Engine."""
        self._shared.change(lambda: self._release(request_id))

    def _release(self, request_id: int) -> None:
        self._engine.release(request_id)
        self._shared.owners.pop(request_id, None)
        self._held.discard(request_id)
        self._unfinished.discard(request_id)
        self._waiting = [e for e in self._waiting if e.request_id != request_id]

    def close(self) -> None:
        """Abort and release what is still there."""
        for request_id in sorted(self._held):
            self.abort(request_id)
            self.release(request_id)
