"""Peers live in an environment of their own, so that their pins never touch ours.

A peer's script reads one JSON value from standard input and prints one JSON value.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PYTHON = Path(__file__).parents[2] / ".venv-peers/bin/python"


@pytest.fixture(scope="session")
def peer() -> Callable[[str, Any], Any]:
    """Run a script in the peers' environment: peer(script, payload) -> its answer."""
    assert PYTHON.exists(), "the peers' environment is missing; run `make test-peers`"

    def run(script: str, payload: Any) -> Any:
        done = subprocess.run(
            [str(PYTHON), "-c", script],
            input=json.dumps(payload),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
