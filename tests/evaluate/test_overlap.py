"""Overlap beside counting by hand; training sets are read in a stream."""

import json
from pathlib import Path

import pytest

from falcon_h1r.errors import ConfigError
from falcon_h1r.evaluate.items import Item
from falcon_h1r.evaluate.overlap import measure_overlap, training_texts, words_of


def item(problem: str) -> Item:
    return Item(problem=problem, answer="1", task="t")


def test_by_hand() -> None:
    items = [item("a b c d e f"), item("U v, w"), item("x y z q"), item("new words only here")]
    texts = ["zero A b c d!", "c d e f", "u V , w", "x y z z y z q"]
    overlap = measure_overlap(items, iter(texts), "set", n=3)
    # abc bcd cde def | u v , w as two runs | xyz yzq | none
    assert (overlap.num_items, overlap.num_texts) == (4, 4)
    assert overlap.identical == 1
    assert overlap.contained == 3
    assert overlap.mean_share == pytest.approx(3 / 4)
    assert "1 of 4 problems stand in it word for word" in overlap.sentence()


def test_short_problems_count_whole() -> None:
    overlap = measure_overlap([item("2 + 2")], ["what is 2 + 2 now", "2 + 3"], "set")
    assert (overlap.identical, overlap.contained) == (0, 1)


def test_words() -> None:
    assert words_of("A3b -4") == ["a3b", "-", "4"]


def test_training_sets_are_files_or_folders(tmp_path: Path) -> None:
    for name, key in (("a", "problem"), ("b", "question")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({key: name}) + "\n\n")
    assert list(training_texts(tmp_path)) == ["a", "b"]
    assert list(training_texts(tmp_path / "b.jsonl")) == ["b"]
    (tmp_path / "samples-00000.jsonl").write_text('{"problem": "s"}\n')
    assert list(training_texts(tmp_path)) == ["s"]
    (tmp_path / "samples-00000.jsonl").unlink()
    (tmp_path / "c.jsonl").write_text('{"answer": 1}\n')
    with pytest.raises(ConfigError, match="line 1 of"):
        list(training_texts(tmp_path))
    with pytest.raises(ConfigError, match="neither"):
        list(training_texts(tmp_path / "absent"))
