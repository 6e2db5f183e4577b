"""The parts of curation, each against a plain oracle or a table."""

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_h1r.errors import ConfigError, TrainingError
from falcon_h1r.train.curation import formats
from falcon_h1r.train.curation.dedup import Duplicates, MinHashIndex, shingles
from falcon_h1r.train.curation.drafts import Broken, Draft
from falcon_h1r.train.curation.filters import calculate, is_looping, judge
from falcon_h1r.train.curation.mix import AXES, Cell, Selector, by_axis, plan
from falcon_h1r.train.curation.overlap import EvaluationSets, Grams, words_of
from falcon_h1r.train.curation.recipe import (
    CurateRecipe,
    DifficultyRecipe,
    FilterRecipe,
    MixRecipe,
    SourceRecipe,
)
from falcon_h1r.train.tasks import FAMILIES


def draft(**changes: object) -> Draft:
    plain = Draft(
        where="line 1", problem="Ann has 3 apples and buys 4. How many?", thought="3 + 4 = 7",
        answer="7", family="word", level=0, source="s", style="cot",
    )  # fmt: skip
    return plain.but(**changes)


def generated(family: str, seed: int = 0, level: int = 2) -> Draft:
    p = FAMILIES[family].generate(Random(seed), level)
    return draft(problem=p.problem, thought=p.thought, answer=p.answer, family=family, level=level)


# Formats


def chain(row: object) -> Draft | Broken:
    return formats.chain(row, "line 1", "s", "f", "cot", {})


@pytest.mark.parametrize(
    ("row", "thought", "answer", "final"),
    [
        ({"problem": "p", "thought": "t", "answer": "7"}, "t", "7", None),
        ({"question": "p", "reasoning": "t", "final_answer": 7}, "t", "7", None),
        ({"prompt": "p", "response": "<think>t</think>The answer is 7."}, "t", "7", "7"),
        ({"prompt": "p", "response": "t</think>\\boxed{7}", "answer": "8"}, "t", "8", "7"),
        ({"problem": "p", "solution": "t1\nt2\nThe answer is 7."}, "t1\nt2", "7", "7"),
        ({"messages": [{"role": "user", "content": "p"},
                       {"role": "assistant", "content": "t\n#### 7"}]}, "t", "7", "7"),
        ({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "p"},
                       {"role": "assistant", "content": "The answer is 7.",
                        "reasoning_content": "t"}]}, "t", "7", "7"),
    ],
)  # fmt: skip
def test_chains_are_read(row: object, thought: str, answer: str, final: str | None) -> None:
    found = chain(row)
    assert isinstance(found, Draft)
    assert (found.problem, found.thought) == ("p", thought)
    assert (found.answer, found.final) == (answer, final)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([1], "broken line"),
        ({"answer": "7"}, "broken line"),
        ({"problem": "  ", "answer": "7"}, "broken line"),
        ({"problem": "p", "thought": "t"}, "no answer"),
        ({"problem": "p", "thought": "t", "answer": ""}, "no answer"),
        (
            {
                "messages": [
                    {"role": "user", "content": "p"},
                    {"role": "assistant", "content": "7"},
                    {"role": "user", "content": "q"},
                ]
            },
            "broken line",
        ),
    ],
)
def test_broken_records_say_why(row: object, reason: str) -> None:
    found = chain(row)
    assert isinstance(found, Broken)
    assert found.reason == reason


def test_an_instruction_keeps_its_input() -> None:
    row = {"instruction": "Solve.", "input": "2x = 6", "output": "x = 3\nThe answer is 3."}
    found = chain(row)
    assert isinstance(found, Draft)
    assert found.problem == "Solve.\n2x = 6"
    assert not found.has_reference
    passed = judge(found, FilterRecipe())
    assert isinstance(passed, Draft)
    assert passed.checked_by == "nothing"  # its own answer is no reference
    empty = chain(row | {"input": ""})
    assert isinstance(empty, Draft)
    assert empty.problem == "Solve."


def test_names_that_no_file_can_hold_are_replaced() -> None:
    found = chain({"problem": "p", "thought": "t", "answer": "7", "family": "\ud83d"})
    assert isinstance(found, Draft)
    assert found.family == "f"


def test_a_chain_cut_in_its_thought_is_known_as_such() -> None:
    for row in (
        {"problem": "p", "response": "<think>half a thou", "answer": "7"},
        {"problem": "p", "response": "<think>half a thou"},
        {"problem": "p", "thought": "t", "answer": "7", "finish_reason": "length"},
    ):
        found = chain(row)
        assert isinstance(found, Draft)
        assert judge(found, FilterRecipe()) == "truncated"


def test_gsm8k_is_read() -> None:
    row = {
        "question": "A box holds 12 pens. How many do 4 boxes hold, less 8?",
        "answer": "4 boxes hold 4*12=<<4*12=48>>48 pens.\nThat is 48-8=<<48-8=40>>40.\n#### 40",
    }
    found = formats.gsm8k(row, "line 1", "s", "gsm8k", "gsm8k")
    assert isinstance(found, Draft)
    assert found.thought == "4 boxes hold 4*12=48 pens.\nThat is 48-8=40."
    assert (found.answer, found.final, found.level) == ("40", "40", 1)
    assert found.steps == (("4*12", "48"), ("48-8", "40"))
    assert isinstance(judge(found, FilterRecipe()), Draft)
    wrong = formats.gsm8k(row | {"answer": row["answer"][:-2] + "41"}, "", "s", "", "")
    assert isinstance(wrong, Draft)
    assert judge(wrong, FilterRecipe()) == "wrong answer"
    assert isinstance(formats.gsm8k(row | {"answer": "40"}, "", "s", "", ""), Broken)
    assert chain(row) == found.but(family="f", style="cot")


def test_math_is_read() -> None:
    row = {
        "problem": "Halve 3.", "level": "Level 4", "type": "Counting & Probability",
        "solution": "It is $\\frac{3}{2}=\\boxed{\\frac{3}{2}}$.",
    }  # fmt: skip
    found = formats.math(row, "a.json", "s", "math")
    assert isinstance(found, Draft)
    assert (found.answer, found.level) == ("\\frac{3}{2}", 3)
    assert found.family == "math_counting_probability"
    assert isinstance(formats.math(row | {"solution": "It is 3/2."}, "", "s", ""), Broken)
    assert chain(row) == found.but(where="line 1", style="cot")


# Filters


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"thought": "a<think>b"}, "broken format"),
        ({"problem": "a<|im_start|>b"}, "broken format"),
        ({"thought": "a\x00b"}, "broken format"),
        ({"thought": "a\ufffdb"}, "broken format"),
        ({"thought": "a\ud800b"}, "broken format"),
        ({"answer": "7\n8"}, "broken format"),
        ({"is_cut": True}, "truncated"),
        ({"thought": " "}, "empty thought"),
        ({"answer": ""}, "no answer"),
        ({"final": "8"}, "wrong answer"),
        ({"judge": lambda answer: False}, "wrong answer"),
        ({"family": "sums"}, "wrong answer"),
        ({"steps": (("3+4", "8"),)}, "wrong step"),
        ({"thought": "so it goes on and on " * 8}, "looping"),
    ],
)
def test_filters_name_their_reason(changes: dict[str, object], reason: str) -> None:
    assert judge(draft(**changes), FilterRecipe()) == reason


@pytest.mark.parametrize(
    ("changes", "checked_by"),
    [
        ({}, "nothing"),
        ({"final": "7.0"}, "reference"),
        ({"answer": "\\frac{1}{2}", "final": "0.5"}, "reference"),
        ({"judge": lambda answer: answer == "7"}, "verifier"),
        ({"steps": (("10/3", "3.33"), ("07+$1,000", "1007"), ("x+1", "9"))}, "nothing"),
    ],
)
def test_filters_say_what_verified(changes: dict[str, object], checked_by: str) -> None:
    kept = judge(draft(**changes), FilterRecipe())
    assert isinstance(kept, Draft)
    assert kept.checked_by == checked_by


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_nothing_generated_is_dropped_and_damage_is_seen(family: str) -> None:
    seen = 0
    for seed in range(25):
        made = generated(family, seed, 1 + seed % 3)
        assert isinstance(judge(made, FilterRecipe()), Draft)
        seen += judge(made.but(answer=made.answer + "1"), FilterRecipe()) == "wrong answer"
    assert seen == 25


def test_every_filter_can_be_switched_off() -> None:
    off = FilterRecipe(
        broken_format=False, truncated=False, empty_thought=False, wrong_answer=False,
        wrong_step=False, looping=False,
    )  # fmt: skip
    made = draft(thought="<think>" + " no" * 90, is_cut=True, final="8", steps=(("1+1", "3"),))
    assert judge(made, off) == made


def naive_loop(words: list[str]) -> bool:
    for period in range(1, 65):
        for start in range(len(words)):
            length = period
            while (
                start + length < len(words)
                and words[start + length] == (words[start + length - period])
            ):
                length += 1
            if length >= max(4 * period, 30):
                return True
    return False


@given(
    st.lists(st.sampled_from("abc"), max_size=12),
    st.integers(1, 25),
    st.lists(st.sampled_from("abcd"), max_size=20),
)
def test_looping_equals_the_plain_search(unit: list[str], times: int, tail: list[str]) -> None:
    words = tail + unit * times + tail
    assert is_looping(" ".join(words)) == naive_loop(words)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1,000*2", 2000), ("50%*8", 4), ("2//1", 2), ("-(3+.5)", -3.5), ("9**9", None),
     ("1/0", None), ("f(2)", None), ("(" * 200, None), ("1" * 400, None)],
)  # fmt: skip
def test_calculator(text: str, value: float | None) -> None:
    assert calculate(text) == value


# Duplicates


def test_near_duplicates_agree_with_jaccard() -> None:
    rng = Random(0)
    words = [f"w{i}" for i in range(300)]
    missed = wrong = met = 0
    for _ in range(120):
        text = [rng.choice(words) for _ in range(200)]
        share = rng.choice((0.002, 0.01, 0.1))
        other = [rng.choice(words) if rng.random() < share else word for word in text]
        a, b = (set(shingles(" ".join(t))) for t in (text, other))
        jaccard = len(a & b) / len(a | b)
        index = MinHashIndex(0.8)
        index.add(" ".join(text))
        found = index.holds(" ".join(other))
        met += jaccard >= 0.95
        missed += jaccard >= 0.95 and not found
        wrong += jaccard <= 0.6 and found
    assert 20 < met < 100
    assert (missed, wrong) == (0, 0)


def test_the_index_grows() -> None:
    index = MinHashIndex(0.8)
    texts = [f"text number {i} of its own kind {i * i} and more {i + 7}" for i in range(1500)]
    for text in texts:
        index.add(text)
    assert all(index.holds(text) for text in texts[::100])
    assert not index.holds("something else altogether that nobody has ever said before")


def test_duplicates_by_kind() -> None:
    seen = Duplicates(FilterRecipe(max_solutions=2), ["s"])
    first = draft(problem="one " * 9, thought=" ".join(f"w{i}" for i in range(60))).sample()
    assert seen.reason(first) is None
    seen.add(first)
    assert seen.reason(draft(problem="ONE  " * 9, thought=first.thought).sample()) == (
        "exact duplicate"
    )
    near = draft(problem=first.problem, thought=first.thought + " end")
    assert seen.reason(near.sample()) == "near-duplicate"
    assert seen.reason(near.but(source="other").sample()) is None
    assert seen.reason(near.but(style="rephrased").sample()) is None
    seen.add(draft(problem=first.problem, thought="quite another way to see it").sample())
    third = draft(problem=first.problem, thought="a third way to do it").sample()
    assert seen.reason(third) == "solutions of one problem"


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rensa", None)
    with pytest.raises(ConfigError, match=r"rensa; pip install 'falcon-h1r\[curate\]'"):
        MinHashIndex(0.8)


# Overlap


@given(
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=30),
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=30),
    st.integers(1, 15),
)
def test_ngrams_are_equal_where_words_are(a: list[str], b: list[str], n: int) -> None:
    naive_a = [tuple(a[i : i + n]) for i in range(len(a) - n + 1)]
    naive_b = [tuple(b[i : i + n]) for i in range(len(b) - n + 1)]
    got_a, got_b = Grams(a).of(n).tolist(), Grams(b).of(n).tolist()
    assert len(got_a) == len(naive_a)
    for x, gram in zip(got_a, naive_a, strict=True):
        assert [x == y for y in got_b] == [gram == other for other in naive_b]


def evaluation(tmp_path: Path, problems: list[str]) -> EvaluationSets:
    path = tmp_path / "evaluation.jsonl"
    path.write_text("".join(json.dumps({"question": p, "answer": "1"}) + "\n" for p in problems))
    return EvaluationSets([str(path)])


def test_overlap_by_length_of_the_problem(tmp_path: Path) -> None:
    long = "a farmer has seventeen sheep and all but nine die , how many are left ?"
    middle = "what is one plus two plus three plus four"
    sets = evaluation(tmp_path, [long, middle, "2 + 2 = ?"])
    assert sets.num_problems == 3
    assert sets.shares_ngram(
        "Well: A farmer has seventeen sheep and all but nine die, how many?", ""
    )
    assert not sets.shares_ngram("A farmer has seventeen sheep and all but nine live on.", "")
    assert sets.shares_ngram("say what is one plus two plus three plus nothing", "")
    assert not sets.holds_item("say what is one plus two plus three plus nothing")
    assert sets.holds_item(f"Now, {middle}?")
    assert sets.holds_item("2 + 2 = ?")
    assert not sets.holds_item("So 2 + 2 = ? That is easy")
    assert not sets.shares_ngram("How many?", "One plus two plus three.")
    assert sets.shares_ngram("How many?", f"I remember: {long}")


def test_a_template_is_no_overlap(tmp_path: Path) -> None:
    template = "if you follow these instructions , do you return to the starting point ?"
    problems = [f"{template} take {i} steps to the left of house {i} now" for i in range(30)]
    sets = evaluation(tmp_path, problems)
    assert not sets.shares_ngram(f"{template} turn round and go home", "")
    assert sets.shares_ngram(problems[7], "")


def test_evaluation_formats(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"examples": [{"input": "x y", "target": "z"}]}))
    (tmp_path / "b.jsonl").write_text(json.dumps({"question": {"stem": "u v"}}) + "\n")
    sets = EvaluationSets([str(tmp_path)])
    assert sets.num_problems == 2
    assert sets.holds_item("X y")
    assert sets.holds_item("u v")
    with pytest.raises(ConfigError, match="there is no"):
        EvaluationSets([str(tmp_path / "none")])
    (tmp_path / "one").mkdir()
    for i in range(40):
        text = f"of all the numbers that there are in the world we take the number {i} and halve it"
        (tmp_path / f"one/{i}.json").write_text(json.dumps({"problem": text}))
    folder = EvaluationSets([str(tmp_path / "one")])
    assert folder.num_problems == 40
    assert not folder.shares_ngram(
        "Of all the numbers that there are in the world we take two.", ""
    )
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(ConfigError, match=r"c\.json is not JSON"):
        EvaluationSets([str(tmp_path / "c.json")])
    (tmp_path / "e.jsonl").write_text(
        json.dumps({"input": "", "question": "one\u2028two"}, ensure_ascii=False) + "\n"
        + json.dumps({"instruction": "Add.", "input": "three four"}) + "\n"
        + json.dumps({"instruction": "five six", "input": ""}) + "\n"
    )  # fmt: skip
    rows = EvaluationSets([str(tmp_path / "e.jsonl")])
    assert rows.num_problems == 3
    assert all(map(rows.holds_item, ("one two", "Add. three four", "five six")))
    (tmp_path / "blank.json").write_text(json.dumps([{"input": ""}]))
    with pytest.raises(ConfigError, match="holds no problem"):
        EvaluationSets([str(tmp_path / "blank.json")])
    (tmp_path / "d.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds no problem"):
        EvaluationSets([str(tmp_path / "d.json")])
    assert words_of("It's 2+2.") == ["it", "'", "s", "2", "+", "2", "."]


# Mix


def recipe(mix: MixRecipe, weights: dict[str, float] | None = None) -> CurateRecipe:
    difficulty = DifficultyRecipe() if weights is None else DifficultyRecipe(weights=weights)
    sources = {"s": SourceRecipe(kind="generator", count=1)}
    return CurateRecipe(sources=sources, mix=mix, difficulty=difficulty)


cells = st.dictionaries(
    st.tuples(
        st.sampled_from(["f", "g", "h"]), st.sampled_from(["x", "y"]), st.just("s"),
        st.integers(1, 3), st.sampled_from(["easy", "medium", "hard", "unknown"]),
    ),
    st.integers(1, 200),
    min_size=1,
)  # fmt: skip


@given(cells, st.none() | st.integers(1, 300))
def test_a_plain_mix_takes_by_weight(available: dict[Cell, int], total: int | None) -> None:
    weights = {"easy": 0.5, "medium": 1.0, "hard": 1.5, "unknown": 1.0}
    taken = plan(available, recipe(MixRecipe(total=total), weights))
    ideal = {cell: n * weights[cell[4]] for cell, n in available.items()}
    factor = min(1.0, (total or 1e9) / sum(ideal.values()))
    assert all(abs(taken[cell] - n * factor) <= 1 for cell, n in ideal.items())
    assert abs(sum(taken.values()) - sum(ideal.values()) * factor) <= 0.5


@given(cells, st.floats(0.5, 0.9))
def test_shares_and_caps_hold(available: dict[Cell, int], cap: float) -> None:
    by = {cell[0] for cell in available}
    shares = {value: float(ord(value)) for value in by}
    taken = plan(available, recipe(MixRecipe(shares=shares)))
    size = sum(taken.values())
    for value, number in by_axis(taken, "family").items():
        assert abs(number - size * shares[value] / sum(shares.values())) <= len(available)
    if len({cell[1] for cell in available}) == 2:
        taken = plan(available, recipe(MixRecipe(caps={"style": cap})))
        most = max(by_axis(taken, "style").values())
        assert most <= cap * sum(taken.values()) + len(available)
        weights = DifficultyRecipe().weights
        wanted = by_axis({c: n * weights[c[4]] for c, n in available.items()}, "style")
        least = min(wanted, key=wanted.__getitem__)
        assert by_axis(taken, "style")[least] >= wanted[least] - len(available)


def test_shares_of_levels_are_numbers() -> None:
    available = {("f", "x", "s", level, "unknown"): 30 for level in (1, 2, 3)}
    taken = plan(available, recipe(MixRecipe(by="level", shares={1: 1, 2: 2})))
    assert by_axis(taken, "level") == {"1": 15, "2": 30}


def test_impossible_mixes_say_so() -> None:
    available = {("f", "x", "s", 1, "unknown"): 5}
    with pytest.raises(TrainingError, match="wants family 'g' but no sample"):
        plan(available, recipe(MixRecipe(shares={"f": 1, "g": 1})))
    with pytest.raises(TrainingError, match=r"caps\.style is 0\.5 but there are only 1 values"):
        plan(available, recipe(MixRecipe(caps={"style": 0.5})))


@given(st.integers(1, 60), st.integers(0, 150), st.integers(0, 9))
def test_the_selector_takes_exactly_what_is_wanted(n: int, wanted: int, seed: int) -> None:
    cell = ("f", "x", "s", 1, "hard")
    selector = Selector({cell: n}, {cell: wanted}, seed)
    copies = [selector.copies(cell) for _ in range(n)]
    assert sum(copies) == wanted
    assert set(copies) <= {wanted // n, wanted // n + 1}


def test_axes_are_the_cell() -> None:
    assert AXES == ("family", "style", "source", "level")


# Hostile input

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
columns = ["problem", "question", "thought", "answer", "response", "solution", "messages",
           "level", "type", "family", "style", "finish_reason"]  # fmt: skip


@given(st.dictionaries(st.sampled_from(columns), anything, max_size=7) | anything)
def test_any_json_becomes_a_draft_or_a_reason(row: object) -> None:
    for found in (
        chain(row),
        formats.gsm8k(row, "line 1", "s", "f", "gsm8k"),
        formats.math(row, "line 1", "s", "math"),
    ):
        if isinstance(found, Draft):
            verdict = judge(found, FilterRecipe())
            assert isinstance(verdict, str | Draft)


@given(st.sampled_from(sorted(FAMILIES)), st.text(max_size=60), st.text(max_size=60), st.text())
def test_a_family_that_a_stranger_claims_is_verified(
    family: str, problem: str, thought: str, answer: str
) -> None:
    made = draft(family=family, problem=problem, thought=thought, answer=answer)
    assert judge(made, FilterRecipe()) in (
        "broken format", "empty thought", "no answer", "wrong answer",
    )  # fmt: skip
