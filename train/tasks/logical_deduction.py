"""Objects in a fixed order in BIG-Bench-Hard's wording (logical_deduction): who stands where?

The chain names each object by the letter of its option; slot 1 is the leftmost, first, oldest or
cheapest. It copies every statement, with letters beside the objects, and reduces it: to the sign of
the relation and a lettered pair, the lower one first, or to a slot (counted from the other end:
"2 of 5=4"). The pairs are then joined one after another, with all chains so far behind each. The
row of all slots follows, and every chain with the slots that are free for it, which places it if
they are as many ("?" if not). The last lines are the place asked for and its slot:

    - Uflaclier=A finished below Upailjonnn=D:>aD<A
    - Trebaikraund=C finished third:C3C
    - Igor=E finished above Lola=B:<bE<B
    - Uflaclier=A finished above Igor=E:<cA<E
    aD<A:D<A
    bE<B:D<A,E<B
    cA<E:D<A<E<B
    1_2_3C4_5_
    D<A<E<B:1245:1D2A3C4E5B
    (A) Uflaclier finished second-to-last:2 of 5=4
    4E
"""

import re
from dataclasses import dataclass
from itertools import permutations
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.choices import (
    LETTERS,
    NUMBER_WORDS,
    enumerate_nouns,
    render_options,
    with_article,
)
from falcon_h1r.train.tasks.deduction_reading import (
    ORDINALS,
    Deduction,
    read_deduction,
    read_rank,
)
from falcon_h1r.train.tasks.deduction_steps import (
    Fact,
    chain_holds,
    join_lines,
    place_lines,
    rising,
    solve,
)
from falcon_h1r.train.tasks.names import draw_names
from falcon_h1r.train.tasks.things import COLORS, EDIBLE, LIVING, MACHINES, THINGS, draw_nouns

_PLAIN = "black blue brown gray green orange purple red white yellow".split()  # noqa: SIM905


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What is arranged, and how its places and relations are worded."""

    opening: str
    less: str
    more: str
    low: str
    high: str
    kind: str
    """"row", "cost", "age" or "race": how a place is named."""


_ROW = {"less": "is to the left of", "more": "is to the right of", "low": "left",
        "high": "right", "kind": "row"}  # fmt: skip
_COST = {"less": "are less expensive than", "more": "are more expensive than",
         "low": "cheapest", "high": "most expensive", "kind": "cost"}  # fmt: skip
_AGE = {"less": "is older than", "more": "is newer than", "low": "oldest", "high": "newest",
        "kind": "age"}  # fmt: skip
_RACE = {"less": "finished above", "more": "finished below", "low": "first", "high": "last",
         "kind": "race"}  # fmt: skip
_SCENES: tuple[tuple[Scene, list[str]], ...] = (
    (Scene(opening="On a branch, there are {} birds:", **_ROW), LIVING),
    (Scene(opening="On a shelf, there are {} books:", **_ROW), COLORS),
    (Scene(opening="On a table, there are {} things:", **_ROW), THINGS),
    (Scene(opening="In a field, there are {} animals:", **_ROW), LIVING),
    (Scene(opening="A fruit stand sells {} fruits:", **_COST), EDIBLE),
    (Scene(opening="A shop sells {} goods:", **_COST), EDIBLE),
    (Scene(opening="In an antique car show, there are {} vehicles:", **_AGE), MACHINES),
    (Scene(opening="In a museum, there are {} exhibits:", **_AGE), THINGS),
    (Scene(opening="In a golf tournament, there were {} golfers:", **_RACE), []),
    (Scene(opening="In a golf tournament, there were {} golfers:", **_RACE), []),
    (Scene(opening="In a race, there were {} runners:", **_RACE), []),
)


def _place(scene: Scene, slot: int, count: int, rng: Random) -> str:
    """Name a slot from the nearer end mostly: "is the second from the left", "finished last"."""
    back = count + 1 - slot
    from_high = back < slot if rng.random() < 0.85 else back <= slot
    if slot in (1, count):
        from_high = slot == count
    rank = back if from_high else slot
    end = scene.high if from_high else scene.low
    if scene.kind == "row":
        return f"is the {end}most" if rank == 1 else f"is the {ORDINALS[rank]} from the {end}"
    if scene.kind == "race":
        if not from_high:
            return f"finished {ORDINALS[rank]}"
        return "finished last" if rank == 1 else f"finished {ORDINALS[rank]}-to-last"
    verb = "are" if scene.kind == "cost" else "is"
    return f"{verb} the {end}" if rank == 1 else f"{verb} the {ORDINALS[rank]}-{end}"


def _say(scene: Scene, noun: str) -> str:
    return noun if scene.kind == "race" else f"the {noun}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _draw_facts(rng: Random, order: list[int], count: int) -> list[Fact]:
    """True statements until the order is determined, then without the superfluous ones."""
    slot = {thing: i + 1 for i, thing in enumerate(order)}
    fixed_share = rng.choice((0.1, 0.3, 0.5, 0.6)) if count > 3 else 0.4
    facts: list[Fact] = []
    while solve(facts, count) is None:
        a, b = rng.sample(range(count), 2)
        new: Fact = (a, slot[a])
        if rng.random() >= fixed_share:
            if abs(slot[a] - slot[b]) > rng.randint(1, 3):
                continue
            new = (a, "<" if slot[a] < slot[b] else ">", b)
            known = {(f[0], f[2]) for f in facts if len(f) == 3}
            if (a, b) in known or (b, a) in known:
                continue
        if new not in facts:
            facts.append(new)
    for fact in list(facts):
        rest = [f for f in facts if f != fact]
        if rng.random() < 0.95 and solve(rest, count) is not None:
            facts = rest
    return facts


def _counted(text: str, slot: int, count: int) -> str:
    """ "4", or "2 of 5=4" for "second from the right"."""
    rank, from_high = read_rank(text)
    return f"{rank} of {count}={slot}" if from_high else f"{slot}"


def _quote(sentence: str, fact: Fact, nouns: list[str]) -> str:
    """A statement with letters beside its objects: "The owl=A is to the left of the robin=C"."""
    one = nouns[fact[0]]
    end = sentence.index(one) + len(one)
    text = f"{sentence[:end]}={LETTERS[fact[0]]}{sentence[end:]}"
    return text if len(fact) == 2 else f"{text}={LETTERS[fact[2]]}"


def think(deduction: Deduction) -> str:
    """The chain of a deduction that `solve` can solve."""
    nouns, facts = deduction.nouns, deduction.facts
    count = len(nouns)
    joined, chains = join_lines(facts)
    signs = iter(joined)
    lines: list[str] = []
    for sentence, fact in zip(deduction.sentences, facts, strict=True):
        quote = _quote(sentence, fact, nouns)
        if len(fact) == 2:
            letter, slot = LETTERS[fact[0]], fact[1]
            place = sentence[sentence.index(nouns[fact[0]]) + len(nouns[fact[0]]) :]
            counted = _counted(place, slot, count)
            back = f"{counted}," if "=" in counted else ""
            lines.append(f"- {quote}:{back}{letter}{slot}{letter}")
        else:
            low, high = (LETTERS[i] for i in rising(fact))
            lines.append(f"- {quote}:{fact[1]}{next(signs)[0]}{low}<{high}")
    placed, order = place_lines(facts, chains, count)
    asked = deduction.asked
    place = deduction.question.split(nouns[0], 1)[1]
    question = f"{deduction.question}:{_counted(place, asked, count)}"
    return "\n".join([*lines, *joined, *placed, question, f"{asked}{LETTERS[order[asked - 1]]}"])


def _could_be_known(nouns: list[str]) -> bool:
    """Whether all are as in the benchmark: names of three letters, or books of plain colours."""
    return all(len(n) == 3 or (n.endswith(" book") and n[:-5] in _PLAIN) for n in nouns)


def generate(rng: Random, level: int) -> Problem:
    """Three, five or seven objects by level; the statements determine the whole order."""
    count = (3, 5, 7)[level - 1]
    scene, words = rng.choice(_SCENES)
    if scene.kind == "race":
        nouns = draw_names(rng, count)
    else:
        nouns = draw_nouns(rng, words, count, 0.25)
        if scene.kind == "cost":
            nouns = [n if n.endswith("s") else n + "s" for n in nouns]
        if words is COLORS:
            nouns = [f"{n} book" for n in nouns]
    if len(set(nouns)) < count or _could_be_known(nouns):
        return generate(rng, level)
    order = list(range(count))
    rng.shuffle(order)
    facts = _draw_facts(rng, order, count)
    rng.shuffle(facts)
    asked = rng.randint(1, count)
    named = nouns if scene.kind in ("race", "cost") else [with_article(n) for n in nouns]
    parts = [f"{scene.opening.format(NUMBER_WORDS[count])} {enumerate_nouns(named)}."]
    for fact in facts:
        subject = _capital(_say(scene, nouns[fact[0]]))
        if len(fact) == 2:
            parts.append(f"{subject} {_place(scene, fact[1], count, rng)}.")
        else:
            relation = scene.less if fact[1] == "<" else scene.more
            parts.append(f"{subject} {relation} {_say(scene, nouns[fact[2]])}.")
    place = _place(scene, asked, count, rng)
    options = render_options([f"{_capital(_say(scene, n))} {place}" for n in nouns])
    opening = (
        f"The following paragraphs each describe a set of {NUMBER_WORDS[count]} objects arranged "
        "in a fixed order. The statements are logically consistent within each paragraph. "
    )
    text = " ".join(parts)
    if rng.random() < 0.85:
        text = opening + text
    text = f"{text}\n{options}"
    letters = " ".join("".join(LETTERS[p] if isinstance(p, int) and i != 1 else str(p)
                               for i, p in enumerate(f)) for f in facts)  # fmt: skip
    return Problem(
        problem=text,
        thought=think(read_deduction(text)),
        answer=f"({LETTERS[order[asked - 1]]})",
        family="logical_deduction",
        level=level,
        keys=(f"logical_deduction {count} {asked} {letters}",),
    )


def _holds(fact: Fact, slots: tuple[int, ...]) -> bool:
    if len(fact) == 2:
        return slots[fact[0]] == fact[1]
    return (slots[fact[0]] < slots[fact[2]]) == (fact[1] == "<")


def verify(problem: Problem) -> bool:
    """Try all orders; what the thought writes must hold in the only one that is left."""
    deduction = read_deduction(problem.problem)
    count, asked = len(deduction.nouns), deduction.asked
    orders = permutations(range(1, count + 1))
    found = [slots for slots in orders if all(_holds(f, slots) for f in deduction.facts)]
    if len(found) != 1:
        return False
    slots = found[0]
    if problem.answer != f"({LETTERS[slots.index(asked)]})":
        return False
    lines = problem.thought.split("\n")
    if len(lines) < len(deduction.facts) + 3 or lines[-1] != f"{asked}{problem.answer[1]}":
        return False
    return all(_line_holds(line, slots) for line in lines[:-2]) and (
        problem.thought == think(deduction)
    )


def _line_holds(line: str, slots: tuple[int, ...]) -> bool:
    """Whether the chains and the slots that a line writes are those of the order."""
    for text in line.split(":")[1 if line.startswith("- ") else 0 :]:
        chains = re.findall(r"[A-G1-7]+(?:<[A-G1-7]+)+", text)
        placed = [*re.findall(r"([1-7])([A-G])", text)] if "<" not in text else []
        if not all(chain_holds(chain, slots) for chain in chains):
            return False
        if any(slots[LETTERS.index(letter)] != int(slot) for slot, letter in placed):
            return False
    return True
