"""Every generated chain is right by execution, and nothing of the evaluation reaches training."""

from random import Random

import pytest

from falcon_h1r.train.tasks import EVALUATED, FAMILIES, held_out_problems, is_held_out, may_train
from falcon_h1r.train.tasks.base import Problem, is_held_out_key
from falcon_h1r.train.tasks.booleans import shrink
from falcon_h1r.train.tasks.products import product_key
from falcon_h1r.train.tasks.steps import add_terms, check_steps, multiply, reverse, signed, value


def draws(family: str, level: int, count: int) -> list[Problem]:
    generate = FAMILIES[family].generate
    return [generate(Random(f"test {family} {level} {i}"), level) for i in range(count)]


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_problem_is_verified_by_execution(family: str, level: int) -> None:
    verify = FAMILIES[family].verify
    wrong = [p for p in draws(family, level, 600) if not verify(p)]
    assert not wrong, wrong[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_verifier_notices_a_wrong_answer(family: str) -> None:
    swap = {"True": "False", "False": "True", "Yes": "No", "No": "Yes"}
    for p in draws(family, 2, 50):
        answer = swap.get(p.answer, p.answer + "0" if p.answer != "0" else "1")
        spoilt = Problem(
            problem=p.problem, thought=p.thought, answer=answer, family=p.family, level=2,
            keys=p.keys,
        )  # fmt: skip
        assert not FAMILIES[family].verify(spoilt)


@pytest.mark.parametrize(
    ("line", "holds"),
    [("p71+52=p24", True), ("p71+52=p25", False), ("7*6=024", True), ("7*6=025", False),
     ("p71+52=n24", False), ("p71+n52=p24", False), ("+53:p71+52=p24", False),
     ("-52:p71+52=p24", False), ("-52:n71+52=n24", True), ("p21-n64=p43", False),
     ("p21-n21=p0", True), ("n21-p21=n0", False), ("p41-7=p7", False),
     ("-7:p41-7=p7", True), ("+p1+1=2", False),
     ("66=9p021", False), ("71+52=240", False), ("710+52=24", False), ("7*6=0240", False),
     ("7*0=0", True), ("7*0=00", False), ("-9*+5=+54", False), ("-9*5=-54", False),
     ("n51/p3=n5", True), ("n51/n3=n5", False), ("3/0=0", False), ("5/2=2", False),
     ("6 right:E0+5=E5", False), ("6 right:0+6=6", False), ("1+1=" + "2" * 5000, False),
     
     ("n64-p21=n43", True), ("51/3=5", True), ("51/3=6", False), ("9*5=54", True),
     ("+52:p71+52=p24", True), ("+52:p71+52=p34", False), ("-9*+5=-54", True), ("-9*+5=-55", False),
     ("6 right:E0+6=E6", True), ("6 right:E0+6=E7", False)],
)  # fmt: skip
def test_a_step_is_read_with_its_digits_reversed(line: str, holds: bool) -> None:
    assert check_steps(line) is holds


def test_written_arithmetic_equals_python() -> None:
    rng = Random(5)
    for _ in range(2000):
        terms = [rng.randint(-999, 999) for _ in range(rng.randint(1, 6))]
        lines: list[str] = []
        assert value(add_terms(lines, [signed(t) for t in terms])) == sum(terms)
        a, b = rng.randint(0, 9999), rng.randint(0, 999)
        assert multiply(lines, a, b) == a * b
        assert lines[-1].endswith(reverse(a * b))
        assert check_steps("\n".join(lines))


def test_shrink_keeps_precedence() -> None:
    steps = [" ".join(s) for s in shrink(["T", "or", "F", "and", "not", "(", "T", "or", "F", ")"])]
    assert steps == [
        "T or F and not ( T or F )",
        "T or F and not ( T )",
        "T or F and not T",
        "T or F and F",
        "T or F",
        "T",
    ]


@pytest.mark.parametrize("family", EVALUATED)
def test_held_out_problems_are_different_held_out_and_the_same_again(family: str) -> None:
    problems = held_out_problems(family, 20)
    assert len({p.keys[0] for p in problems}) == 20
    assert all(is_held_out(p) and not may_train(p) for p in problems)
    assert problems == held_out_problems(family, 20)


def test_hold_out_is_by_operands_whatever_the_wording() -> None:
    by_key: dict[str, set[bool]] = {}
    for p in (*draws("products", 2, 4000), *draws("sums", 1, 4000)):
        if p.keys:
            by_key.setdefault(p.keys[0], set()).add(is_held_out(p))
    assert all(len(verdicts) == 1 for verdicts in by_key.values())
    share = sum(verdicts == {True} for verdicts in by_key.values()) / len(by_key)
    assert 0.03 < share < 0.07
    assert product_key(86, 47) == product_key(47, 86)


def test_a_bracketed_product_of_held_out_operands_is_not_trained_on() -> None:
    parts = [p for p in draws("bracketed", 2, 3000) if len(p.keys) > 1]
    assert any(is_held_out_key(p.keys[1]) and not is_held_out(p) for p in parts)
    assert not any(may_train(p) for p in parts if is_held_out_key(p.keys[1]))
