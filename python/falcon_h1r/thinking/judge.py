"""A client of the process that compares answers by math-verify; safe from any thread."""

import atexit
import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import IO, cast

from falcon_h1r.errors import ConfigError

CPU_SECONDS = 0.5
"""CPU time one comparison may take: CPU, not wall, so that a busy machine changes no vote."""
WALL_SECONDS = 20.0
"""Time one comparison may take, where the machine is too busy to give it its CPU time."""
GRACE_SECONDS = 5.0
"""After this much more the whole worker is taken for stuck and killed."""
START_SECONDS = 120.0
"""Longest wait for the worker's imports."""
MEMORY_BYTES = 2 << 30
"""Address space of the worker."""


class Judge:
    """Compares pairs of answers in another process, started at the first question."""

    def __init__(
        self, cpu_seconds: float = CPU_SECONDS, wall_seconds: float = WALL_SECONDS
    ) -> None:
        self._cpu_seconds = cpu_seconds
        self._wall_seconds = wall_seconds
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._unread = b""

    def equal(self, a: str, b: str) -> bool | None:
        """Return whether two LaTeX answers are equal; None when the limit was hit.

        Raises ConfigError when the worker cannot be started.
        """
        with self._lock:
            try:
                return self._ask(self._started(), a, b)
            except (BrokenPipeError, TimeoutError):
                self._kill()
                return None

    def start(self) -> None:
        """Start the worker now, so that the first question does not wait for its imports."""
        with self._lock:
            self._started()

    def close(self) -> None:
        """End the worker; the next question starts another."""
        with self._lock:
            self._kill()

    def _ask(self, worker: subprocess.Popen[bytes], a: str, b: str) -> bool | None:
        cast(IO[bytes], worker.stdin).write(json.dumps([a, b]).encode() + b"\n")
        reply = self._line(worker, self._wall_seconds + GRACE_SECONDS)
        return {b"equal": True, b"different": False}.get(reply)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():  # after a fork: those pipes belong to the parent
            self._worker, self._owner, self._unread = None, os.getpid(), b""
        if self._worker is not None and self._worker.poll() is None:
            return self._worker
        self._kill()
        script = Path(__file__).with_name("judge_worker.py")
        limits = (self._cpu_seconds, self._wall_seconds, MEMORY_BYTES)
        # Its own session: Ctrl-C at a terminal is for the caller to handle.
        self._worker = subprocess.Popen(
            [sys.executable, "-P", script, *map(str, limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        try:
            ready = self._line(self._worker, START_SECONDS)
        except (BrokenPipeError, TimeoutError):
            ready = b""
        if ready != b"ready":
            self._kill()
            raise ConfigError(
                "the process that compares answers did not start; "
                "check that `python -c 'import math_verify'` works"
            )
        return self._worker

    def _line(self, worker: subprocess.Popen[bytes], seconds: float) -> bytes:
        """Return the next line; TimeoutError or BrokenPipeError instead of a wait without end."""
        stdout = cast(IO[bytes], worker.stdout)
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                data = os.read(stdout.fileno(), 4096)
                if not data:
                    raise BrokenPipeError
                self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _kill(self) -> None:
        worker, self._worker, self._unread = self._worker, None, b""
        if worker is None or self._owner != os.getpid():
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, 9)  # the worker and the child that serves
        worker.wait()
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                pipe.close()


_judge = Judge()
atexit.register(_judge.close)


@lru_cache(maxsize=4096)
def judged_equal(a: str, b: str) -> bool | None:
    """Return whether two LaTeX answers are equal by math-verify; None when the limit was hit."""
    return _judge.equal(a, b)
