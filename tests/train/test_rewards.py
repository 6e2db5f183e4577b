"""Rewards: content counts, length does not; hostile answers neither win nor block."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from falcon_h1r.train import rewards
from falcon_h1r.train.rewards import RewardRecipe, Terms, Verdicts
from falcon_h1r.train.tasks import FAMILIES


@pytest.fixture(scope="module")
def verdicts() -> Iterator[Verdicts]:
    book = Verdicts()
    book.judge.start()
    yield book
    book.close()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_reference_responses_earn_everything(family: str, verdicts: Verdicts) -> None:
    for i in range(12):
        problem = FAMILIES[family].generate(Random(f"reward {i}"), 1 + i % 3)
        text = problem.response
        answer = rewards.response_answer(text)
        assert rewards.is_right(answer, problem.answer, family, verdicts), problem
        assert rewards.is_well_formed(text, True)
        assert rewards.depth(problem.thought, 50, problem.thought, 50) == 1.0


def test_only_the_answer_after_the_thought_counts(verdicts: Verdicts) -> None:
    assert rewards.response_answer("The answer is 5.\n</think>\nThe answer is 6.") == "6"
    assert rewards.response_answer("The answer is 5.") is None
    assert not rewards.is_right(None, "5", "sums", verdicts)
    assert not rewards.is_right("05x", "5", "sums", verdicts)
    assert rewards.is_right("\\frac{1}{2}", "0.5", "math", verdicts)
    assert rewards.is_right("x+1", "1+x", "math", verdicts)
    assert not rewards.is_right("x+1", "x+2", "math", verdicts)


@pytest.mark.parametrize(
    "text, ended, good",
    [
        ("a\n</think>\nThe answer is 5.", True, True),
        ("a\n</think>\nThe answer is 5.", False, False),
        ("\n</think>\nThe answer is 5.", True, False),
        ("a\n</think>\n", True, False),
        ("a\n</think>\nb</think>\nThe answer is 5.", True, False),
        ("<think>a\n</think>\nThe answer is 5.", True, False),
        ("The answer is 5.", True, False),
    ],
)
def test_format(text: str, ended: bool, good: bool) -> None:
    assert rewards.is_well_formed(text, ended) is good


REFERENCE = "+71:p71\n+52:p71+52=p24\n-9:n9\np24-n9=p33"


def test_verified_lines() -> None:
    assert rewards.verified_lines(REFERENCE, REFERENCE) == (4, 0)
    assert rewards.verified_lines("p24-n9=p33\np24-n9=p33", REFERENCE) == (1, 0)
    assert rewards.verified_lines("1+1=2\n1+1=3\nso what", REFERENCE) == (1, 1)
    assert rewards.verified_lines("", REFERENCE) == (0, 0)
    assert rewards.verified_lines("cats:1+1=2\ndogs:1+1=2\n1+1=2", REFERENCE) == (1, 0)
    assert rewards.verified_lines("66=9p021\np71+52=n24\n1+1=02", REFERENCE) == (0, 3)


def test_a_thought_of_endless_digits_is_a_broken_step() -> None:
    """Python refuses to read more than 4,300 digits; that must not end a run."""
    digits = "9" * 100_000
    for thought in (f"1+1={digits}", f"{digits}+1={digits}", f"p{digits}/{digits}=p1"):
        assert rewards.verified_lines(thought, REFERENCE) == (0, 1)
    for thought in (digits, f"{digits}x", ":" * 100_000, "a:" * 50_000 + "=", "+" * 100_000 + "="):
        began = time.monotonic()
        assert rewards.verified_lines(thought, REFERENCE) == (0, 0)
        assert time.monotonic() - began < 1.0


def test_depth_counts_content() -> None:
    whole = rewards.depth(REFERENCE, 40, REFERENCE, 40)
    assert whole == 1.0
    half = rewards.depth("+71:p71\n+52:p71+52=p24", 20, REFERENCE, 40)
    assert half == pytest.approx(0.5)
    repeated = rewards.depth("\n".join([REFERENCE] * 5), 200, REFERENCE, 40)
    assert repeated == pytest.approx(0.2)
    padded = rewards.depth(REFERENCE + "\nhm" * 40, 80, REFERENCE, 40)
    assert padded == pytest.approx(0.5)
    broken = rewards.depth(REFERENCE.replace("p24-n9=p33", "p24-n9=p34"), 40, REFERENCE, 40)
    assert broken == pytest.approx((2 / 4) * (2 / 4))
    assert rewards.depth("", 5, REFERENCE, 40) == 0.0
    assert rewards.depth("so\nlong\ntalk", 400, REFERENCE, 40) == 0.0


def test_brevity_acts_only_where_the_group_is_right() -> None:
    assert rewards.brevity([10, 30], [True, False], 1.0) == [0.0, 0.0]
    assert rewards.brevity([10, 30], [True, True], 1.0) == [0.5, -0.5]
    assert rewards.brevity([10, 30, 5], [True, True, False], 0.6) == [0.5, -0.5, 0.0]
    assert rewards.brevity([10, 30], [False, False], 1.0) == [0.0, 0.0]


def test_weights_join_the_terms() -> None:
    terms = Terms(correctness=1.0, format=1.0, depth=0.5, brevity=-0.5, length=0.3)
    weights = RewardRecipe(correctness=1.0, format=0.1, depth=0.2, brevity=0.1)
    assert terms.total(weights) == pytest.approx(1.0 + 0.1 + 0.1 - 0.05)


def test_verdicts_are_kept(tmp_path: Path) -> None:
    """A resumed run sees what the first one saw, also when the judge would now say otherwise."""
    path = tmp_path / "verdicts.jsonl"
    first = Verdicts(path)
    assert first.equal("x+1", "1+x")
    assert not first.equal("x+1", "x+2")
    assert first.equal("0.5", "1/2")  # decided without the judge: not worth a line
    first.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        ["x+1", "1+x", True],
        ["x+1", "x+2", False],
    ]
    path.write_text(json.dumps(["x+1", "1+x", False]) + '\n["x+1", "x')
    second = Verdicts(path)
    assert not second.equal("x+1", "1+x")
    assert not second.equal("x+1", "x+2")
    second.close()


def hostile_answers(count: int, part: int = 0) -> list[str]:
    """Answers that would hang, fill the memory of, or crash a grader that trusts its input."""
    rng = Random(f"hostile {part}")
    letters = "abcxyzn"

    def number() -> str:
        return str(rng.randrange(2, 10 ** rng.randint(1, 4)))

    def make() -> str:
        kind = rng.randrange(14)
        n = rng.choice((3, 10, 50, 100, 1000, 100000))
        depth = rng.choice((2, 5, 10, 28, 60, 5000))
        letter = rng.choice(letters)
        if kind == 0:
            return "^".join("9" for _ in range(rng.randint(3, 9)))
        if kind == 1:
            return "9" * n
        if kind == 2:
            return "\\frac{1}{" * depth + number() + "}" * depth
        if kind == 3:
            return f"{number()}!!" + "!" * rng.randint(0, 8)
        if kind == 4:
            tower = f"{letter}^{{{letter}^{{{letter}}}}}"
            return f"\\int_0^{{{number()}}} {tower} e^{{{letter}^2}} d{letter}"
        if kind == 5:
            return f"\\sum_{{k=1}}^{{{'9' * rng.randint(2, 12)}}} \\frac{{1}}{{k^{number()}}}"
        if kind == 6:
            return "(" * depth + letter + ")" * depth
        if kind == 7:
            return "+".join(
                f"\\sqrt{{{rng.choice(letters)}_{{{i}}}^{i}}}" for i in range(min(n, 60))
            )
        if kind == 8:
            return f"({letter}+1)^{{{'9' * rng.randint(2, 7)}}}"
        if kind == 9:
            return "\\left[" * depth + number() + ",\\ldots"
        if kind == 10:
            return "".join(
                chr(rng.choice((0, 9, 0xD7FF, 0x202E, 0xFFFF, 0x1F600))) for _ in range(9)
            )
        if kind == 11:
            return f"\\prod_{{i=1}}^{{{number()}}} ({letter}-i)^{{i}}"
        if kind == 12:
            return "__import__('os').abort()" + number()
        return f"\\binom{{{'9' * rng.randint(3, 9)}}}{{{'4' * rng.randint(3, 8)}}}"

    return [make() for _ in range(count)]


def check_hostile(answers: list[str], verdicts: Verdicts) -> list[float]:
    """Seconds that the loop spends on each answer, sorted; none may take two."""
    expected = ("42", "x^2+1", "\\frac{3}{4}", "\\{1,2,3\\}")
    seconds = []
    for i, answer in enumerate(answers):
        text = f"{answer}\n1+1={answer}\n</think>\nThe answer is {answer}."
        began = time.monotonic()
        rewards.depth(text.partition("</think>")[0], 50, REFERENCE, 40)
        rewards.is_well_formed(text, True)
        found = rewards.response_answer(text)
        rewards.is_right(found, expected[i % len(expected)], "math", verdicts)
        seconds.append(time.monotonic() - began)
        assert seconds[-1] < 2.0, answer[:200]
    return sorted(seconds)


def test_a_judge_that_hangs_or_dies_says_no_and_serves_on(tmp_path: Path) -> None:
    """Stopped by a signal it answers nothing; the verdict is kept, the next one is judged."""
    book = Verdicts(tmp_path / "verdicts.jsonl")
    book.judge.start()
    worker = book.judge._worker
    assert worker is not None
    os.killpg(worker.pid, signal.SIGSTOP)
    began = time.monotonic()
    assert not book.equal("x+1", "1+x")
    assert time.monotonic() - began < 2.0
    assert book.equal("y+1", "1+y")
    worker = book.judge._worker
    assert worker is not None
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    assert book.equal("z+1", "1+z")
    book.close()
    assert not Verdicts(tmp_path / "verdicts.jsonl").equal("x+1", "1+x")


def test_hostile_answers_do_not_block(verdicts: Verdicts) -> None:
    check_hostile(hostile_answers(100), verdicts)


@pytest.mark.campaign
@pytest.mark.parametrize("part", range(1, 11))
def test_ten_thousand_hostile_answers_do_not_block(
    part: int, verdicts: Verdicts, record_property: Callable[[str, object], None]
) -> None:
    """A thousand a part, each part kept by itself: the campaign goes on where it stopped."""
    seconds = check_hostile(hostile_answers(1000, part), verdicts)
    record_property("answers", len(seconds))
    record_property("seconds_median", round(seconds[500], 4))
    record_property("seconds_p99", round(seconds[990], 4))
    record_property("seconds_max", round(seconds[-1], 4))
