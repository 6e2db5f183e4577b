"""What every training loop needs around its steps: a clean stop, metrics, progress."""

import contextlib
import fcntl
import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from falcon_h1r.errors import ConfigError, TrainingError
from falcon_h1r.evaluate.records import write_whole
from falcon_h1r.train.config import recipe_text

Report = Callable[[str], None]
METRICS, CHECKPOINTS, FINAL = "metrics.jsonl", "checkpoints", "final"
TENSORBOARD, LOCK = "tensorboard", ".lock"
"""What a run leaves in its folder."""


@contextlib.contextmanager
def stop_on_interrupt(report: Report) -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, so that the loop ends with a checkpoint."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            return
        stop.set()
        with contextlib.suppress(OSError, RuntimeError):  # whoever read the lines may be gone
            report("stopping after this step; the same command resumes")

    old = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def flushed_denormals() -> Iterator[None]:
    """Take numbers too small for full precision as zero, on this thread and those it starts.

    Decays and attention weights of a trained model are full of them, and each costs the processor
    a hundred cycles: a step of the reference model takes half again as long with them.
    """
    tiny = torch.tensor(1e-40)
    was_on = (tiny * 1.0).item() == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_on)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Say that `path` could not be written, and what to do: TrainingError for OSError."""
    try:
        yield
    except OSError as error:
        raise TrainingError(f"could not write {path}: {error}; make room and resume") from error


def make_folder(
    output: Path, forget: Iterable[str] = (), needed: Iterable[str | Path] = ()
) -> None:
    """Make a run's folder, and remove `forget` from it.

    Raises ConfigError, and removes nothing, when that would take one of the `needed` folders and
    while another process works there; TrainingError when the disk refuses.
    """
    forgotten = [output / name for name in forget]
    for path in forgotten:
        for folder in needed:
            if Path(folder).resolve().is_relative_to(path.resolve()):
                raise ConfigError(
                    f"--fresh would remove {folder}, which this run begins with; "
                    "name another --output"
                )
    with disk_errors(output):
        output.mkdir(parents=True, exist_ok=True)
    if not forgotten:
        return
    with sole_run(output), disk_errors(output):  # never what another process still needs
        for path in forgotten:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def keep_recipe(path: Path, recipe: Any) -> None:
    """Leave the resolved recipe in a file, whole or as it was; TrainingError for a full disk."""
    with disk_errors(path):
        write_whole(path, recipe_text(recipe))


@contextlib.contextmanager
def sole_run(output: Path, lock: Path | None = None) -> Iterator[None]:
    """Hold a run's folder, which must exist; ConfigError while another process works on it.

    `lock` is the file that is held, where the folder itself may be replaced; it is removed again.
    """
    path = output / LOCK if lock is None else lock
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(path.stat(), os.fstat(file.fileno())):
                raise BlockingIOError  # who held it has just removed it
        except (BlockingIOError, FileNotFoundError):
            raise ConfigError(
                f"another process works on {output}; wait for it, stop it, or name another --output"
            ) from None
        try:
            yield
        finally:
            if lock is not None:
                path.unlink(missing_ok=True)


def named(output: str | Path) -> Path:
    """The path of an output by a name of its own, so that others can stand beside it."""
    path = Path(output)
    return path if path.name not in ("", "..") else path.resolve()


def finite(value: Any) -> Any:
    """The value with NaN and infinities, which JSON cannot hold, as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    return value


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Flatten nested metrics to names of the form a/b."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            yield f"{prefix}{name}", float(value)


class MetricsLog:
    """`metrics.jsonl`, one line a step, and TensorBoard's event files where asked for.

    A context manager. Lines of steps from `first_step` on, and a torn last line, are dropped at
    the start: those steps are about to run again, and every step stands in the file once. Raises
    TrainingError when the disk refuses.
    """

    def __init__(self, folder: Path, first_step: int, tensorboard: bool = False) -> None:
        self.path = folder / METRICS
        self.board: Any = None
        if tensorboard:
            self.board = summary_writer()(str(folder / TENSORBOARD), purge_step=first_step)
        with disk_errors(self.path):
            self._trim(first_step)
            self.file = self.path.open("a", encoding="utf-8")

    def _trim(self, first_step: int) -> None:
        if not self.path.exists():
            return
        text = self.path.read_text(encoding="utf-8")
        kept = [line for line in text.splitlines(keepends=True) if _step_of(line) < first_step]
        partial = self.path.with_name(f".{METRICS}.partial")
        partial.write_text("".join(kept), encoding="utf-8")
        partial.replace(self.path)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Write the metrics of a step; nested mappings are allowed, NaN becomes null.

        Raises TrainingError when the disk refuses.
        """
        with disk_errors(self.path):
            self.file.write(json.dumps({"step": step, **finite(values)}, allow_nan=False) + "\n")
            self.file.flush()
        if self.board is not None:
            for name, value in _numbers(values):
                self.board.add_scalar(name, value, step)

    def sync(self) -> None:
        """Force the lines to the disk; call it before a checkpoint that counts on them.

        Raises TrainingError when the disk refuses.
        """
        with disk_errors(self.path):
            os.fsync(self.file.fileno())
        if self.board is not None:
            self.board.flush()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self.file.close()
        if self.board is not None:
            self.board.close()


def _step_of(line: str) -> float:
    """The step of a line; of a torn one, infinity."""
    try:
        return float(json.loads(line)["step"]) if line.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


def summary_writer() -> Any:
    """The class that writes TensorBoard's files; ConfigError where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "tensorboard is true but the package is missing; pip install 'falcon-h1r[train]'"
        ) from None
    return SummaryWriter


def duration(seconds: float) -> str:
    """Seconds as a reader wants them: "40 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class Progress:
    """A line every `interval` seconds and at the last step: tokens/s and time left."""

    def __init__(self, report: Report, num_steps: int, interval: float = 20.0) -> None:
        self.report, self.num_steps, self.interval = report, num_steps, interval
        self.began = time.monotonic()
        self.steps = self.tokens = 0

    def update(self, step: int, num_tokens: int, text: str) -> None:
        """Say that `step` steps of all are done, the last with `num_tokens`; `text` goes along."""
        self.steps += 1
        self.tokens += num_tokens
        spent = time.monotonic() - self.began
        if spent < self.interval and step != self.num_steps:
            return
        left = (self.num_steps - step) * spent / self.steps
        rate = self.tokens / max(spent, 1e-9)
        self.report(
            f"step {step}/{self.num_steps} {text}, {rate:.0f} tokens/s, {duration(left)} left"
        )
        self.began = time.monotonic()
        self.steps = self.tokens = 0
