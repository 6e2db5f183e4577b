"""Every fault that the ablation puts into a set is caught by its filter, and by no other."""

import json
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from falcon_h1r.train.curate import run_curate
from falcon_h1r.train.curation.faults import COPIES, FAULTS, faulty_records, write_faults
from falcon_h1r.train.curation.recipe import CurateRecipe, FilterRecipe, SourceRecipe
from falcon_h1r.train.tasks import held_out_problems

FAMILIES = {"sums": 1.0, "navigate": 1.0, "lies": 1.0, "word_sorting": 1.0, "booleans": 1.0}
LEVELS = {1: 0.3, 2: 0.7}
COUNT = 2 * COPIES
HELD_OUT = [p for family in FAMILIES for p in held_out_problems(family, COUNT // len(FAMILIES))]
MIX: dict[str, Any] = {"families": FAMILIES, "levels": LEVELS, "held_out": HELD_OUT}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SourceRecipe]:
    folder = tmp_path_factory.mktemp("faults")
    lines = (json.dumps({"problem": p.problem}) + "\n" for p in HELD_OUT)
    (folder / "held-out.jsonl").write_text("".join(lines))
    return write_faults(folder / "sources", COUNT, seed=1, **MIX)


def kept(folder: Path, sources: dict[str, SourceRecipe], **switched: bool) -> Counter[str]:
    """Records of each source that pass."""
    path = next(Path(source.path) for source in sources.values() if source.path)
    clean = SourceRecipe(kind="generator", count=10, families=FAMILIES)
    recipe = CurateRecipe(
        sources={"clean": clean, **sources},
        evaluation=[str(path.parent.parent / "held-out.jsonl")],
        filters=FilterRecipe(**switched),
    )
    report = run_curate(recipe, folder, report=lambda line: None)
    assert report is not None
    return Counter({name: n["available"] for name, n in report["mix"]["source"].items()})


@pytest.fixture(scope="module")
def with_all(
    sources: dict[str, SourceRecipe], tmp_path_factory: pytest.TempPathFactory
) -> Counter[str]:
    return kept(tmp_path_factory.mktemp("all") / "set", sources)


def test_all_filters_leave_the_clean_and_one_of_each_repeated(with_all: Counter[str]) -> None:
    originals = COUNT // COPIES
    assert +with_all == {
        "clean": 10, "exact_duplicates": originals, "near_duplicates": originals,
    }  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_passes_without_its_filter_and_nothing_else_does(
    fault: str, sources: dict[str, SourceRecipe], with_all: Counter[str], tmp_path: Path
) -> None:
    found = kept(tmp_path / "set", sources, **{fault: False})
    assert found - with_all == {fault: COUNT - with_all[fault]}
    assert not with_all - found


def test_without_its_filter_an_empty_thought_passes_the_rollouts_too(
    sources: dict[str, SourceRecipe], tmp_path: Path
) -> None:
    recipe = CurateRecipe(
        sources={"empty_thought": sources["empty_thought"]},
        filters=FilterRecipe(empty_thought=False),
    )
    report = run_curate(
        recipe,
        tmp_path / "set",
        roll=lambda problems: [[] for _ in problems],
        report=lambda line: None,
    )
    assert report is not None
    assert report["samples"] == COUNT


def test_every_filter_has_its_fault() -> None:
    switches = {f.name for f in fields(FilterRecipe) if f.type in (bool, "bool")}
    assert set(FAULTS) == switches


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_the_same_for_the_same_seed(fault: str) -> None:
    first, again, other = (faulty_records(fault, 20, seed=seed, **MIX) for seed in (1, 1, 2))
    assert first == again
    assert first != other or fault == "overlap"  # which is the evaluation, whatever the seed
