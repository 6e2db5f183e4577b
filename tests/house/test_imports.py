"""Names that promise to be light are light, and the Rust core knows no Python."""

import subprocess
import sys
from pathlib import Path

import pytest

import falcon_h1r

LIGHT = [
    "import falcon_h1r",
    "from falcon_h1r import Tokenizer",
    "from falcon_h1r import ConfidenceTracker",
    "import falcon_h1r.errors",
    "import falcon_h1r.thinking.answers",
    "import falcon_h1r.cli.main",
]


@pytest.mark.parametrize("statement", LIGHT)
def test_no_torch_behind(statement: str) -> None:
    code = f"{statement}\nimport sys\n"
    code += "heavy = {'torch', 'transformers', 'triton', 'sympy'} & set(sys.modules)\n"
    code += "assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_public_name_exists() -> None:
    assert [name for name in falcon_h1r.__all__ if getattr(falcon_h1r, name, None) is None] == []


@pytest.mark.parametrize("crate", ["falcon-tokenizer", "falcon-kernels", "falcon-scheduler"])
def test_the_core_knows_no_python(crate: str, root: Path) -> None:
    tree = subprocess.run(
        ["cargo", "tree", "--offline", "--prefix", "none", "--edges", "normal", "-p", crate],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    packages = {line.split()[0] for line in tree.splitlines() if line.strip()}
    assert crate in packages
    assert not packages & {"pyo3", "pyo3-ffi", "numpy"}
