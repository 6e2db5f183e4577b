"""Samples made of samples: asked in another frame, with other numbers, two joined to one.

Each is verified by another way than it was made: the frame is taken off again, the generator's
verifier solves the new text, the equations of a renumbered or joined thought are run.
"""

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from random import Random

from falcon_h1r.train.curation.drafts import Draft
from falcon_h1r.train.curation.filters import calculate, verified_by_family
from falcon_h1r.train.curation.frames import FRAMES, unframed
from falcon_h1r.train.curation.sources import generated
from falcon_h1r.train.tasks import FAMILIES
from falcon_h1r.train.tasks.steps import add_terms, check_steps, last_number, show, signed

COMPOSED = "composed"
MAX_TRIES = 6
"""Draws of other numbers before a solution is left as it is."""
_SPELLED = {
    2: "two|twice|double|doubled|half|halves|pair|pairs|both|couple|second",
    3: "three|thrice|triple|tripled|third|thirds", 4: "four|quarter|quarters|fourth|fourths",
    5: "five|fifth|fifths", 6: "six|sixth", 7: "seven|week|weeks|seventh", 8: "eight|eighth",
    9: "nine|ninth", 10: "ten|tenth|dime|dimes", 11: "eleven", 12: "twelve|dozen|dozens|year|years",
    15: "fifteen", 20: "twenty", 24: "day|days", 25: "quarter|quarters|twenty-five", 30: "thirty",
    50: "half|fifty", 60: "hour|hours|minute|minutes|sixty", 100: "percent|hundred|cents",
}  # fmt: skip
"""Words that stand for a number without writing it: such a number is never changed."""
_INTEGER = re.compile(r"-?\d{1,6}")
_COMPOSED = re.compile(
    r"A is the answer to the first problem, B to the second\.\nFirst: (.*)\nSecond: (.*)\n"
    r"What is A ([+-]) B\?",
    re.DOTALL,
)
_PLAIN = re.compile(r"(?<![\w.,/:$])\$?(\d{1,4})(?![\w/:%]|[.,]\d)")
_ANY_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_EQUATION = re.compile(r"((?:\$?\d[\d.,]*\s*[-+*/]\s*)+\$?\d[\d.,]*)\s*=\s*\$?(\d[\d.,]*)")


def rephrase(draft: Draft, rng: Random) -> Draft | None:
    """The same problem in another frame of words; verified by taking the frame off."""
    if unframed(draft.problem) != draft.problem:
        return None
    problem = rng.choice(FRAMES).format(draft.problem)
    if unframed(problem) != draft.problem:
        return None
    return draft.but(
        where=f"rephrased {draft.where}", problem=problem, style="rephrased", pass_rate=None
    )


def renumber(draft: Draft, rng: Random) -> Draft | None:
    """The same problem with other numbers: by its generator, or by running its marks again."""
    where = f"renumbered {draft.where}"
    if draft.family in FAMILIES:
        new = generated(rng, draft.family, draft.level, where, draft.source, "renumbered")
        return new.but(where=where) if verified_by_family(new) else None
    for _ in range(MAX_TRIES if draft.steps else 0):
        rerun = _rerun(draft, rng)
        if rerun is not None:
            return rerun.but(where=where, style="renumbered", pass_rate=None)
    return None


def compose(first: Draft, second: Draft, rng: Random) -> Draft | None:
    """Two problems whose integer answers are added or subtracted; verified by reading them back.

    Both are of our own families, whose notation (digits reversed) is kept, or both are not: then
    the thought ends on a plain equation.
    """
    a, b, sign = int(first.answer), int(second.answer), rng.choice("+-")
    total = a + b if sign == "+" else a - b
    ours = first.family in FAMILIES
    if ours:
        lines = [first.thought, f"A={show(signed(a))}", second.thought, f"B={show(signed(b))}"]
        b_sign, b_size = signed(b)
        add_terms(lines, [signed(a), (b_sign if sign == "+" else -b_sign, b_size)])
    else:
        shown = f"({b})" if b < 0 else str(b)
        lines = [first.thought, f"So A = {a}.", second.thought, f"So B = {b}."]
        lines.append(f"A {sign} B = {a} {sign} {shown} = {total}")
    composed = first.but(
        where=f"{first.where} and {second.where}",
        problem=(
            "A is the answer to the first problem, B to the second.\n"
            f"First: {first.problem}\nSecond: {second.problem}\nWhat is A {sign} B?"
        ),
        thought="\n".join(lines),
        answer=str(total),
        final=str(total),
        family=COMPOSED,
        level=min(3, max(first.level, second.level) + 1),
        style=COMPOSED,
        steps=(*first.steps, *second.steps),
        judge=None,
        pass_rate=None,
    )
    return composed if _is_composed_of(composed, first, second, ours) else None


def _is_composed_of(composed: Draft, first: Draft, second: Draft, ours: bool) -> bool:
    """Read the joined text back: the parts, their answers, the sum and every step must hold."""
    match = _COMPOSED.fullmatch(composed.problem)
    if match is None or (match[1], match[2]) != (first.problem, second.problem):
        return False
    value = calculate(f"({first.answer}){match[3]}({second.answer})")
    if value is None or str(value) != composed.answer:
        return False
    if not ours:
        return composed.thought.endswith(f" = {composed.answer}")
    parts_hold = verified_by_family(first) and verified_by_family(second)
    total = last_number(composed.thought)
    return parts_hold and check_steps(composed.thought) and str(total) == composed.answer


def _rerun(draft: Draft, rng: Random) -> Draft | None:
    """Change one or two numbers of a GSM8K problem and run the marks of its solution again.

    Only where every number keeps one meaning: a changed number occurs once in the problem, is the
    result of no mark, and results stay whole and positive where they were.
    """
    in_problem = [Fraction(n) for n in _PLAIN.findall(draft.problem)]
    results = [calculate(result) for _, result in draft.steps]
    used = {Fraction(n) for text, _ in draft.steps for n in re.findall(r"\d+(?:\.\d+)?", text)}
    free = sorted(
        value
        for value in set(in_problem)
        if value >= 2 and value in used and value not in results
        and len(_occurrences(draft.problem, value)) == 1
        and not re.search(rf"\b(?:{_SPELLED.get(int(value), '$^')})\b", draft.problem.lower())
        and all(len(_occurrences(text, value)) <= 1 for text, _ in draft.steps)
    )  # fmt: skip
    if not free or None in results:
        return None
    new: dict[Fraction, Fraction] = {}
    for value in rng.sample(free, min(len(free), rng.choice((1, 1, 2)))):
        new[value] = Fraction(rng.randint(max(2, int(value) // 2), int(value) * 2))
    fixed = {Fraction(n.replace(",", "")) for n in _ANY_NUMBER.findall(draft.problem)} - set(new)
    for text, result in draft.steps:
        now, old = calculate(_renumbered(text, new)), calculate(result)
        if now is None or old is None or not _is_alike(old, now):
            return None
        if new.setdefault(old, now) != now or (old in fixed and now != old):
            return None
        fixed |= {Fraction(n) for n in re.findall(r"\d+(?:\.\d+)?", text)} - set(new)
        if fixed & {key for key, changed in new.items() if key != changed}:
            return None
    answer = calculate(draft.answer)
    if answer is None or answer not in new:
        return None
    changed = draft.but(
        problem=_renumbered(draft.problem, new, _PLAIN),
        thought=_renumbered(draft.thought, new),
        answer=_shown(new[answer]),
        final=_shown(new[answer]),
        steps=tuple((_renumbered(t, new), _renumbered(r, new)) for t, r in draft.steps),
    )
    return changed if changed.problem != draft.problem and _equations_hold(changed) else None


def _occurrences(text: str, value: Fraction) -> list[str]:
    found = _ANY_NUMBER.findall(text)
    return [number for number in found if Fraction(number.replace(",", "")) == value]


def _is_alike(old: Fraction, new: Fraction) -> bool:
    """Whether a result stayed whole, positive and of few decimals where it was."""
    if old.denominator == 1 and new.denominator != 1:
        return False
    return (new > 0) == (old > 0) and (new * 100).denominator == 1


def _renumbered(
    text: str, new: dict[Fraction, Fraction], pattern: re.Pattern[str] = _ANY_NUMBER
) -> str:
    def swap(match: re.Match[str]) -> str:
        digits = _ANY_NUMBER.search(match[0])
        assert digits is not None
        value = Fraction(digits[0].replace(",", ""))
        if value not in new or new[value] == value:
            return match[0]
        return match[0][: digits.start()] + _shown(new[value]) + match[0][digits.end() :]

    return pattern.sub(swap, text)


def _shown(value: Fraction) -> str:
    return str(value) if value.denominator == 1 else f"{float(value):.2f}".rstrip("0")


def _equations_hold(draft: Draft) -> bool:
    """Run the equations that stand in the thought, and see its answer among its last numbers."""
    for left, right in _EQUATION.findall(draft.thought):
        value, stated = calculate(left.rstrip(".,")), calculate(right.rstrip(".,"))
        if value is not None and stated is not None and abs(value - stated) > Fraction(1, 50):
            return False
    return draft.answer in [n.replace(",", "") for n in _ANY_NUMBER.findall(draft.thought)[-3:]]


def _pair(drafts: list[Draft], rng: Random) -> tuple[Draft, Draft] | None:
    """Two samples that can be joined: integer answers, both of our own families or neither."""
    numeric = [draft for draft in drafts if _INTEGER.fullmatch(draft.answer)]
    if not numeric:
        return None
    first = rng.choice(numeric)
    ours = first.family in FAMILIES
    second = rng.choice([draft for draft in numeric if (draft.family in FAMILIES) == ours])
    return first, second


Make = Callable[[Draft, Random], Draft | None]


def augmented(
    drafts: list[Draft], shares: dict[str, float], seed: str
) -> Iterator[tuple[str, Draft | None]]:
    """Propose augmentations of a shard's samples: (name, sample or None where it failed).

    `shares`: name -> proposals as a share of the samples. The same for the same seed.
    """
    simple: dict[str, Make] = {"rephrase": rephrase, "renumber": renumber}
    for name, share in shares.items():
        rng = Random(f"augment {seed} {name}")
        for _ in range(round(share * len(drafts))):
            if name in simple:
                yield name, simple[name](rng.choice(drafts), rng)
            else:
                pair = _pair(drafts, rng)
                yield name, compose(*pair, rng) if pair else None
