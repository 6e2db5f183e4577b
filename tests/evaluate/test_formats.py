"""Readers of the original formats, over small files of our own; refusals that name the file."""

import json
from pathlib import Path
from typing import Any

import pytest

from falcon_h1r.cli.eval import read_items
from falcon_h1r.errors import ConfigError
from falcon_h1r.evaluate.formats import lettered_choices
from falcon_h1r.evaluate.items import Item
from falcon_h1r.evaluate.load import load_items


def write(path: Path, *rows: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(
        tmp_path / "gsm8k/test.jsonl",
        {"question": "Kim has 3 pens and buys 1,200.", "answer": "3 + 1200\n#### 1,203"},
        {"question": "Two and two?", "answer": "<<2+2=4>>\n#### 4"},
    )
    for n, level in ((2, "Level 1"), (10, "Level 5"), (1, "Level ?")):
        row = {"problem": f"P{n}", "level": level, "solution": rf"so $\boxed{{\frac{{1}}{{{n}}}}}$"}
        write(tmp_path / f"MATH/test/algebra/{n}.json", row)
    write(
        tmp_path / "MATH/test/geometry/1.json",
        {"problem": "G", "level": "Level 3", "solution": r"\boxed{\text{(C)}}"},
    )
    options = "Which is red?\nOptions:\n(A) a kite\n(B) a drum"
    write(tmp_path / "bbh/hyperbaton.json", {"examples": [{"input": options, "target": "(B)"}]})
    write(tmp_path / "bbh/navigate.json", {"examples": [{"input": "Back?", "target": "Yes"}] * 3})
    choices = [{"label": "1", "text": "iron"}, {"label": "2", "text": "wood"}]
    question = {"stem": "What rusts?", "choices": choices}
    write(tmp_path / "ARC-Easy/ARC-Easy-Test.jsonl", {"question": question, "answerKey": "1"})
    write(tmp_path / "own.jsonl", {"question": "1+1", "answer": 2, "level": 3, "task": "add"})
    return tmp_path


def test_gsm8k(data: Path) -> None:
    first, second = load_items("gsm8k", data)
    assert first == Item(problem="Kim has 3 pens and buys 1,200.", answer="1203", task="gsm8k")
    assert second.answer == "4"


def test_math(data: Path) -> None:
    items = load_items("math", data)
    assert [i.problem for i in items] == ["P1", "P2", "P10", "G"]
    assert [i.level for i in items] == [None, 1, 5, 3]
    assert [i.answer for i in items] == ["1", r"\frac{1}{2}", r"\frac{1}{10}", "C"]
    assert {i.task for i in load_items("math/geometry", data)} == {"math/geometry"}


def test_bbh(data: Path) -> None:
    items = load_items("bbh", data)
    assert [i.task for i in items] == ["bbh/hyperbaton", *["bbh/navigate"] * 3]
    assert items[0].choices == ("a kite", "a drum")
    assert len({i.id.key for i in items}) == 4  # equal items keep names of their own
    assert [i.task for i in load_items("bbh/navigate", data, limit=2)] == ["bbh/navigate"] * 2
    assert load_items("bbh", data / "bbh") == items
    (data / "bbh").rename(data / "BIG-Bench-Hard")
    assert load_items("bbh/hyperbaton", data / "BIG-Bench-Hard") == items[:1]


def test_arc(data: Path) -> None:
    [item] = load_items("arc_easy", data)
    assert item.problem == "What rusts?\nOptions:\n(A) iron\n(B) wood"
    assert (item.answer, item.choices) == ("(A)", ("iron", "wood"))


def test_jsonl(data: Path) -> None:
    [item] = load_items(f"jsonl:{data / 'own.jsonl'}")
    assert (item.problem, item.answer, item.task, item.level) == ("1+1", "2", "add", 3)


def test_a_key_depends_on_the_item_only(data: Path) -> None:
    few, all_ = load_items("gsm8k", data, limit=1), load_items("bbh,gsm8k", data)
    assert few[0].id in [item.id for item in all_]


def overlapping(data: Path) -> list[tuple[str, str]]:
    own = f"jsonl:{data / 'own.jsonl'}"
    return [
        ("bbh,bbh/navigate", "bbh"),
        ("bbh/navigate,bbh", "bbh/navigate,bbh/hyperbaton"),
        ("gsm8k,gsm8k/test", "gsm8k"),
        ("gsm8k,gsm8k", "gsm8k"),
        ("math/geometry,gsm8k,math", "math/geometry,gsm8k,math/algebra"),
        (f"{own},{own},gsm8k", f"{own},gsm8k"),
        ("reference:sums@1,reference:sums", "reference:sums"),
        ("reference@1,reference:sums@1,gsm8k", "reference@1,gsm8k"),
    ]


@pytest.mark.parametrize("case", range(8))
@pytest.mark.parametrize("limit", [None, 2])
def test_a_problem_of_two_names_counts_once(case: int, limit: int | None, data: Path) -> None:
    tasks, once = overlapping(data)[case]
    expected = [item.id for item in read_items(once, str(data), limit)]
    assert [item.id for item in read_items(tasks, str(data), limit)] == expected
    assert len({key for key, _, _ in expected}) == len(expected)
    if "reference" not in tasks:
        assert load_items(tasks, data, limit) == load_items(once, data, limit)


def test_equal_problems_of_one_name_stay(data: Path) -> None:
    assert len(load_items("bbh,bbh/navigate,bbh", data)) == 4
    assert [i.repeat for i in load_items(["bbh/navigate"] * 2, data)] == [0, 1, 2]


def test_choices_are_lines_from_a_on() -> None:
    assert lettered_choices("x\n(A) one\n(B) two") == ("one", "two")
    assert lettered_choices("x\n(B) two\n(C) three") == ()
    assert lettered_choices("is (A) or (B)?\n- Yes\n- No") == ()


@pytest.mark.parametrize(
    ("task", "named"),
    [
        ("gsm8k/train", "gsm8k/train.jsonl"),
        ("gsm8k/dev", "test, train"),
        ("math/poetry", "algebra, geometry"),
        ("bbh/word_sorting", "word_sorting.json"),
        ("arc_challenge", "ARC-Challenge-Test.jsonl"),
        ("arc_easy/all", "test, dev, train"),
        ("gsm9k", "gsm8k, math, bbh"),
        ("jsonl:absent.jsonl", "absent.jsonl"),
        ("", "no task"),
    ],
)
def test_what_is_missing_is_named(task: str, named: str, data: Path) -> None:
    with pytest.raises(ConfigError, match=named):
        load_items(task, data)


@pytest.mark.parametrize("task", ["gsm8k", "math", "bbh", "bbh/navigate", "arc_easy"])
def test_without_data_the_file_to_bring_is_named(task: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs .* nothing is downloaded"):
        load_items(task)
    with pytest.raises(ConfigError, match=r"needs .* bring it to"):
        load_items(task, tmp_path)
    with pytest.raises(ConfigError, match="no such folder"):
        load_items(task, tmp_path / "absent")


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"question": "x"}',
        b'{"question": "x", "answer": "5"}',
        b'{"question": "", "answer": "#### 5"}',
        b'{"question": ["x"], "answer": "#### 5"}',
        b"[" * 100_000,
    ],
    ids=range(8),
)
def test_a_broken_line_is_named(line: bytes, data: Path) -> None:
    path = data / "gsm8k/test.jsonl"
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(ConfigError, match="line 3 of") as caught:
        load_items("gsm8k", data)
    assert len(str(caught.value)) < 500


def test_broken_files_are_named(data: Path) -> None:
    (data / "gsm8k/test.jsonl").write_text("")
    (data / "bbh/navigate.json").write_text('{"examples": []}')
    (data / "MATH/test/algebra/2.json").write_text('{"problem": "x", "solution": "none"}')
    for task, named in (("gsm8k", "no line"), ("bbh", "navigate"), ("math", "boxed")):
        with pytest.raises(ConfigError, match=named):
            load_items(task, data)
    with pytest.raises(ConfigError, match="at least 1"):
        load_items("arc_easy", data, limit=0)
