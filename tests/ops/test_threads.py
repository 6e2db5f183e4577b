"""Threads that cannot start, and forked children: the compiled parts wait for nobody."""

import subprocess
import sys
import textwrap

import pytest

PRELUDE = """
import os, resource
import numpy as np
from falcon_h1r import _rust

def threads(process="self"):
    return set(os.listdir(f"/proc/{process}/task"))

def refuse_more_than(spare):
    '''The user of this process may start no more threads than `spare`.'''
    try:
        if os.getuid() == 0:
            os.setuid(65534)  # limits do not bind root
    except OSError:
        raise SystemExit(77)
    running = 0
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{process}").st_uid == os.getuid():
                running += len(threads(process))
        except OSError:
            pass  # it has ended
    resource.setrlimit(resource.RLIMIT_NPROC, (running + spare,) * 2)

x = np.ones((64, 16384), np.float32)
y, weight = np.empty_like(x), np.ones(16384, np.float32)

def norm():
    at = [array.ctypes.data for array in (x, weight, y)]
    _rust.rms_norm(*at, 1e-5, 64, 16384, 16384, False)
"""


def run(program: str) -> str:
    code = PRELUDE + textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode == 77:
        pytest.skip("this machine has no other user to be")
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_workers_stay_where_more_cannot_start() -> None:
    run("""
        before = threads()
        refuse_more_than(2)
        _rust.set_num_threads(24)
        norm()
        workers = threads()
        assert 1 <= len(workers - before) < 23, (before, workers)
        for _ in range(20):
            norm()
        assert threads() == workers
        assert abs(y - 1).max() < 1e-3
    """)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_batches_are_encoded_where_no_thread_starts() -> None:
    run("""
        import json
        model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}
        tokenizer = _rust.Tokenizer(json.dumps({"model": model}))
        texts = ["abb" * 100_000] * 40
        want = tokenizer.encode_batch(texts, num_threads=1)
        before = threads()
        refuse_more_than(0)
        assert tokenizer.encode_batch(texts, num_threads=32) == want
        assert threads() == before
    """)


def test_a_forked_child_waits_for_no_table_of_angles() -> None:
    run("""
        import signal, threading, time
        _rust.set_num_threads(1)
        frequencies = np.linspace(1, 0.001, 64).astype(np.float32)
        x = np.ones((20_000, 128), np.float32)
        y = np.empty_like(x)

        def rope(count, first):
            positions = np.arange(first, first + count)
            at = [array.ctypes.data for array in (x, positions, frequencies, y)]
            _rust.rope(*at, count, 128, 128, 128, False)

        stop = threading.Event()

        def forever():
            first = 0
            while not stop.is_set():
                rope(len(x), first := first + 1)

        thread = threading.Thread(target=forever)
        thread.start()
        time.sleep(0.2)
        for _ in range(3):
            child = os.fork()
            if child == 0:
                signal.alarm(5)
                rope(4, 7)
                os._exit(0)
            status = os.waitpid(child, 0)[1]
            stop.set() if status else None
            assert status == 0, "the child hung"
        stop.set()
        thread.join()
    """)
