"""Answers in every format of BIG-Bench-Hard, with choices, units and near misses."""

import pytest

from falcon_h1r.evaluate.grading import is_right
from falcon_h1r.evaluate.items import Item
from falcon_h1r.thinking.answers import extract

# A target of every format, and an answer that is wrong though near.
TARGETS = [
    ("boolean_expressions", "False", "True"),
    ("date_understanding", "(B)", "(A)"),
    ("dyck_languages", "] ) >", "] >"),
    ("dyck_languages", "}", "]"),
    ("formal_fallacies", "valid", "invalid"),
    ("geometric_shapes", "(K)", "(J)"),
    ("hyperbaton", "(A)", "(B)"),
    ("logical_deduction_five_objects", "(E)", "(D)"),
    ("logical_deduction_seven_objects", "(G)", "(F)"),
    ("logical_deduction_three_objects", "(C)", "(A)"),
    ("multistep_arithmetic_two", "-11520", "11520"),
    ("navigate", "No", "Yes"),
    ("object_counting", "14", "15"),
    ("penguins_in_a_table", "(D)", "(C)"),
    ("reasoning_about_colored_objects", "(Q)", "(O)"),
    ("temporal_sequences", "(C)", "(B)"),
    ("tracking_shuffled_objects_five_objects", "(B)", "(E)"),
    ("tracking_shuffled_objects_seven_objects", "(A)", "(G)"),
    ("tracking_shuffled_objects_three_objects", "(B)", "(C)"),
    ("web_of_lies", "Yes", "No"),
    ("word_sorting", "alder at&t birch 4th yew", "at&t alder birch 4th yew"),
    ("word_sorting", "fig plum", "plum fig"),
]
WORDINGS = [
    "1 + 1 = 2\n</think>\nThe answer is {}.",
    "so\nThe answer is {}",
    "thus\n</think>\n{}",
    "The answer is **{}**.",
    "Answer: {}",
    "</think>\n\\boxed{{{}}}",
    "so $\\boxed{{{}}}$.",
]


@pytest.mark.parametrize(("task", "target", "other"), TARGETS)
@pytest.mark.parametrize("wording", WORDINGS, ids=range(len(WORDINGS)))
def test_every_format(task: str, target: str, other: str, wording: str) -> None:
    item = Item(problem="?", answer=target, task=f"bbh/{task}")
    assert is_right(extract(wording.format(target)), item)
    assert not is_right(extract(wording.format(other)), item)


CHOICES = ("12/25/1937", "a red kite", "5", "A Red Kite")


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("A", "(A)", True),
        ("12/25/1937", "(A)", True),
        ("(A) 12/25/1937", "(A)", True),
        ("12/25/1938", "(A)", False),
        ("a red kite", "(B)", False),  # two choices say so
        ("5", "(C)", True),
        ("C", "(C)", True),
        ("5", "(A)", False),
        (None, "(A)", False),
    ],
)
def test_choices(answer: str | None, target: str, right: bool) -> None:
    item = Item(problem="?", answer=target, task="arc_easy", choices=CHOICES)
    assert is_right(answer, item) is right


COLOURS = ("red", "green", "blue")
LETTERED = [
    (r"\boxed{B. green}", True),
    (r"\boxed{B: green}", True),
    (r"\boxed{B) green}", True),
    (r"\boxed{\text{B. green}}", True),
    (r"\boxed{(B): Green}", True),
    (r"\boxed{[B] green}", True),
    (r"\boxed{(b) green}", True),
    (r"\boxed{b. GREEN.}", True),
    (r"\boxed{b}", True),
    (r"\boxed{[b]}", True),
    (r"\boxed{B.}", True),
    (r"\boxed{B:}", True),
    ("The answer is (b)", True),
    ("The answer is B. green", True),
    ("The answer is b. green", True),
    ("The answer is B: green", True),
    ("Answer: B - green", True),
    ("so\nB. green", True),
    (r"\boxed{B. red}", False),
    (r"\boxed{B: blue}", False),
    (r"\boxed{B - 0}", False),
    (r"\boxed{A. green}", False),
    (r"\boxed{C: green}", False),
    (r"\boxed{a}", False),
    (r"\boxed{A. red}", False),
    (r"\boxed{B green red}", False),
    (r"\boxed{B. green or A. red}", False),
    (r"\boxed{red}", False),
]


@pytest.mark.parametrize(("text", "right"), LETTERED)
def test_a_letter_before_its_choice(text: str, right: bool) -> None:
    item = Item(problem="?", answer="(B)", task="arc_easy", choices=COLOURS)
    assert is_right(extract(text), item) is right


@pytest.mark.parametrize(
    ("answer", "choices", "right"),
    [
        ("b", ("b", "a"), False),  # the text of the first choice
        ("b", ("a", "b"), True),
        ("a - b", ("b - a", "a - b"), True),
        ("b - a", ("b - a", "a"), False),
        ("B: $5$", ("4", "5.0"), True),
        ("B. a", ("A", "A"), True),
    ],
)
def test_a_letter_that_may_be_a_text(answer: str, choices: tuple[str, ...], right: bool) -> None:
    item = Item(problem="?", answer="(B)", task="arc_easy", choices=choices)
    assert is_right(answer, item) is right


def test_without_choices_a_letter_is_itself() -> None:
    item = Item(problem="?", answer="B", task="own")
    assert not any(is_right(answer, item) for answer in ("b", "B: green"))


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("72 clips", "72", True),
        ("18 dollars a day", "18", True),
        ("25%", "25", True),
        (r"25\%", "25", True),
        ("1,203", "1203", True),
        ("5x", "5", False),
        ("72 clips", "73", False),
        ("7 and 2", "7", False),
        ("10%", "0.1", True),
        ("3 million", "3", False),
        ("7 and a half", "7", False),
        ("2 dozen", "2", False),
        ("25", r"25\%", True),
        ("26", r"25\%", False),
    ],
)
def test_numbers_with_units(answer: str, target: str, right: bool) -> None:
    assert is_right(extract(answer), Item(problem="?", answer=target, task="gsm8k")) is right
