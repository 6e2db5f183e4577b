"""Small files, and a binding that stays thin."""

from statistics import median

import pytest

MAX_LINES = 600
MAX_BINDING_RATIO = 0.35
CORE = ("rust/tokenizer/src/", "rust/kernels/src/", "rust/scheduler/src/")


def num_product_lines(text: str) -> int:
    """Lines before the unit tests, which close a Rust file."""
    return len(text.split("#[cfg(test)]\nmod ")[0].splitlines())


def test_no_file_is_long(sources: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    num_lines = {path: len(text.splitlines()) for path, text in sources.items()}
    assert {path: n for path, n in num_lines.items() if n > MAX_LINES} == {}
    rooms = [n for path, n in num_lines.items() if n and not path.startswith("tests/")]
    longest = max(num_lines, key=num_lines.__getitem__)
    with capsys.disabled():
        print(
            f"\n{len(rooms)} files, {sum(rooms)} lines, median {median(rooms):.0f}, "
            f"longest {longest} ({num_lines[longest]})"
        )


def test_the_binding_is_thin(sources: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    core = sum(num_product_lines(t) for p, t in sources.items() if p.startswith(CORE))
    binding = sum(
        num_product_lines(t) for p, t in sources.items() if p.startswith("rust/bindings/src/")
    )
    with capsys.disabled():
        print(f"\nbinding {binding} lines, core {core}, ratio {binding / core:.2f}")
    assert binding <= MAX_BINDING_RATIO * core
