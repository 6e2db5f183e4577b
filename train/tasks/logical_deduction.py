"""Objects in a fixed order in BIG-Bench-Hard's wording (logical_deduction): who stands where?

The chain names each object by the letter of its option. First every statement is copied and
reduced to letters: "- owl D=3" (slot 3) or "- robin G> wren B:B<G". Then one line holds all slots,
and each further line places the objects that are determined by then, with their bounds in front:

    1C2_3D4B5E6_7_
    G<4:1C2G3D4B5E6_7_
    A<F:1C2G3D4B5E6A7F

A chain of three or more is preceded by the way back to its start from the first statement that
belongs to it: "G,F,D" and then "D<F<G<B:...", so that each letter is one look-up. Slot 1 is the
leftmost, first, oldest or cheapest. The last line is the slot asked for.
"""

import re
from dataclasses import dataclass
from itertools import pairwise, permutations
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.choices import (
    LETTERS,
    NUMBER_WORDS,
    enumerate_nouns,
    read_options,
    render_options,
    with_article,
)
from falcon_h1r.train.tasks.names import draw_names
from falcon_h1r.train.tasks.things import COLORS, EDIBLE, LIVING, MACHINES, THINGS, draw_nouns

_PLAIN = "black blue brown gray green orange purple red white yellow".split()  # noqa: SIM905
_ORDINAL_TEXT = "zeroth first second third fourth fifth sixth seventh"
_ORDINALS = _ORDINAL_TEXT.split()
Fact = tuple[int, int] | tuple[int, str, int]
"""(object, slot) or (object, "<" or ">", object), objects and slots counted from 0 and 1."""


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
        return f"is the {end}most" if rank == 1 else f"is the {_ORDINALS[rank]} from the {end}"
    if scene.kind == "race":
        if not from_high:
            return f"finished {_ORDINALS[rank]}"
        return "finished last" if rank == 1 else f"finished {_ORDINALS[rank]}-to-last"
    verb = "are" if scene.kind == "cost" else "is"
    return f"{verb} the {end}" if rank == 1 else f"{verb} the {_ORDINALS[rank]}-{end}"


def _say(scene: Scene, noun: str) -> str:
    return noun if scene.kind == "race" else f"the {noun}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


Step = tuple[tuple[int, ...], int, int]
"""Objects placed in order, the slot that bounds them from below (0: none) and from above."""


def solve(facts: list[Fact], count: int) -> list[Step] | None:
    """Place chains of related objects where exactly as many slots are free; None when stuck."""
    slots: dict[int, int] = {f[0]: f[1] for f in facts if len(f) == 2}
    pairs = [(f[0], f[2]) if f[1] == "<" else (f[2], f[0]) for f in facts if len(f) == 3]
    steps: list[Step] = []
    while len(slots) < count:
        step = _next_step(slots, pairs, count)
        if step is None:
            return None
        chain, low, high = step
        free = [s for s in range(low + 1, (high or count + 1)) if s not in slots.values()]
        slots.update(zip(chain, free, strict=True))
        steps.append(step)
    return steps


def _next_step(slots: dict[int, int], pairs: list[tuple[int, int]], count: int) -> Step | None:
    """The shortest chain that is determined; of equal ones the first stated."""
    after: dict[int, list[int]] = {}
    for a, b in pairs:
        after.setdefault(a, []).append(b)
    taken = set(slots.values())
    loose = [*(i for pair in pairs for i in pair), *range(count)]
    paths: list[tuple[int, ...]] = [(i,) for i in dict.fromkeys(loose) if i not in slots]
    while paths:
        for path in paths:
            low = max([slots[a] for a, b in pairs if b == path[0] and a in slots], default=0)
            above = [slots[b] for b in after.get(path[-1], ()) if b in slots]
            high = min(above, default=0)
            free = [s for s in range(low + 1, high or count + 1) if s not in taken]
            if len(free) == len(path):
                return path, low, high
        paths = [(*p, b) for p in paths for b in after.get(p[-1], ()) if b not in slots]
    return None


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


def _show(slots: dict[int, int], count: int) -> str:
    objects = {s: LETTERS[i] for i, s in slots.items()}
    return "".join(f"{s}{objects.get(s, '_')}" for s in range(1, count + 1))


def _way_back(chain: tuple[int, ...], facts: list[Fact]) -> str:
    """From the left object of the first statement within the chain back to the chain's start."""
    links = {frozenset(link): i for i, link in enumerate(pairwise(chain))}
    first = next(i for f in facts if (i := links.get(frozenset((f[0], f[-1])))) is not None)
    return ",".join(LETTERS[i] for i in reversed(chain[: first + 1]))


def _short(nouns: list[str]) -> list[str]:
    """Without the last word where all share it: "blue" of blue, red and gray books."""
    last = {noun.rpartition(" ")[2] for noun in nouns}
    return [n.rpartition(" ")[0] for n in nouns] if len(last) == 1 else nouns


def think(facts: list[Fact], nouns: list[str], asked: int) -> str | None:
    """The chain for statements in order; None when the steps do not determine everything."""
    count = len(nouns)
    steps = solve(facts, count)
    if steps is None:
        return None
    nouns = _short(nouns)
    lines: list[str] = []
    slots: dict[int, int] = {}
    for fact in facts:
        one = f"- {nouns[fact[0]]} {LETTERS[fact[0]]}"
        if len(fact) == 2:
            slots[fact[0]] = fact[1]
            lines.append(f"{one}={fact[1]}")
        else:
            pair = (fact[0], fact[2]) if fact[1] == "<" else (fact[2], fact[0])
            less, more = (LETTERS[i] for i in pair)
            lines.append(f"{one}{fact[1]} {nouns[fact[2]]} {LETTERS[fact[2]]}:{less}<{more}")
    lines.append(_show(slots, count))
    for chain, low, high in steps:
        free = [s for s in range(low + 1, high or count + 1) if s not in slots.values()]
        slots.update(zip(chain, free, strict=True))
        if len(chain) > 2:
            lines.append(_way_back(chain, facts))
        bounds = [*([str(low)] if low else []), *(LETTERS[i] for i in chain)]
        if high:
            bounds.append(str(high))
        lines.append(f"{'<'.join(bounds)}:{_show(slots, count)}")
    thing = next(i for i, s in slots.items() if s == asked)
    lines.append(f"{asked}{LETTERS[thing]}")
    return "\n".join(lines)


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
    thought = think(facts, nouns, asked)
    assert thought is not None  # the facts were drawn until the steps determine everything
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
    letters = " ".join("".join(LETTERS[p] if isinstance(p, int) and i != 1 else str(p)
                               for i, p in enumerate(f)) for f in facts)  # fmt: skip
    return Problem(
        problem=f"{text}\n{options}",
        thought=thought,
        answer=f"({LETTERS[order[asked - 1]]})",
        family="logical_deduction",
        level=level,
        keys=(f"logical_deduction {count} {asked} {letters}",),
    )


_RELATION = re.compile(
    r"^(.+?) (?:is|are|finished) (to the left of|to the right of|less expensive than|"
    r"more expensive than|older than|newer than|above|below) (.+)$"
)
_LESS = {"to the left of", "less expensive than", "older than", "above"}


def _read_slot(text: str, count: int) -> int:
    """The slot that "second from the right", "fourth-newest" or "finished last" names."""
    rank = next((i for i, word in enumerate(_ORDINALS) if i and word in text), 1)
    high = re.search(r"right|last|newest|most expensive", text) is not None
    return count + 1 - rank if high else rank


def read_facts(text: str) -> tuple[list[str], list[Fact], int]:
    """Nouns in the order of the options, the statements in order, and the slot asked for."""
    choices = read_options(text)
    nouns: list[str] = []
    for choice in choices:
        noun = re.split(r" (?:is|are) the | finished ", choice)[0]
        nouns.append(noun.removeprefix("The "))
    asked = _read_slot(choices[0][len(nouns[0]) :], len(nouns))
    facts: list[Fact] = []
    body = text.split("\nOptions:")[0].split(": ", 1)[1]
    for sentence in re.findall(r"[^.]+(?=\.)", body)[1:]:
        words = sentence.strip()
        match = _RELATION.match(words)
        one, two = (words, "") if match is None else (match[1], match[3])
        if match is None:
            one = re.split(r" (?:is|are) the | finished ", words)[0]
        first = nouns.index(one.removeprefix("The "))
        if match is None:
            facts.append((first, _read_slot(words[len(one) :], len(nouns))))
        else:
            sign = "<" if match[2] in _LESS else ">"
            facts.append((first, sign, nouns.index(two.removeprefix("the "))))
    return nouns, facts, asked


def _holds(fact: Fact, slots: tuple[int, ...]) -> bool:
    if len(fact) == 2:
        return slots[fact[0]] == fact[1]
    return (slots[fact[0]] < slots[fact[2]]) == (fact[1] == "<")


def verify(problem: Problem) -> bool:
    """Try all orders; every slot the thought writes must be the one of the only order left."""
    nouns, facts, asked = read_facts(problem.problem)
    count = len(nouns)
    orders = permutations(range(1, count + 1))
    found = [slots for slots in orders if all(_holds(f, slots) for f in facts)]
    if len(found) != 1:
        return False
    slots = found[0]
    if problem.answer != f"({LETTERS[slots.index(asked)]})":
        return False
    lines = problem.thought.split("\n")
    for line in lines[len(facts) :]:
        chain = [slots[LETTERS.index(x)] for x in line.split(",")] if "," in line else []
        if chain != sorted(chain, reverse=True):
            return False
        placed = re.findall(r"(\d)([A-G])", line.split(":")[-1])
        if any(slots[LETTERS.index(letter)] != int(slot) for slot, letter in placed):
            return False
    pairs_hold = all(_check_pair(line, slots) for line in lines[: len(facts)])
    return pairs_hold and problem.thought == think(facts, nouns, asked)


def _check_pair(line: str, slots: tuple[int, ...]) -> bool:
    """The letters behind the colon stand in their order; a fixed slot is the right one."""
    match = re.search(r":([A-G])<([A-G])$", line)
    if match:
        return slots[LETTERS.index(match[1])] < slots[LETTERS.index(match[2])]
    match = re.search(r" ([A-G])=(\d)$", line)
    return match is not None and slots[LETTERS.index(match[1])] == int(match[2])
