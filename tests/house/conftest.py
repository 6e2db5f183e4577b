"""The tree as the rules see it, and what is built of it."""

import subprocess
import sys
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


def maturin(command: str, root: Path, out: Path, *options: str) -> Path:
    """Run one maturin command offline and return the file it made."""
    subprocess.run(
        [sys.executable, "-m", "maturin", command, "--out", str(out), *options],
        cwd=root,
        check=True,
        capture_output=True,
    )
    [made] = out.iterdir()
    return made


@pytest.fixture(scope="session")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return maturin("build", root, tmp_path_factory.mktemp("wheel"), "--release", "--offline")


@pytest.fixture(scope="session")
def sdist(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return maturin("sdist", root, tmp_path_factory.mktemp("sdist"))
