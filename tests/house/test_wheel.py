"""The wheel holds the whole package and nothing else.

The two rooms at the top of the repository come in by symlink and by include globs: an editable
install works without the globs, a wheel does not, so only an opened wheel tells.
"""

import tarfile
from pathlib import Path
from zipfile import ZipFile

MAX_BYTES = 20_000_000
MODEL_FILES = ["config.json", "model.safetensors", "thinking.json", "tokenizer.json"]
ROOMS = {
    "python/falcon_h1r/": "falcon_h1r/",
    "train/": "falcon_h1r/train/",
    "triton_kernels/": "falcon_h1r/triton_kernels/",
}


def package_files(tracked: list[str]) -> set[str]:
    """What the tree says must be in the wheel."""
    return {
        inside + path.removeprefix(room)
        for path in tracked
        for room, inside in ROOMS.items()
        if path.startswith(room)
    }


def test_the_wheel_is_the_package(wheel: Path, tracked: list[str]) -> None:
    with ZipFile(wheel) as opened:
        names = {name for name in opened.namelist() if ".dist-info/" not in name}
    assert names == package_files(tracked) | {"falcon_h1r/_rust.abi3.so"}
    for name in ("py.typed", "_rust.pyi", "train/__init__.py", "triton_kernels/__init__.py"):
        assert f"falcon_h1r/{name}" in names
    assert {f"falcon_h1r/reference_model/{name}" for name in MODEL_FILES} <= names


def test_the_wheel_is_small_and_for_every_python(wheel: Path) -> None:
    assert wheel.stat().st_size <= MAX_BYTES
    assert "-cp311-abi3-" in wheel.name


def test_the_wheel_carries_licence_and_command(wheel: Path) -> None:
    with ZipFile(wheel) as opened:
        names = opened.namelist()
        [points] = [name for name in names if name.endswith("entry_points.txt")]
        assert "falcon-h1r=falcon_h1r.cli.main:main" in opened.read(points).decode()
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_can_build_the_wheel(sdist: Path, tracked: list[str]) -> None:
    with tarfile.open(sdist) as opened:
        names = {name.split("/", 1)[1] for name in opened.getnames() if "/" in name}
    needed = {f"python/{path}" for path in package_files(tracked)}
    needed |= {path for path in tracked if path.startswith("rust/") and "/src/" in path}
    assert needed <= names
    assert {name for name in names if name.endswith((".pyc", ".so"))} == set()
