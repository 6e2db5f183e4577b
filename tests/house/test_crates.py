"""The crates' own tests in release, with those that `make test` leaves out."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.campaign
@pytest.mark.parametrize("crate", ["falcon-tokenizer", "falcon-kernels", "falcon-scheduler"])
def test_the_crate(crate: str, root: Path, record_property: Callable[[str, object], None]) -> None:
    command = ["cargo", "test", "--release", "-p", crate, "--", "--include-ignored"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-2_000:]
    passed = re.findall(r"^test result: ok\. (\d+) passed; 0 failed; 0 ignored", done.stdout, re.M)
    assert passed
    record_property("tests", sum(map(int, passed)))
    if crate == "falcon-scheduler":
        assert "test a_hundred_thousand_histories ... ok" in done.stdout
        record_property("histories", 100_000)
