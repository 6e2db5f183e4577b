"""What every family promises: bounded lengths, checked steps, nothing of the evaluation drawn."""

import json
import os
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from falcon_h1r import Tokenizer
from falcon_h1r.train.stream import TURN_END, prompt_text
from falcon_h1r.train.tasks import (
    FAMILIES,
    benchmark,
    is_held_out,
    is_verified,
    may_train,
    sample_problem,
)
from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.benchmark import digest
from falcon_h1r.train.tasks.names import NAMES
from falcon_h1r.train.tasks.steps import check_steps, is_step
from falcon_h1r.train.vocabulary import build_vocabulary

BIG_BENCH_HARD = os.environ.get("FALCON_H1R_BIG_BENCH_HARD")
CHECKED_TO_THE_LETTER = (
    "dyck_languages", "hyperbaton", "object_counting", "temporal_sequences",
    "tracking_shuffled_objects", "word_sorting",
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("vocabulary")
    build_vocabulary(folder, 4096)
    return Tokenizer.from_pretrained(folder)


def draws(family: str, level: int, count: int) -> list[Problem]:
    generate = FAMILIES[family].generate
    return [generate(Random(f"property {family} {level} {i}"), level) for i in range(count)]


@pytest.mark.parametrize(("level", "longest"), [(1, 500), (2, 620), (3, 800)])
@pytest.mark.parametrize("family", FAMILIES)
def test_prompt_and_response_fit(
    tokenizer: Tokenizer, family: str, level: int, longest: int
) -> None:
    for p in draws(family, level, 150):
        text = prompt_text(p.problem) + p.response + TURN_END
        assert len(tokenizer.encode(text)) < longest, p


def test_names_letters_and_digits_are_cheap(tokenizer: Tokenizer) -> None:
    assert all(len(tokenizer.encode(" " + name)) == 1 for name in NAMES)
    assert all(len(tokenizer.encode(" " + letter)) == 1 for letter in "abcdefghijklmnopqrstuvwxyz")
    assert len(tokenizer.encode("(A)")) == 3
    assert len(tokenizer.encode("1234567890")) == 10


@pytest.mark.parametrize("family", CHECKED_TO_THE_LETTER)
def test_a_verifier_notices_one_wrong_character_of_the_thought(family: str) -> None:
    rng = Random(3)
    for p in draws(family, 2, 60):
        places = [i for i, c in enumerate(p.thought) if c.isalnum()]
        at = rng.choice(places)
        alike = "0123456789" if p.thought[at].isdigit() else "abcdefghijklmnopqrstuvwxyz"
        other = rng.choice([c for c in alike if c != p.thought[at].lower()])
        thought = p.thought[:at] + other + p.thought[at + 1 :]
        assert not FAMILIES[family].verify(replace(p, thought=thought)), thought


ARITHMETIC = (
    "bracketed", "drills", "equations", "navigate", "object_counting", "products", "sums",
)  # fmt: skip
LETTERS = "0123456789pnNSEWAB+-*/=:() \nabcdefghijklmnopqrstuvwxyz"


def mutations(thought: str, rng: Random) -> list[str]:
    """One character put in the place of another, put in, and left out; each somewhere."""
    at, letter = rng.randrange(len(thought)), rng.choice(LETTERS)
    before, after = thought[:at], thought[at + 1 :]
    changed = (before + letter + after, before + letter + thought[at:], before + after)
    return [text for text in changed if text != thought]


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("family", ARITHMETIC)
def test_any_change_of_one_character_is_refused(family: str, level: int) -> None:
    """Changes that would keep the meaning too: a thought has one form, and no other is learnt."""
    rng = Random(f"mutate {family} {level}")
    for p in draws(family, level, 100):
        for thought in mutations(p.thought, rng):
            assert not is_verified(replace(p, thought=thought)), thought


@pytest.mark.parametrize("family", ARITHMETIC)
def test_a_changed_equation_seldom_holds_by_itself(family: str) -> None:
    """What rewards see: of lines alone, at most four in a hundred changes still hold.

    Nearly all of those are another shift of a partial product, as in "7*4=82" for "7*4=082".
    """
    rng = Random(f"mutate lines of {family}")
    steps = [s for p in draws(family, 2, 200) for s in p.thought.split("\n") if is_step(s)]
    assert all(check_steps(step) for step in steps)
    if family == "object_counting":  # that the thing is the right one, its verifier alone can see
        steps = [step.partition(":")[2] for step in steps]
    changed = [text for step in steps for text in mutations(step, rng) if "\n" not in text]
    held = [text for text in changed if is_step(text) and check_steps(text)]
    assert len(held) <= 0.04 * len(changed), (len(held) / len(changed), held[:9])


@pytest.mark.parametrize("family", FAMILIES)
def test_no_line_that_a_family_writes_is_a_broken_step(family: str) -> None:
    """Rewards judge the lines of every family by the one grammar of steps."""
    for level in (1, 2, 3):
        for p in draws(family, level, 100):
            broken = [s for s in p.thought.split("\n") if is_step(s) and not check_steps(s)]
            assert not broken, broken


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sample_is_never_of_the_evaluation(family: str) -> None:
    rng = Random(family)
    levels = {1: 1.0, 2: 1.0, 3: 1.0}
    drawn = [sample_problem(rng, {family: 1.0}, levels) for _ in range(200)]
    assert all(may_train(p) for p in drawn)
    assert {p.level for p in drawn} == {1, 2, 3}


@pytest.mark.parametrize("family", FAMILIES)
def test_any_thought_can_be_judged(family: str) -> None:
    rng = Random(family)
    for p in draws(family, 2, 40):
        words = p.thought.split(" ")
        rng.shuffle(words)
        lines = p.thought.split("\n")
        cut = p.thought[: rng.randrange(len(p.thought))]
        for thought in (
            "",
            "\n\n",
            " ".join(words),
            cut,
            "\n".join(lines[1:]),
            "((" * 400,
            "- a : 3",
        ):
            is_verified(replace(p, thought=thought))
        assert is_verified(p)
        assert not is_verified(replace(p, thought=""))


def test_a_sample_follows_its_weights() -> None:
    rng = Random(1)
    weights = {"sums": 3.0, "lies": 1.0, "navigate": 0.0}
    families = [sample_problem(rng, weights, {1: 1.0}).family for _ in range(800)]
    assert 0.68 < families.count("sums") / 800 < 0.82
    assert "navigate" not in families


def test_a_known_item_is_neither_trained_on_nor_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    free = next(p for p in draws("booleans", 2, 50) if may_train(p))
    held = next(p for p in draws("booleans", 2, 200) if is_held_out(p))
    known = frozenset(digest(p.keys[0]) for p in (free, held))
    monkeypatch.setattr(benchmark, "DIGESTS", known)
    assert not may_train(free)
    assert not is_held_out(held)


@pytest.mark.skipif(BIG_BENCH_HARD is None, reason="FALCON_H1R_BIG_BENCH_HARD names no folder")
def test_no_item_of_the_benchmark_is_trained_on() -> None:
    assert BIG_BENCH_HARD is not None
    items = set()
    for path in Path(BIG_BENCH_HARD).glob("*.json"):
        for example in json.loads(path.read_text())["examples"]:
            items.add(" ".join(example["input"].split()))
    for family in FAMILIES:
        for level in (1, 2, 3):
            trained = filter(may_train, draws(family, level, 2000))
            drawn = {" ".join(p.problem.split()) for p in trained}
            assert not drawn & items, family
