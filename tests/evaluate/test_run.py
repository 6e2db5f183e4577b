"""An evaluation of the model in the wheel: paired runs, resuming, Ctrl-C, the report."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from falcon_h1r import LLM, DeepConf
from falcon_h1r.errors import ConfigError, RequestError
from falcon_h1r.evaluate import EvalConfig, EvalResult, Item, evaluate
from falcon_h1r.evaluate.card import EVALUATION, check_card, write_card, write_section
from falcon_h1r.evaluate.compare import compare_table, write_comparison
from falcon_h1r.evaluate.figure import majority_curve
from falcon_h1r.evaluate.items import ItemId
from falcon_h1r.evaluate.records import Run, RunRecord
from falcon_h1r.evaluate.report import render, write_report
from falcon_h1r.evaluate.run import Progress

CONFIG = EvalConfig(
    modes=("greedy", "pass@1", "pass@2", "majority", "deepconf"),
    deepconf=DeepConf(budget=4, warmup=2),
    max_tokens=48,
)
ITEMS = [
    Item(problem="What is 17 + 25 - 9?", answer="33", task="sums", level=1),
    Item(problem="What is 12 + 30 + 4?", answer="46", task="sums", level=1),
    Item(problem="not ( True ) and ( True ) is", answer="False", task="booleans"),
    Item(problem="What is " + "1 + " * 600 + "1?", answer="601", task="booleans"),
]


def same(a: RunRecord, b: RunRecord) -> bool:
    """Whether records agree in what timing must not change: a consensus may come a step later."""
    if a.run == "deepconf":
        return a.answer == b.answer
    return (a.answer, a.answers, a.lengths) == (b.answer, b.answers, b.lengths)


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(max_num_seqs=8) as llm:
        yield llm


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("eval")


@pytest.fixture(scope="module")
def result(llm: LLM, folder: Path) -> EvalResult:
    return evaluate(llm, ITEMS, CONFIG, output=folder, command="falcon-h1r eval --tasks own")


def test_runs_are_paired(result: EvalResult) -> None:
    assert not result.interrupted and len(result.done()) == 4
    for item in result.items[:3]:
        full, ours = (result.records[(item.key, run)] for run in ("full", "deepconf"))
        assert len(full.lengths) == len(ours.lengths) == 4
        assert all(a <= b for a, b in zip(ours.lengths, full.lengths, strict=True))
        pairs = zip(full.answers, ours.answers, strict=True)
        assert all(b in (a, None) for a, b in pairs)
        assert full.stopped_by.keys() <= {"stop", "length"}


def test_measures(result: EvalResult) -> None:
    sums, booleans = result.rows()
    assert (sums.name, sums.num_problems, booleans.num_problems) == ("sums@1", 2, 2)
    assert booleans.does_not_fit == 1 and booleans.accuracy["greedy"].value <= 0.5
    assert sums.accuracy["majority"].value == 1.0
    assert sums.accuracy["pass@2"].value >= sums.accuracy["pass@1"].value
    total = result.total()
    assert total.difference is not None and total.saved is not None
    full, ours = total.speed["full"], total.speed["deepconf"]
    assert total.saved.value == pytest.approx(1 - ours.num_tokens / full.num_tokens)
    assert full.flops >= ours.flops > total.speed["greedy"].flops > 0
    assert full.seconds_per_100_tokens == pytest.approx(100 / full.tokens_per_second)
    curve = majority_curve(result.records_of("full", result.done()))
    assert [k for k, _, _ in curve] == [1, 2, 4]
    assert curve[-1][2] == total.accuracy["majority"]


def test_order_and_company_change_nothing(llm: LLM, result: EvalResult) -> None:
    again = evaluate(llm, ITEMS[1::-1], CONFIG)
    for (key, run), record in again.records.items():
        assert same(record, result.records[(key, run)])


def test_a_replay_votes_like_the_run(llm: LLM, result: EvalResult) -> None:
    replayed = evaluate(llm, ITEMS, replace(CONFIG, replay=True))
    assert replayed.records.keys() == result.records.keys()
    for key, record in replayed.records.items():
        assert same(record, result.records[key])
        assert record.num_tokens <= result.records[key].num_tokens
    assert math.isnan(replayed.total().speed["deepconf"].seconds_per_problem)
    assert "replayed over the full traces" in render(replayed)
    json.dumps(replayed.to_dict(), allow_nan=False)


def test_it_goes_on_where_it_stopped(llm: LLM, result: EvalResult, tmp_path: Path) -> None:
    class Stop:
        """Ctrl-C after the fourth result."""

        def __call__(self, progress: Progress) -> None:
            if progress.done == 4:
                raise KeyboardInterrupt

    half = evaluate(llm, ITEMS, CONFIG, output=tmp_path, progress=Stop())
    assert half.interrupted and len(half.records) == 4
    assert "The same command goes on" in render(half)
    with (tmp_path / "items.jsonl").open("ab") as file:
        file.write(b'{"key": "cut of')  # a crash in the middle of a line
    seen: list[Progress] = []
    rest = evaluate(llm, ITEMS, CONFIG, output=tmp_path, progress=seen.append)
    assert [p.done for p in seen] == list(range(5, 13))
    assert rest.records.keys() == result.records.keys()
    for key, record in rest.records.items():
        assert same(record, result.records[key])
    assert len((tmp_path / "items.jsonl").read_text().splitlines()) == 12
    with pytest.raises(ConfigError, match=r"seed .*another output folder"):
        evaluate(llm, ITEMS, EvalConfig(seed=1, deepconf=CONFIG.deepconf), output=tmp_path)


def test_a_damaged_line_is_named(folder: Path, result: EvalResult, tmp_path: Path) -> None:
    lines = (folder / "items.jsonl").read_text().splitlines()
    (tmp_path / "run.json").write_text((folder / "run.json").read_text())
    (tmp_path / "items.jsonl").write_text("\n".join([lines[0], "{}", lines[1]]) + "\n")
    with pytest.raises(ConfigError, match="line 2 of"):
        EvalResult.load(tmp_path)
    with pytest.raises(ConfigError, match=r"no run\.json"):
        EvalResult.load(tmp_path / "absent")


def test_the_report(folder: Path, result: EvalResult) -> None:
    pytest.importorskip("matplotlib")
    paths = write_report(result, folder)
    assert [path.name for path in paths] == ["results.json", "report.html", "report.png"]
    page = paths[1].read_text()
    assert "falcon-h1r eval --tasks own" in page and "<svg" in page and "sums@1" in page
    assert not any(word in page for word in ('src="http', "<script", "@import"))
    rows = json.loads(paths[0].read_text())["rows"]
    assert [row["task"] for row in rows] == ["sums", "booleans", "all"]
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_the_card(result: EvalResult, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("# Model\n")
    with pytest.raises(ConfigError, match="no place for the table"):
        write_card(card, result)
    start, end = "<!-- evaluation -->", "<!-- /evaluation -->"
    card.write_text(f"# Model\n{start}\nold\n{end}\nend\n")
    check_card(card, EVALUATION)
    with pytest.raises(ConfigError, match="<!-- calibration -->"):
        write_section(card, "calibration", "text")
    for _ in range(2):
        write_card(card, result)
    text = card.read_text()
    assert text.startswith(f"# Model\n{start}\n") and text.endswith(f"\n{end}\nend\n")
    assert "| task | problems | greedy | pass@1 |" in text and "| sums@1 | 2 |" in text
    assert "Printed by `falcon-h1r eval --tasks own`" in text and "old" not in text


def test_levels_of_a_group_have_rows() -> None:
    items = [ItemId(f"{t}{n}", f"g/{t}", n) for t in "ab" for n in (2, 1)] + [ItemId("c", "c", 1)]
    records: dict[tuple[str, Run], RunRecord] = {
        (item.key, "greedy"): RunRecord(
            **item._asdict(),
            run="greedy",
            answer="1",
            is_right=item.level == 1,
            num_prompt_tokens=1,
        )
        for item in items
    }
    result = EvalResult(items=items, records=records, modes=("greedy",), header={})
    rows = [*result.group_rows(), result.total()]
    assert [(row.name, row.num_problems) for row in rows] == [
        ("g@1", 2), ("g@2", 2), ("g", 4), ("all", 5),
    ]  # fmt: skip
    assert [row.accuracy["greedy"].value for row in rows] == [1.0, 0.0, 0.5, 0.6]


def test_results_are_read_back(folder: Path, result: EvalResult) -> None:
    loaded = EvalResult.load(folder)
    assert loaded.records == result.records and loaded.modes == result.modes
    assert {row.name: row.accuracy for row in loaded.rows()} == {
        row.name: row.accuracy for row in result.rows()
    }


def test_runs_side_by_side(folder: Path, result: EvalResult, tmp_path: Path) -> None:
    head, rows = compare_table([result, EvalResult.load(folder)], ["one", "two"])
    assert [row[:2] for row in rows][::5] == [["one", "greedy"], ["two", "greedy"]]
    assert rows[5][head.index("against the first")].startswith("+0.0 (")
    pytest.importorskip("matplotlib")
    page, picture = write_comparison([result, result], ["one", "two"], tmp_path)
    assert "falcon-h1r eval --tasks own" in page.read_text() and "<svg" in page.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_model_without_deepconf_or_figures(llm: LLM) -> None:
    result = evaluate(llm, ITEMS[:1], EvalConfig(modes=("greedy",)))
    assert result.runs == ("greedy",) and result.total().saved is None
    assert "DeepConf was not run" in render(result)


@pytest.mark.parametrize(
    "changes",
    [
        {"modes": ()},
        {"modes": ("best",)},
        {"modes": ("pass@0",)},
        {"modes": ("pass@64",)},
        {"modes": ("pass@x",)},
        {"deepconf": DeepConf(mode="offline")},
        {"replay": True, "modes": ("greedy", "deepconf")},
        {"temperature": -1.0},
        {"max_tokens": 0},
    ],
    ids=str,
)
def test_refused(changes: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        EvalConfig(**changes)  # type: ignore[arg-type]


def test_nothing_to_evaluate_on(llm: LLM) -> None:
    with pytest.raises(RequestError, match="no item"):
        evaluate(llm, [])
