"""`falcon-h1r eval` on the model in the wheel: tables, JSON, report, refusals before loading."""

import json
from pathlib import Path
from typing import Any

import pytest

from falcon_h1r.cli.eval import read_items
from falcon_h1r.errors import ConfigError
from falcon_h1r.evaluate.overlap import measure_overlap
from falcon_h1r.train.held_out import recipe_texts
from falcon_h1r.train.tasks import EVALUATED

CHEAP = ["--budget", "3", "--max-tokens", "48"]


def test_it_measures_and_reports(
    status_of: Any, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("falcon_h1r.evaluate.figure.has_matplotlib", lambda: False)
    own, out = tmp_path / "own.jsonl", tmp_path / "out"
    own.write_text('{"problem": "What is 17 + 25 - 9?", "answer": "33"}\n')
    argv = ["eval", "--tasks", f"jsonl:{own},reference:sums@1", "--limit", "2", *CHEAP]
    argv += ["--output", str(out), "--training-set", str(own)]
    assert status_of(argv) == 0
    shown, progress = capsys.readouterr()
    assert "reference/sums@1" in shown and "majority of 3" in shown
    assert "1 of 3 problems stand in it word for word" in shown
    assert "9/9 deepconf" in progress and str(out / "report.html") in progress
    assert "falcon-h1r[report]" in progress  # no figure, and what to do for one
    assert status_of([*argv, "--json"]) == 0  # the same again: nothing is left to run
    shown, progress = capsys.readouterr()
    rows = json.loads(shown)["rows"]
    assert [row["task"] for row in rows] == ["own", "reference/sums", "all"]
    assert "deepconf" not in progress
    assert status_of(["eval", "--compare", str(out), str(out), "--output", str(out)]) == 0
    assert "against the first" in capsys.readouterr().out
    assert (out / "comparison.html").exists()


def test_reference_names_stand_for_families_and_levels() -> None:
    assert len(EVALUATED) <= len(read_items("reference", limit=1)) <= 3 * len(EVALUATED)
    assert {i.level for i in read_items("reference@3", limit=1)} == {3}
    items = read_items("reference:sums@2,reference:sums", limit=2)
    assert [i.level for i in items] == [2, 2, 1, 1, 3, 3]
    assert len({i.id for i in items}) == 6
    for name in ("reference:products@1", "reference:poems", "reference@9", "referenc"):
        with pytest.raises(ConfigError, match=r"no task is named|level is|drill"):
            read_items(name)


def test_what_a_recipe_draws_is_not_held_out() -> None:
    items = read_items("reference:sums", limit=20)
    texts = list(recipe_texts("smoke_sft", 300))
    assert len(set(texts)) > 200
    overlap = measure_overlap(items, iter(texts), "smoke_sft")
    assert (overlap.num_texts, overlap.identical, overlap.contained) == (300, 0, 0)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ([], "--tasks"),
        (["--tasks", "gsm8k"], "nothing is downloaded"),
        (["--tasks", "gsm8k", "--data", "absent"], "no such folder"),
        (["--tasks", "gsm9k"], "gsm8k, math, bbh"),
        (["--tasks", "reference:sums@1", "--modes", "best"], "greedy, pass@K"),
        (["--tasks", "reference:sums@1", "--modes", "pass@64"], "the budget"),
        (["--tasks", "reference:sums@1", "--budget", "0"], "budget"),
        (["--tasks", "reference:sums@1", "--limit", "0"], "limit"),
        (["--tasks", "reference:sums@1", "--temperature", "-1"], "temperature"),
        (["--tasks", "reference:sums@1", "--training-set", "absent"], "absent"),
        (["--tasks", "reference:sums@1", "--training-set", "recipe:absent"], "absent"),
        (["--compare", "absent"], "run.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_refused(
    argv: list[str], named: str, status_of: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("falcon_h1r.cli.eval.load_llm", None)
    assert status_of(["eval", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and named in err and err.count("\n") == 1
