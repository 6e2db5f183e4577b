"""`falcon-h1r solve` over scripted traces: input, output, refusals, Ctrl-C, the live display."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from falcon_h1r.cli.live import show_live
from falcon_h1r.cli.report import printable
from falcon_h1r.thinking.deepconf import DeepConf
from falcon_h1r.thinking.record import read_record

CHEAP = ["--budget", "24"]


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(data))
    monkeypatch.setattr("sys.stdin", stdin)


def test_json_is_one_object_a_problem(scripted: Any, status_of: Any, capsys: Any) -> None:
    assert status_of(["solve", "A problem", "--json", "--seed", "3", *CHEAP]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    row = json.loads(lines[0])
    assert row["problem"] == "A problem" and row["answer"] == "42"
    assert {"votes", "majority_answer", "num_tokens", "num_tokens_saved", "seconds"} <= row.keys()
    deepconf, params = scripted.calls[0]
    assert deepconf == DeepConf(budget=24) and params.seed == 3


def test_plain_lines_in_a_pipe(scripted: Any, status_of: Any, capsys: Any) -> None:
    assert status_of(["solve", "J?", "--show-traces", "--keep", "0.5", *CHEAP]) == 0
    out = capsys.readouterr().out
    assert "problem: J?\n" in out and "\nanswer: 42\n" in out and "\x1b" not in out
    assert "\ntrace 23: " in out and "stopped by confidence" in out


def test_options_reach_the_policy(scripted: Any, status_of: Any, tmp_path: Path) -> None:
    record = tmp_path / "r.jsonl"
    argv = ["solve", "C", "--offline", "--budget", "20", "--warmup", "3", "--keep", "0.5"]
    argv += ["--window", "4", "--vote", "tail", "--consensus", "none", "--temperature", "0.9"]
    argv += ["--top-p", "0.8", "--max-tokens", "90", "--confidence", "logprob"]
    argv += ["--top-logprobs", "5", "--total-tokens", "99999", "--power", "2.5"]
    argv += ["--record", str(record)]
    assert status_of(argv) == 0
    expected = DeepConf(
        mode="offline",
        budget=20,
        warmup=3,
        keep=0.5,
        window=4,
        vote="tail",
        consensus=None,
        confidence="logprob",
        top_logprobs=5,
        total_tokens=99999,
        power=2.5,
    )
    deepconf, params = scripted.calls[0]
    assert deepconf == expected
    assert (params.temperature, params.top_p, params.max_tokens) == (0.9, 0.8, 90)
    assert read_record(record)[0].deepconf == expected


@pytest.mark.parametrize("name", ["-", "file"])
def test_a_file_is_answered_in_order(
    name: str,
    scripted: Any,
    status_of: Any,
    capsys: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = "".join(json.dumps({"problem": f"{c}?"}) + "\n\n" for c in "DEF").encode()
    feed(monkeypatch, data)
    path = tmp_path / "problems.jsonl"
    path.write_bytes(data)
    file = "-" if name == "-" else str(path)
    assert status_of(["solve", "--file", file, "--json", *CHEAP]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["problem"] for row in rows] == ["D?", "E?", "F?"]


def test_standard_input_is_one_problem(
    scripted: Any, status_of: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(monkeypatch, b"G is\nwhat?\n")
    assert status_of(["solve", "--json", *CHEAP]) == 0
    assert json.loads(capsys.readouterr().out)["problem"] == "G is\nwhat?"


BAD_LINES = [
    b"{",
    b"[]",
    b'"x"',
    b"{}",
    b'{"problem": 3}',
    b'{"problem": "  "}',
    b'{"problem": "\\ud800"}',
    b'{"problem": "\xff"}',
    b"[" * 100_000,
    json.dumps({"problem": "H" * 600}).encode(),
]


@pytest.mark.parametrize("bad", BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_broken_line_is_named_and_can_be_skipped(
    bad: bytes, scripted: Any, status_of: Any, capsys: Any, tmp_path: Path
) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_bytes(b'{"problem": "H"}\n\n' + bad + b'\n{"problem": "I"}\n')
    assert status_of(["solve", "--file", str(path), *CHEAP]) == 2
    err = capsys.readouterr().err
    assert "line 3 of" in err and err.count("\n") == 1 and len(err) < 500
    assert status_of(["solve", "--file", str(path), "--skip-bad", "--json", *CHEAP]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["problem"] for line in out.splitlines()] == ["H", "I"]
    assert "line 3 of" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "argv",
    [
        ["A", "--file", "x.jsonl"],
        [""],
        ["\ud800"],
        ["A", "--budget", "0"],
        ["A", "--budget", "1000000000"],
        ["A", "--budget", "4", "--warmup", "5"],
        ["A", "--keep", "0"],
        ["A", "--keep", "nan"],
        ["A", "--window", "0"],
        ["A", "--consensus", "2"],
        ["A", "--consensus", "much"],
        ["A", "--vote", "best"],
        ["A", "--confidence", "best"],
        ["A", "--temperature", "-1"],
        ["A", "--temperature", "inf"],
        ["A", "--top-p", "0"],
        ["A", "--max-tokens", "0"],
        ["A", "--total-tokens", "0"],
        ["A", "--record", "/nowhere/at/all"],
        ["A", "--budgt", "3"],
        ["A", "B"],
    ],
    ids=" ".join,
)
def test_refused(argv: list[str], scripted: Any, status_of: Any, capsys: Any) -> None:
    assert status_of(["solve", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("falcon-h1r solve: error: ") and err.count("\n") == 1
    assert not scripted.engine.scheduler.has_unfinished()


def test_a_missing_file_is_failure(scripted: Any, status_of: Any, capsys: Any) -> None:
    assert status_of(["solve", "--file", "absent.jsonl"]) == 1
    assert "absent.jsonl: No such file" in capsys.readouterr().err


def test_nul_is_a_character_as_any(
    scripted: Any, status_of: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(monkeypatch, b"G \x00?")
    assert status_of(["solve", *CHEAP]) == 0
    assert capsys.readouterr().out.startswith("problem: G \\x00?\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
def test_a_full_disk_costs_the_record_not_the_answer(
    scripted: Any, status_of: Any, capsys: Any
) -> None:
    assert status_of(["solve", "A", "--json", "--record", "/dev/full", *CHEAP]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["answer"] == "42"
    assert err == "falcon-h1r solve: error: /dev/full: No space left on device\n"


def test_an_empty_standard_input_is_refused(
    scripted: Any, status_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(monkeypatch, b"\n")
    assert status_of(["solve"]) == 2


def test_ctrl_c_shows_what_is_done(scripted: Any, status_of: Any, capsys: Any) -> None:
    scripted.engine.interrupt_at = 60
    assert status_of(["solve", "A", "--json", *CHEAP]) == 130
    row = json.loads(capsys.readouterr().out)
    assert row["partial"] is True and row["num_tokens"] > 0


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[2Jb\tc\nd\x9b\x00") == "a\\x1b[2Jb\tc\nd\\x9b\\x00"


@pytest.mark.parametrize("interrupt_at", [None, 60])
def test_the_live_display(interrupt_at: int | None, scripted: Any) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, height=40, highlight=False)
    problems = ["J [bold]is[/] \x1b[31mred", "K?"]
    prompts = [scripted.tokenizer.encode(problem) for problem in problems]
    thinking = scripted.thinking(prompts, DeepConf(budget=24, keep=0.5), None)
    scripted.engine.interrupt_at = interrupt_at
    status = show_live(thinking, thinking.events(), problems, True, console)
    shown = file.getvalue()
    assert status == (130 if interrupt_at else 0)
    assert "[bold]is[/] \\x1b[31mred" in shown  # neither markup nor escapes
    assert "\x1b[31mred" not in shown
    if interrupt_at is None:
        assert shown.count("answer: ") == 2 and shown.count("tokens: ") >= 2
        assert "✓" in shown and "✗" in shown and "│" in shown and "█" in shown
        assert "trace 23: " in shown
    else:
        assert "a partial result" in shown
