"""A client of the process that compares answers by math-verify; safe from any thread."""

import atexit
import threading
from functools import lru_cache
from pathlib import Path

from falcon_h1r.errors import ConfigError
from falcon_h1r.thinking.line_worker import LineWorker

CPU_SECONDS = 0.5
"""CPU time one comparison may take: CPU, not wall, so that a busy machine changes no vote."""
WALL_SECONDS = 20.0
"""Time one comparison may take, where the machine is too busy to give it its CPU time."""
GRACE_SECONDS = 5.0
"""After this much more the whole worker is taken for stuck and killed."""
MEMORY_BYTES = 2 << 30
"""Address space of the worker."""


class Judge(LineWorker):
    """Compares pairs of answers in another process, started at the first question."""

    def __init__(
        self,
        cpu_seconds: float = CPU_SECONDS,
        wall_seconds: float = WALL_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        limits = (cpu_seconds, wall_seconds, MEMORY_BYTES)
        super().__init__(Path(__file__).with_name("judge_worker.py"), *map(str, limits))
        self._patience = wall_seconds + grace_seconds
        self._lock = threading.Lock()

    def equal(self, a: str, b: str) -> bool | None:
        """Return whether two LaTeX answers are equal; None when the limit was hit.

        Raises ConfigError when the worker cannot be started.
        """
        with self._lock:
            self._start()
            reply = self._ask([a, b], self._patience)
            return {b"equal": True, b"different": False}.get(reply or b"")

    def start(self) -> None:
        """Start the worker now, so that the first question does not wait for its imports."""
        with self._lock:
            self._start()

    def close(self) -> None:
        """End the worker; the next question starts another."""
        with self._lock:
            self._kill()

    def _start(self) -> None:
        try:
            self._started()
        except BrokenPipeError:
            raise ConfigError(
                "the process that compares answers did not start; "
                "check that `python -c 'import math_verify'` works"
            ) from None


_judge = Judge()
atexit.register(_judge.close)


@lru_cache(maxsize=4096)
def judged_equal(a: str, b: str) -> bool | None:
    """Return whether two LaTeX answers are equal by math-verify; None when the limit was hit."""
    return _judge.equal(a, b)
