"""Run the measurements of a source checkout, other libraries beside ours in the same run."""

import argparse
import subprocess
import sys
from pathlib import Path

import falcon_h1r
from falcon_h1r.errors import ConfigError


def benches_folder() -> Path:
    """The `benches/` of the checkout this package was installed from.

    Raises ConfigError for a package that was installed from a wheel.
    """
    folder = Path(falcon_h1r.__file__).resolve().parents[2] / "benches"
    if not any(folder.glob("bench_*.py")):
        raise ConfigError(
            "the measurements are part of the source checkout, not of the wheel; "
            "clone the repository and run `make setup`, then `make bench`"
        )
    return folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `falcon-h1r bench`."""
    parser.add_argument("names", nargs="*", help="benches to run: NAME for bench_NAME.py (all)")


def run(args: argparse.Namespace) -> int:
    """Run the named benches; results go to `benches/results/`.

    Raises ConfigError for a name that no file has.
    """
    folder = benches_folder()
    known = sorted(path.stem.removeprefix("bench_") for path in folder.glob("bench_*.py"))
    if unknown := [name for name in args.names if name not in known]:
        raise ConfigError(f"no bench is named {unknown[0]!r}; there are: {', '.join(known)}")
    files = [str(folder / f"bench_{name}.py") for name in args.names or known]
    pytest = Path(sys.executable).with_name("pytest")
    return subprocess.call([str(pytest), "-s", "--timeout=1800", *files], cwd=folder.parent)
