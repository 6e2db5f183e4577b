"""What no file may hold: paths of one machine, promises, code read as data."""

import re
from pathlib import Path

import pytest

TEXT = (".py", ".rs", ".md", ".toml", ".yaml", ".json", ".jsonl", "Makefile", "run", ".txt")
SELF = "tests/house/test_words.py"

ANYWHERE = {
    "a path of one machine": r"(?<![\w.])/(?:root|home/\w+|Users/\w+|work)/",
    "pytest as a module": r"python3? -m pytest",
}
IN_SOURCES = {
    "a promise": r"NotImplementedError|todo!\(|unimplemented!\(|\b(?:TODO|FIXME|XXX)\b",
    "a check that cannot fail": r"assert True\b|assert!\(true\)",
    "pickled data": r"torch\.load\(|import pickle|pickle\.\w+\(|np\.load\([^)]*allow_pickle",
    "an unsafe loader": r"yaml\.load\(|yaml\.unsafe",
    "text run as code": r"(?<![.\w])(?:eval|exec)\(|os\.system\(|shell=True",
    "a model folder's code": r"trust_remote_code",
}


def found(patterns: dict[str, str], texts: dict[str, str]) -> list[str]:
    return [
        f"{path}:{text.count(chr(10), 0, match.start()) + 1}: {what}: {match.group()}"
        for path, text in texts.items()
        for what, pattern in patterns.items()
        for match in re.finditer(pattern, text)
    ]


def test_no_forbidden_words(root: Path, tracked: list[str], sources: dict[str, str]) -> None:
    texts = {p: (root / p).read_text() for p in tracked if p.endswith(TEXT) and p != SELF}
    assert found(ANYWHERE, texts) == []
    assert found(IN_SOURCES, {p: t for p, t in sources.items() if p != SELF}) == []


@pytest.mark.parametrize("line", ["# TODO later", "x = eval('1')", "torch.load('m')"])
def test_the_search_finds(line: str) -> None:
    assert found(IN_SOURCES, {"x.py": line}) != []


def test_methods_are_not_taken_for_code() -> None:
    assert found(IN_SOURCES, {"x.py": "model.eval()\nretrieval('x')"}) == []


def test_unsafe_is_argued(sources: dict[str, str]) -> None:
    """A `SAFETY:` line stands near each `unsafe` block, or in the same function above it.

    The body of an `unsafe fn` is covered by the promise its callers make.
    """
    bare = []
    for path, text in sources.items():
        lines = text.splitlines() if path.endswith(".rs") else []
        start = 0
        for i, line in enumerate(lines):
            if re.search(r"\bfn \w", line):
                start = i
            if re.search(r"\bunsafe (?:\{|impl)", line.split("//")[0]):
                promised = "unsafe fn" in lines[start]
                if not promised and "SAFETY:" not in "\n".join(lines[min(start, i - 4) : i + 2]):
                    bare.append(f"{path}:{i + 1}")
    assert bare == []


def test_rooms_at_the_top_are_linked(root: Path) -> None:
    for room in ("train", "triton_kernels"):
        link = root / "python/falcon_h1r" / room
        assert link.is_symlink(), f"{link} must be a symlink (git config core.symlinks true)"
        assert link.resolve() == root / room
