"""Checkpoints that are whole or absent.

Sibling temporary folder, fsync of each file, a manifest with sizes and SHA-256, fsync of the
folder, rename, fsync of the parent, then LATEST by rename. A reader trusts only a folder whose
manifest verifies, says what it skipped, and falls back to the one before.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from falcon_h1r.errors import TrainingError, WeightsError

MANIFEST = "manifest.json"
LATEST = "LATEST"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_folder(path: Path) -> None:
    """Remove a folder so that a kill leaves it whole or absent; an earlier leftover goes too."""
    aside = path.with_name(f".{path.name}.removed")
    shutil.rmtree(aside, ignore_errors=True)
    if path.exists():
        path.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


_DISK = (OSError, SafetensorError)


def write_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write files into a temporary folder and make it `target`, whole or not at all.

    Raises TrainingError when the disk refuses; what was begun is removed whatever happens.
    """
    temporary = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        fill(temporary)
        files = sorted(p for p in temporary.iterdir() if p.is_file())
        manifest = {p.name: {"bytes": p.stat().st_size, "sha256": _digest(p)} for p in files}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        for path in (*files, temporary / MANIFEST, temporary):
            _fsync(path)
        remove_folder(target)
        temporary.rename(target)
        _fsync(target.parent)
    except (OSError, SafetensorError, WeightsError) as error:  # a full disk has many names
        if isinstance(error, WeightsError) and not isinstance(error.__cause__, _DISK):
            raise  # of a model that could not be read
        raise TrainingError(
            f"could not save {target}: {error}; earlier saves are intact; make room and resume"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def save_checkpoint(
    folder: Path,
    step: int,
    tensors: dict[str, dict[str, Tensor]],
    state: dict[str, Any],
    keep: int = 3,
) -> Path:
    """Write checkpoint `step` below `folder`: one safetensors file a key of `tensors`, state.json.

    The `keep` newest stay. Raises TrainingError when the disk refuses.
    """

    def fill(temporary: Path) -> None:
        for name, group in tensors.items():
            contiguous = {key: value.detach().cpu().contiguous() for key, value in group.items()}
            save_file(contiguous, temporary / f"{name}.safetensors")
        (temporary / "state.json").write_text(json.dumps(state) + "\n")

    target = folder / f"step-{step:08d}"
    write_folder(target, fill)
    pointer = folder / f".{LATEST}.partial"
    try:
        pointer.write_text(target.name + "\n")
        _fsync(pointer)
        pointer.rename(folder / LATEST)
        _fsync(folder)
    except OSError as error:
        raise TrainingError(f"could not write {folder / LATEST}: {error}; make room") from error
    _prune(folder, target, keep)
    return target


def _prune(folder: Path, newest: Path, keep: int) -> None:
    """Remove what is older than the `keep` newest, later steps that a fall-back left behind, and
    what a kill left of a save."""
    others = sorted(p for p in folder.glob("step-*") if p != newest)
    older = [p for p in others if p.name < newest.name]
    later = [p for p in others if p.name > newest.name]
    torn = [*folder.glob(".step-*.partial"), *folder.glob(".step-*.removed")]
    for path in (*older[: max(0, len(older) - (keep - 1))], *later, *torn):
        shutil.rmtree(path, ignore_errors=True)


def verify_folder(folder: Path) -> str | None:
    """None when the manifest holds; otherwise what is wrong, in a few words."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        for name, entry in manifest.items():
            path = folder / name
            if path.stat().st_size != entry["bytes"]:
                return f"{name} has another size than the manifest says"
            if _digest(path) != entry["sha256"]:
                return f"{name} has another SHA-256 than the manifest says"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"unreadable ({error})"
    return None


def latest_checkpoint(folder: Path, report: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that verifies; what was skipped goes to `report`."""
    candidates = sorted(folder.glob("step-*"), reverse=True)
    for candidate in candidates:
        wrong = verify_folder(candidate)
        if wrong is None:
            return candidate
        report(f"skipped checkpoint {candidate.name}: {wrong}")
    if candidates:
        raise TrainingError(
            f"no checkpoint in {folder} is whole; start over with --fresh or restore one"
        )
    return None


def check_method(state: Mapping[str, Any], method: str, path: Path) -> None:
    """Raise TrainingError unless a checkpoint's state is of this method."""
    if (found := state.get("method", "an older version")) != method:
        raise TrainingError(
            f"{path} is of {found}, this run of {method}; name another --output, or use --fresh"
        )


def load_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read what `save_checkpoint` wrote: (tensors by file, state)."""
    tensors = {p.stem: load_file(p) for p in sorted(path.glob("*.safetensors"))}
    state: dict[str, Any] = json.loads((path / "state.json").read_text())
    return tensors, state
