"""The process in which answers that may be hostile are compared. Run as a script by `judge.py`.

The parent of two: it imports math-verify once and forks a child that serves. A comparison that
takes more CPU time, time or memory than allowed kills the child (by the kernel, so no loop in C
can hold it off); the parent says so and forks the next one within milliseconds.

Lines on standard input: JSON [a, b]. Lines on standard output: "ready" once, then for every
pair "equal", "different" or "killed".
"""

import json
import os
import resource
import signal
import sys


def compare(a: str, b: str) -> bool:
    """Return whether math-verify takes two LaTeX answers for equal, in either order.

    Only the LaTeX grammar is used: math-verify's other reader passes text to `eval`.
    """
    from math_verify import LatexExtractionConfig, parse, verify

    reader = [LatexExtractionConfig()]
    # None: their timeouts are SIGALRM handlers, which a loop in C ignores.
    first, second = (
        parse(f"${text}$", reader, fallback_mode="no_fallback", parsing_timeout=None)
        for text in (a, b)
    )
    if not first or not second:
        return False
    return bool(
        verify(first, second, timeout_seconds=None) or verify(second, first, timeout_seconds=None)
    )


def serve(replies: int, cpu_seconds: float, wall_seconds: float, memory_bytes: int) -> None:
    """Answer pairs until standard input ends; each within its CPU time and time, or die."""
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        signal.setitimer(signal.ITIMER_REAL, wall_seconds)
        try:
            equal = compare(*json.loads(line))
        except (Exception, RecursionError, MemoryError):
            equal = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.write(replies, b"equal\n" if equal else b"different\n")


def main(cpu_seconds: float, wall_seconds: float, memory_bytes: int) -> None:
    """Import, say "ready", then keep one child serving until standard input ends."""
    replies = os.dup(1)
    os.dup2(2, 1)  # a library that prints must not break the protocol
    compare("x^2", "x \\cdot x")  # imports and first-use tables, before the clock matters
    os.write(replies, b"ready\n")
    while True:
        child = os.fork()
        if child == 0:
            try:
                serve(replies, cpu_seconds, wall_seconds, memory_bytes)
            except BaseException:
                os._exit(1)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            return
        os.write(replies, b"killed\n")


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
