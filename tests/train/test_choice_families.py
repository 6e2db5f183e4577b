"""Families with lettered options: lengths, unique options, and answers that do not give away."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from falcon_h1r import Tokenizer
from falcon_h1r.train.stream import TURN_END, prompt_text
from falcon_h1r.train.tasks import FAMILIES, formal_fallacies
from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.choices import LETTERS, read_options
from falcon_h1r.train.tasks.deduction_reading import read_deduction
from falcon_h1r.train.tasks.deduction_steps import join, solve
from falcon_h1r.train.tasks.formal_reading import Reader, read_argument
from falcon_h1r.train.tasks.logical_deduction import think
from falcon_h1r.train.vocabulary import build_vocabulary

CHOICE_FAMILIES = (
    "date_understanding",
    "geometric_shapes",
    "logical_deduction",
    "penguins_in_a_table",
    "reasoning_about_colored_objects",
)


def draws(family: str, level: int, count: int) -> list[Problem]:
    generate = FAMILIES[family].generate
    return [generate(Random(f"choice {family} {level} {i}"), level) for i in range(count)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("choices")
    build_vocabulary(folder, 3072)
    return Tokenizer.from_file(folder / "tokenizer.json")


FITTED = (*CHOICE_FAMILIES, "formal_fallacies")


@pytest.mark.parametrize(("level", "limit"), [(1, 600), (2, 600), (3, 900)])
@pytest.mark.parametrize("family", FITTED)
def test_prompt_and_response_fit(tokenizer: Tokenizer, family: str, level: int, limit: int) -> None:
    for problem in draws(family, level, 150):
        text = prompt_text(problem.problem) + problem.response + TURN_END
        assert len(tokenizer.encode(text)) <= limit, problem


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("family", CHOICE_FAMILIES)
def test_options_are_unique_and_hold_the_answer(family: str, level: int) -> None:
    for problem in draws(family, level, 300):
        options = read_options(problem.problem)
        assert len(set(options)) == len(options) >= 2
        assert problem.answer[0] + problem.answer[2] == "()"
        assert problem.answer[1] in LETTERS[: len(options)]


@pytest.mark.parametrize("family", ["date_understanding", "logical_deduction"])
def test_every_place_among_the_options_is_as_likely(family: str) -> None:
    expected: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for problem in draws(family, 2, 3000):
        options = read_options(problem.problem)
        found[problem.answer[1]] += 1
        for letter in LETTERS[: len(options)]:
            expected[letter] += 1 / len(options)
    assert all(abs(found[k] - n) < 5 * n**0.5 for k, n in expected.items())


@pytest.mark.parametrize("family", FITTED)
def test_a_verifier_notices_one_changed_sign_of_the_thought(family: str) -> None:
    rng = Random(11)
    for problem in draws(family, 2, 200):
        thought = problem.thought
        place = rng.choice(
            [i for i, sign in enumerate(thought) if sign in f"0123456789{LETTERS}<>+"]
        )
        changed = "1" if thought[place] != "1" else "2"
        spoilt = thought[:place] + changed + thought[place + 1 :]
        try:
            noticed = not FAMILIES[family].verify(replace(problem, thought=spoilt))
        except ValueError:  # no such date
            noticed = True
        assert noticed, spoilt


def test_no_order_is_only_of_the_benchmarks_things() -> None:
    for problem in draws("logical_deduction", 1, 2000):
        nouns = read_deduction(problem.problem).nouns
        plain = ("black", "blue", "brown", "gray", "green", "orange", "purple", "red", "white",
                 "yellow")  # fmt: skip
        assert not all(len(n) == 3 or n.removesuffix(" book") in plain for n in nouns)


def test_a_deduction_that_stops_short_is_told() -> None:
    assert solve([(0, "<", 1)], 3) is None
    assert solve([(0, "<", 1), (1, "<", 2)], 3) == [((0, 1, 2), 0, 0)]


def test_the_chain_of_a_deduction_joins_pairs_and_places_them() -> None:
    text = (
        "In a race, there were five runners: Ola, Pim, Quo, Ras, and Tum. Quo finished above Ras. "
        "Pim finished above Quo. Ola finished last. Tum finished below Pim. Tum finished above "
        "Quo.\nOptions:\n"
    ) + "\n".join(
        f"({letter}) {name} finished second-to-last"
        for letter, name in zip("ABCDE", ("Ola", "Pim", "Quo", "Ras", "Tum"), strict=True)
    )
    assert think(read_deduction(text)).split("\n") == [
        "- Quo=C finished above Ras=D:<aC<D",
        "- Pim=B finished above Quo=C:<bB<C",
        "- Ola=A finished last:1 of 5=5,A5A",
        "- Tum=E finished below Pim=B:>cB<E",
        "- Tum=E finished above Quo=C:<dE<C",
        "aC<D:C<D",
        "bB<C:B<C<D",
        "cB<E:B<C<D,B<E",
        "dE<C:B<C<D,B<E,E<C",
        "1_2_3_4_5A",
        "B<C<D:1234?",
        "B<E:1234?",
        "E<C:1234?",
        "B<E<C<D:1234:1B2E3C4D5A",
        "(A) Ola finished second-to-last:2 of 5=4",
        "4D",
    ]


@pytest.mark.parametrize(
    ("pair", "chains"),
    [
        ("B<C", ["A<B<C<D"]),
        ("B<4", ["A<B<4", "C<D"]),
        ("E<A", ["E<A<B", "C<D"]),
        ("D<A", ["C<D<A<B"]),
        ("A<D", ["A<B", "C<D", "A<D"]),
        ("A<B", ["A<B", "C<D"]),
        ("2<4", ["A<B", "C<D"]),
    ],
)
def test_a_pair_joins_the_chains_it_touches(pair: str, chains: list[str]) -> None:
    low, high = pair.split("<")
    assert ["<".join(c) for c in join([("A", "B"), ("C", "D")], low, high)] == chains


def test_half_of_the_arguments_are_valid() -> None:
    answers = Counter(p.answer for p in draws("formal_fallacies", 2, 1000))
    assert set(answers) == {"valid", "invalid"}
    assert 400 < answers["valid"] < 600


@pytest.mark.parametrize(
    ("said", "clauses"),
    [
        ("every uncle of Ola is a friend of Pim or not a fan of Quo", ["-A+B-C"]),
        ("being an uncle of Ola is necessary for not being a friend of Pim", ["+A+B"]),
        ("nobody is neither an uncle of Ola nor a friend of Pim", ["+A+B"]),
        ("no uncle of Ola who is a friend of Pim is a fan of Quo", ["-A-B-C"]),
        ("whoever is none of this: an uncle of Ola or friend of Pim, is a fan of Quo", ["+A+B+C"]),
        ("everyone who is an uncle of Ola is neither a friend of Pim nor a fan of Quo, too",
         ["-A-B", "-A-C"]),
        ("not every uncle of Ola is a friend of Pim", ["+A", "-B"]),
        ("it is not the case that Ras is an uncle of Ola", ["-A"]),
        ("to be an uncle of Ola or a friend of Pim is necessary for being a fan of Quo",
         ["+A+B-C"]),
    ],
)  # fmt: skip
def test_statements_are_read_as_disjunctions(said: str, clauses: list[str]) -> None:
    statement = Reader().statement(said)
    found = [
        "".join(("-+"[positive]) + LETTERS[i] for i, positive in clause)
        for clause in statement.clauses()
    ]
    assert found == clauses


def test_a_chain_of_reasoning_ends_in_a_contradiction_or_stays_open() -> None:
    premises = "First, every uncle of Ola is a fan of Pim. Second, no fan of Pim is a son of Quo."
    tail = '"\nIs the argument, given the explicitly stated premises, deductively valid or invalid?'
    said = f"{premises} Hence, no uncle of Ola is a son of Quo."
    text = f'"Here comes a perfectly valid argument: {said}'
    reader, stated, conclusion = read_argument(text + tail)
    chain = formal_fallacies.think(reader.sentences, reader.predicates, [*stated, conclusion])
    assert chain == [
        "- First, every uncle of Ola=A is a fan of Pim=B:a-A+B",
        "- Second, no fan of Pim=B is a son of Quo=C:b-B-C",
        "- Hence, no uncle of Ola=A is a son of Quo=C:-A-C",
        "but:A1,C1", "A1C1", "a-A1+B_:A1C1B1", "a-A1+B1", "b-B1-C1:!",
    ]  # fmt: skip
    turned = text.replace("no uncle of Ola is a son", "every uncle of Ola is a son") + tail
    assert formal_fallacies.solve(text + tail) == "valid"
    assert formal_fallacies.solve(turned) == "invalid"
