"""Several processes as one run: who belongs to it, sums over all, and their launch and end.

A run of N processes is N ranks of a torch.distributed group (gloo on the CPU, nccl on GPUs),
started here or by torchrun. Gradients are summed by one all-reduce over one flat buffer in the
parameters' order: a fixed order of sums, so that a resumed run repeats the bits of an unbroken
one, which buckets that are regrouped after a first step would not.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from falcon_h1r import errors
from falcon_h1r.errors import ConfigError, TrainingError, WorkerDied

PATIENCE = 20
"""Timeouts that ranks wait while another measures or the first one saves; a dead one is noticed at
once."""
_LAUNCHED = "FALCON_H1R_LAUNCHED"
GRACE_SECONDS = 3.0
"""How long the others may take to say why they ended, before they are ended."""


class Group:
    """The processes of a run; alone by default, where every sum is what it was."""

    rank, size = 0, 1

    def sum(self, tensor: Tensor) -> None:
        """Replace the tensor by its sum over the processes: the same bits in each of them.

        Raises WorkerDied when one of them is gone or silent for `parallel.timeout_seconds`.
        """

    def sum_patiently(self, tensor: Tensor) -> None:
        """The same where one may keep the others waiting for long."""

    def wait_for_first(self) -> None:
        """Let the others wait for rank 0 for long; rank 0 itself waits as in `sum`."""


class TorchGroup(Group):
    """A torch.distributed group, joined from the environment that torchrun or `launch` sets."""

    def __init__(self, timeout_seconds: float, on_gpus: bool) -> None:
        backend = "gloo"
        if on_gpus:
            backend = "cpu:gloo,cuda:nccl"
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        timeout = timedelta(seconds=timeout_seconds)
        with _peers_named():
            # Imports and compilers differ in time: meeting is more patient than training.
            dist.init_process_group(backend, timeout=max(timeout, timedelta(seconds=120)))
            self.quick: Any = dist.new_group(timeout=timeout)
            self.patient: Any = dist.new_group(timeout=PATIENCE * timeout)
            self.rank, self.size = dist.get_rank(), dist.get_world_size()
            waits = timeout if self.rank == 0 else PATIENCE * timeout
            self.after_first: Any = dist.new_group(timeout=waits)

    def sum(self, tensor: Tensor) -> None:
        """See Group."""
        with _peers_named():
            dist.all_reduce(tensor, group=self.quick)

    def sum_patiently(self, tensor: Tensor) -> None:
        """See Group."""
        with _peers_named():
            dist.all_reduce(tensor, group=self.patient)

    def wait_for_first(self) -> None:
        """See Group."""
        with _peers_named():
            dist.all_reduce(torch.zeros(1), group=self.after_first)


@contextlib.contextmanager
def _peers_named() -> Iterator[None]:
    """Turn the many errors of a lost connection into one that says what to do."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise WorkerDied(
            f"another process of this run ended or is silent ({reason}); the same command resumes"
        ) from error


def is_rank() -> bool:
    """Whether this process was started as one of several (by `launch` or torchrun)."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def is_launched() -> bool:
    """Whether it was `launch` that started this process."""
    return _LAUNCHED in os.environ


def join(processes: int, timeout_seconds: float, on_gpus: bool) -> Group:
    """The group this process belongs to, each rank on a GPU of its own where `on_gpus` says so.

    Raises ConfigError when the recipe counts otherwise.
    """
    if not is_rank():
        return Group()
    world = int(os.environ["WORLD_SIZE"])
    if world != processes:
        raise ConfigError(
            f"{world} processes were started but parallel.processes is {processes}; "
            f"add --set parallel.processes={world}"
        )
    return TorchGroup(timeout_seconds, on_gpus)


def leave() -> None:
    """Leave the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


# The side that starts the ranks


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Rank:
    """A started process: its lines are passed on, its error is kept."""

    def __init__(self, module: str, arguments: list[str], environment: dict[str, str]) -> None:
        self.error: tuple[str, str] | None = None
        self.early: int | None = None
        """How it had ended when the first of the ranks failed; None: it still ran."""
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.PIPE,  # its end tells the rank that its launcher is gone
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
            text=True,
            start_new_session=True,  # Ctrl-C reaches the launcher, which passes it on once
        )

    def read(self, report: Callable[[str], None]) -> None:
        """Pass on lines until the process closes its output."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                message = json.loads(line)
                text = str(message["text"])
            except (ValueError, TypeError, KeyError):  # a library's own words
                report(line.rstrip("\n"))
                continue
            if "error" in message:
                self.error = (message["error"], text)
            else:
                report(text)


def launch(
    module: str,
    arguments: list[str],
    processes: int,
    threads: int,
    stop: threading.Event,
    report: Callable[[str], None],
) -> None:
    """Run `python -m module arguments` as `processes` ranks and wait for all of them.

    `stop` is passed on as SIGTERM. Raises the error that a rank raised, or WorkerDied naming the
    rank that ended without one; the others are ended within seconds.
    """
    shared = {
        _LAUNCHED: "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(processes),
        "OMP_NUM_THREADS": str(threads),
    }
    ranks = [
        Rank(module, arguments, {**shared, "RANK": str(r), "LOCAL_RANK": str(r)})
        for r in range(processes)
    ]
    readers = [threading.Thread(target=r.read, args=(report,), daemon=True) for r in ranks]
    for reader in readers:
        reader.start()
    try:
        asked = _wait(ranks, stop)
    finally:
        for rank in ranks:
            if rank.process.poll() is None:
                rank.process.kill()
            rank.process.wait()
        for reader in readers:
            reader.join(timeout=GRACE_SECONDS)
        for rank in ranks:
            assert rank.process.stdin is not None
            assert rank.process.stdout is not None
            rank.process.stdin.close()
            rank.process.stdout.close()
    _raise_first(ranks, asked)


def _wait(ranks: list[Rank], stop: threading.Event) -> bool:
    """Return when all ranks have ended, or a moment after one failed: whether `stop` was set."""
    asked = False
    failed_at: float | None = None
    while any(r.process.poll() is None for r in ranks):
        if stop.wait(0.1) and not asked:
            asked = True
            for rank in ranks:
                rank.process.send_signal(signal.SIGTERM)
        elif asked:
            time.sleep(0.1)
        if failed_at is None and any(r.process.poll() for r in ranks):
            failed_at = time.monotonic()
            for rank in ranks:
                rank.early = rank.process.poll()
        if failed_at is not None and time.monotonic() - failed_at > GRACE_SECONDS:
            break
    return asked


def _raise_first(ranks: list[Rank], asked: bool) -> None:
    """Raise the cause of a failed run: a rank killed from outside, then an error of its own.

    A rank that was asked to stop before it had begun ends by that signal: that is no failure.
    """
    if asked and any(rank.early == -signal.SIGTERM for rank in ranks):
        return
    for index, rank in enumerate(ranks):
        if rank.early is not None and rank.early < 0:
            name = signal.Signals(-rank.early).name
            raise WorkerDied(
                f"process {index} of {len(ranks)} was ended by {name}; the same command resumes "
                "from the last checkpoint"
            )
    said = [r.error for r in ranks if r.error is not None]
    said.sort(key=lambda error: error[0] == "WorkerDied")  # the others only lost a peer
    if said:
        kind = getattr(errors, said[0][0], TrainingError)
        raise kind(said[0][1])
    codes = [r.process.returncode for r in ranks]
    if any(codes):
        raise WorkerDied(
            f"processes of this run ended with {codes} and gave no reason; what they wrote stands "
            "above; the same command resumes"
        )


def watch_launcher() -> None:
    """End this rank when its launcher is gone, so that no rank is left behind."""

    def wait() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def tell(text: str) -> None:
    """Hand a line to the launcher."""
    sys.stdout.write(json.dumps({"text": text}) + "\n")
    sys.stdout.flush()


def tell_error(error: Exception) -> None:
    """Hand this rank's error to the launcher."""
    line = json.dumps({"error": type(error).__name__, "text": str(error)})
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
