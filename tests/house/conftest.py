"""The tree as the rules see it: the files that git tracks."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def tracked() -> list[str]:
    """Tracked files as paths relative to the root, symlinks to folders left out."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return sorted(path for path in listed if (ROOT / path).is_file())


@pytest.fixture(scope="session")
def sources(tracked: list[str]) -> dict[str, str]:
    """Text of every Python and Rust file by path."""
    return {path: (ROOT / path).read_text() for path in tracked if path.endswith((".py", ".rs"))}
