"""A process that answers one JSON line with one line, and is killed when it hangs.

Verdicts on what a model wrote may loop, crash or eat memory; so they are asked for across a pipe.
"""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, cast

START_SECONDS = 120.0
"""Longest wait for the worker's imports."""


class LineWorker:
    """The client's side: starts `script` at the first question, and again after it was killed.

    The script writes "ready" when it can be asked. Not safe from several threads.
    """

    def __init__(self, script: Path, *arguments: str) -> None:
        self._command = [sys.executable, "-P", str(script), *arguments]
        self._worker: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._unread = b""

    def __del__(self) -> None:
        self._kill()

    def _started(self) -> subprocess.Popen[bytes]:
        """Return the running worker; BrokenPipeError when it cannot be started."""
        if self._owner != os.getpid():  # after a fork: those pipes belong to the parent
            self._worker, self._owner, self._unread = None, os.getpid(), b""
        if self._worker is not None and self._worker.poll() is None:
            return self._worker
        self._kill()
        # Its own session: Ctrl-C at a terminal is for the caller to handle.
        self._worker = subprocess.Popen(
            self._command,
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
        except BaseException:  # its line, unread, would be taken for the next answer
            self._kill()
            raise
        if ready != b"ready":
            self._kill()
            raise BrokenPipeError(f"{self._command[2]} did not start")
        return self._worker

    def _ask(self, question: object, seconds: float) -> bytes | None:
        """Return the answer to a question; None when there was none in time: the worker is gone."""
        worker = self._started()
        try:
            cast(IO[bytes], worker.stdin).write(json.dumps(question).encode() + b"\n")
            return self._line(worker, seconds)
        except (BrokenPipeError, TimeoutError):
            self._kill()
            return None
        except BaseException:  # Ctrl-C: its answer, unread, would be taken for the next one
            self._kill()
            raise

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
            os.killpg(worker.pid, 9)  # the worker and the children that serve
        worker.wait()
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                pipe.close()
