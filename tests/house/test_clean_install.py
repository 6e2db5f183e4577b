"""The wheel, installed into an environment without the checkout, solves a problem.

The environment sees torch and its kin through a path file: such a path serves imports, but its own
path files are not read, so the editable install behind it stays out of sight.
"""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest


def solve_in_clean_environment(wheel: Path, folder: Path) -> None:
    """Install `wheel` into a new environment under `folder` and ask it for 33."""
    venv.create(folder / "env", with_pip=False)
    python = folder / "env/bin/python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "env/lib" / version / "site-packages"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--quiet"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}

    def run(*command: str) -> str:
        return subprocess.run(
            command, cwd=folder, env=environment, check=True, capture_output=True, text=True
        ).stdout

    where = run(str(python), "-c", "import falcon_h1r; print(falcon_h1r.__file__)")
    assert Path(where.strip()).is_relative_to(site)
    command = str(folder / "env/bin/falcon-h1r")
    [line] = run(command, "solve", "What is 17 + 25 - 9?", "--budget", "8", "--json").splitlines()
    assert json.loads(line)["answer"] == "33"


def test_the_wheel_solves_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    solve_in_clean_environment(wheel, tmp_path)


@pytest.mark.campaign
def test_a_wheel_from_the_sdist_is_the_same(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    environment = os.environ | {"CARGO_TARGET_DIR": str(tmp_path / "target")}
    out = tmp_path / "out"
    subprocess.run([*command, "--wheel-dir", str(out), str(sdist)], check=True, env=environment)
    [rebuilt] = out.iterdir()
    with ZipFile(wheel) as direct, ZipFile(rebuilt) as again:
        names, names_again = (set(z.namelist()) for z in (direct, again))
    assert {n for n in names if ".dist-info/" not in n} == {
        n for n in names_again if ".dist-info/" not in n
    }
    solve_in_clean_environment(rebuilt, tmp_path)
