"""The command line itself: help, wrong usage, one-line errors, exit statuses, start-up time."""

import subprocess
import sys
import time
from types import ModuleType
from typing import Any

import pytest

from falcon_h1r import errors
from falcon_h1r.cli import main as cli


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A command `probe` whose `run` the test chooses."""
    module = ModuleType("falcon_h1r.cli.probe", "A probe.")
    module.add_arguments = lambda parser: parser.add_argument("--budget", type=int)
    monkeypatch.setitem(sys.modules, "falcon_h1r.cli.probe", module)
    monkeypatch.setitem(cli.COMMANDS, "probe", "a probe")
    return module


def status_of(argv: list[str]) -> int:
    try:
        return cli.main(argv)
    except SystemExit as stop:
        return int(stop.code or 0)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in cli.COMMANDS)


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of([name, "--help"]) == 0
    assert f"falcon-h1r {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv", [[], ["nope"], ["--nope"], ["probe", "--nope"], ["probe", "--budget", "many"]]
)
def test_bad_usage_is_status_2_and_one_line(
    argv: list[str], probe: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    probe.run = lambda args: 0
    assert status_of(argv) == 2
    if argv:
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "--help" in err and argv[-1] in err


def test_a_misspelt_option_is_answered_by_the_nearest(
    probe: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(["probe", "--bugdet=3"]) == 2
    assert "did you mean --budget?" in capsys.readouterr().err
    assert status_of(["probe", "--bud", "3"]) == 2  # no abbreviations


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.RequestError("keep is 3:\nallowed (0, 1]"), 2),
        (errors.ConfigError("bad"), 2),
        (errors.WeightsError("torn"), 1),
        (errors.WorkerDied("gone"), 1),
        (FileNotFoundError(2, "No such file", "x.jsonl"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_one_line_and_a_status(
    error: BaseException, status: int, probe: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: object) -> int:
        raise error

    probe.run = run
    assert status_of(["probe"]) == status
    err = capsys.readouterr().err
    assert err.startswith("falcon-h1r probe: error: ") and err.count("\n") == 1


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    command = f"{sys.executable} -m falcon_h1r.cli.main tokenize --help | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_help_is_quick_and_light() -> None:
    code = (
        "import sys; from falcon_h1r.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'rich', 'numpy', 'sympy', 'jsonargparse'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        best = min(best, time.perf_counter() - start)
    assert best < 0.5
