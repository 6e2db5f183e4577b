"""Augmentation: what is made can be verified by another way, and what cannot is not made."""

from random import Random

import pytest

from falcon_h1r.train.curation import formats
from falcon_h1r.train.curation.augment import augmented, compose, renumber, rephrase
from falcon_h1r.train.curation.drafts import Draft
from falcon_h1r.train.curation.filters import judge, verified_by_family
from falcon_h1r.train.curation.frames import FRAMES, unframed
from falcon_h1r.train.curation.recipe import FilterRecipe
from falcon_h1r.train.curation.rollouts import Rollout, distilled, is_consistent_error
from falcon_h1r.train.tasks import FAMILIES, may_train


def ours(family: str, seed: int = 0, level: int = 2) -> Draft:
    rng = Random(seed)
    while not may_train(p := FAMILIES[family].generate(rng, level)):
        pass
    return Draft(
        where="problem 0", problem=p.problem, thought=p.thought, answer=p.answer, family=family,
        level=level, source="s", style="generated",
    )  # fmt: skip


def school(question: str, answer: str) -> Draft:
    found = formats.gsm8k({"question": question, "answer": answer}, "line 1", "s", "gsm8k", "gsm8k")
    assert isinstance(found, Draft)
    return found


PENS = school(
    "A box holds 12 pens and a shop has 31 boxes. It sells 90 pens. How many are left?",
    "The boxes hold 12*31=<<12*31=372>>372 pens.\n"
    "Left are 372-90=<<372-90=282>>282 pens.\n#### 282",
)


@pytest.mark.parametrize("frame", FRAMES)
def test_every_frame_comes_off(frame: str) -> None:
    for problem in ("What is 2 + 3?", "A\nB", "Think. Show your work"):
        assert unframed(frame.format(problem)) == problem
        assert unframed(problem) == problem


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_our_problems_rephrased_and_renumbered_still_verify(family: str) -> None:
    for seed in range(8):
        made = ours(family, seed)
        asked = rephrase(made, Random(seed))
        assert asked is not None
        assert asked.problem != made.problem
        assert asked == made.but(where=asked.where, problem=asked.problem, style="rephrased")
        assert isinstance(judge(asked, FilterRecipe()), Draft)
        assert rephrase(asked, Random(seed)) is None
        other = renumber(made, Random(seed))
        assert other is not None
        assert (other.family, other.level, other.style) == (family, 2, "renumbered")
        assert verified_by_family(other)


def test_school_problems_get_other_numbers() -> None:
    seen = set()
    for seed in range(60):
        other = renumber(PENS, Random(seed))
        if other is None:
            continue
        seen.add(other.problem)
        checked = judge(other, FilterRecipe())
        assert isinstance(checked, Draft)
        assert checked.checked_by == "reference"
        (first, product), (second, rest) = other.steps
        boxes, sold = first.split("*")[1], second.split("-")[1]
        assert f"has {boxes} boxes. It sells {sold} pens" in other.problem
        assert int(product) == int(first.split("*")[0]) * int(boxes)
        assert int(rest) == int(product) - int(sold) == int(other.answer)
        assert f"={product} pens.\nLeft are {product}-{sold}={rest} pens." in other.thought
    assert len(seen) > 20


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        # the 3 is also "thrice"
        ("He made 3-point shots 7 times, and 5-point shots thrice. How many points?",
         "3*7=<<3*7=21>>21\n5*3=<<5*3=15>>15\n21+15=<<21+15=36>>36\n#### 36"),
        # the only number that stands in a mark stands twice in the problem
        ("4 boys have 4 apples each. How many?", "4*4=<<4*4=16>>16\n#### 16"),
        # no marks
        ("A boy has 9 apples. How many are 9 and 8?", "It is 17.\n#### 17"),
        # the answer would not stay whole for any change, since 97 is prime
        ("97 is shared by 97 men. How much is it?", "97/97=<<97/97=1>>1\n#### 1"),
    ],
)  # fmt: skip
def test_numbers_of_two_meanings_stay(question: str, answer: str) -> None:
    draft = school(question, answer)
    for seed in range(40):
        other = renumber(draft, Random(seed))
        if other is not None:
            assert "thrice" in question
            assert other.problem.startswith("He made 3-point")
            assert "5-point shots thrice" not in other.problem or "7 times" not in other.problem


@pytest.mark.parametrize("family", ["sums", "products", "equations", "bracketed"])
def test_two_of_ours_are_joined(family: str) -> None:
    for seed in range(20):
        first, second = ours(family, seed), ours("sums", seed + 100)
        made = compose(first, second, Random(seed))
        assert made is not None
        sign = -1 if made.problem.endswith("What is A - B?") else 1
        assert int(made.answer) == int(first.answer) + sign * int(second.answer)
        assert first.problem in made.problem
        assert made.thought.startswith(first.thought)
        assert (made.family, made.level) == ("composed", 3)
        wrong = first.but(answer=str(int(first.answer) + 1))
        assert compose(wrong, second, Random(seed)) is None


def test_two_of_others_are_joined() -> None:
    made = compose(PENS, PENS, Random(1))
    assert made is not None
    assert made.thought.endswith((" = 282 + 282 = 564", " = 282 - 282 = 0"))
    assert isinstance(judge(made, FilterRecipe()), Draft)


def test_proposals_are_the_same_for_the_same_seed() -> None:
    drafts = [ours(family) for family in FAMILIES] + [PENS]
    shares = {"rephrase": 0.5, "renumber": 0.5, "compose": 1.0}
    first, again, other = (list(augmented(drafts, shares, seed)) for seed in ("1", "1", "2"))
    assert first == again != other
    assert len(first) == 2 * round(0.5 * len(drafts)) + len(drafts)
    assert all(made is not None for name, made in first if name == "compose")
    assert list(augmented([ours("lies")], {"compose": 2.0}, "1")) == [("compose", None)] * 2


def test_distilled_thoughts_are_right_different_and_verified() -> None:
    sums = ours("sums")
    wrong_step = sums.thought.replace("=p", "=p7", 1)
    rollouts = [
        Rollout(sums.thought, sums.answer, True),
        Rollout(wrong_step, sums.answer, True),
        Rollout("anything", "1", True),
        Rollout("", sums.answer, True),
    ]
    assert distilled(sums, rollouts, 4) == []
    rollouts = [
        Rollout("so 282", "282", True),
        Rollout("so  282", "282", True),
        Rollout("it is 282.0", "282.0", True),
        Rollout("cut", "282", False),
        Rollout("no", "7", True),
    ]
    found = distilled(PENS, rollouts, 4)
    assert [made.thought for made in found] == ["so 282", "it is 282.0"]
    assert {(made.style, made.answer) for made in found} == {("distilled", "282")}
    assert len(distilled(PENS, rollouts, 1)) == 1


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        (["1", "1.0", "1", "1", "2", "3", "4", "5"], True),
        (["1", "1", "1", "2", "3", "4", "5", "6"], False),
        ([None] * 8, False),
        (["1"], False),
    ],
)
def test_consistent_errors(answers: list[str | None], verdict: bool) -> None:
    rollouts = [Rollout("t", answer, True) for answer in answers]
    assert is_consistent_error(rollouts, 0.5) == verdict
