"""The chain of a deduction: statements in letters, statements joined to chains, chains placed.

Objects are numbered from 0 (their option's letter), slots from 1 (the lowest). A chain is a list
of nodes in rising order; a node is an object's letter or, where an object has its slot, the digit
of that slot ("D<A<3").
"""

from itertools import pairwise

from falcon_h1r.train.tasks.choices import LETTERS

Fact = tuple[int, int] | tuple[int, str, int]
"""(object, slot) or (object, "<" or ">", object), objects and slots counted from 0 and 1."""
Step = tuple[tuple[int, ...], int, int]
"""Objects placed in order, the slot that bounds them from below (0: none) and from above."""
Chain = tuple[str, ...]


def solve(facts: list[Fact], count: int) -> list[Step] | None:
    """Place chains of related objects where exactly as many slots are free; None when stuck."""
    slots: dict[int, int] = {f[0]: f[1] for f in facts if len(f) == 2}
    pairs = [rising(f) for f in facts if len(f) == 3]
    steps: list[Step] = []
    while len(slots) < count:
        step = next_step(slots, pairs, count)
        if step is None:
            return None
        chain, low, high = step
        free = [s for s in range(low + 1, (high or count + 1)) if s not in slots.values()]
        slots.update(zip(chain, free, strict=True))
        steps.append(step)
    return steps


def rising(fact: tuple[int, str, int]) -> tuple[int, int]:
    """The two objects of a relation, the lower one first."""
    return (fact[0], fact[2]) if fact[1] == "<" else (fact[2], fact[0])


def next_step(slots: dict[int, int], pairs: list[tuple[int, int]], count: int) -> Step | None:
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


def row(slots: dict[int, int], count: int) -> str:
    """ "1_2_3C": every slot with its object."""
    objects = {s: LETTERS[i] for i, s in slots.items()}
    return "".join(f"{s}{objects.get(s, '_')}" for s in range(1, count + 1))


def join(chains: list[Chain], low: str, high: str) -> list[Chain]:
    """Add "low is below high": at a chain's end, at its start, between two, or on its own."""
    if any(low in c and high in c and c.index(low) < c.index(high) for c in chains):
        return chains
    if low.isdigit() and high.isdigit():
        return chains
    before = next((c for c in chains if c[-1] == low and low.isalpha()), None)
    after = next((c for c in chains if c[0] == high and high.isalpha()), None)
    known = {x for c in chains for x in c if x.isalpha()}
    if before and after:
        both = (*before, *after)
        first = min(chains.index(before), chains.index(after))
        rest = [c for c in chains if c not in (before, after)]
        return [*rest[:first], both, *rest[first:]]
    if before and high not in known:
        return [(*c, high) if c is before else c for c in chains]
    if after and low not in known:
        return [(low, *c) if c is after else c for c in chains]
    return [*chains, (low, high)]


def _pending(chains: list[Chain], slots: dict[int, int]) -> list[Chain]:
    """The chains with placed objects as slots, cut there, without what is placed altogether."""
    found: list[Chain] = []
    for chain in chains:
        nodes = [x if x.isdigit() else str(slots.get(LETTERS.index(x), x)) for x in chain]
        piece: list[str] = []
        for node in nodes:
            piece.append(node)
            if node.isdigit():
                found.append(tuple(piece))
                piece = [node]
        found.append(tuple(piece))
    return [c for c in dict.fromkeys(found) if any(x.isalpha() for x in c)]


def _free(chain: Chain, slots: dict[int, int], count: int) -> list[int]:
    """The free slots between a chain's bounds."""
    low = int(chain[0]) if chain[0].isdigit() else 0
    high = int(chain[-1]) if chain[-1].isdigit() else count + 1
    return [s for s in range(low + 1, high) if s not in slots.values()]


def _placed(lines: list[str], chain: Chain, slots: dict[int, int], count: int) -> bool:
    """Write a chain and its free slots; where these are as many, place it."""
    free = _free(chain, slots, count)
    objects = [LETTERS.index(x) for x in chain if x.isalpha()]
    text = f"{'<'.join(chain)}:{''.join(map(str, free))}"
    if len(free) != len(objects):
        lines.append(f"{text}?")
        return False
    slots.update(zip(objects, free, strict=True))
    lines.append(f"{text}:{row(slots, count)}")
    return True


def join_lines(facts: list[Fact]) -> tuple[list[str], list[Chain]]:
    """One line a relation: its sign, the relation, and all chains so far."""
    slots = {f[0]: f[1] for f in facts if len(f) == 2}
    chains: list[Chain] = []
    lines: list[str] = []
    for sign, fact in zip("abcdefghij", (f for f in facts if len(f) == 3), strict=False):
        pair = rising(fact)
        said = "<".join(LETTERS[i] + str(slots.get(i, "")) for i in pair)
        low, high = (str(slots.get(i, LETTERS[i])) for i in pair)
        chains = join(chains, low, high)
        shown = ",".join("<".join(c) for c in chains) or "_"
        lines.append(f"{sign}{said}:{shown}")
    return lines, chains


def place_lines(facts: list[Fact], chains: list[Chain], count: int) -> tuple[list[str], list[int]]:
    """The row of slots and the chains placed in it; also the object of every slot."""
    slots = {f[0]: f[1] for f in facts if len(f) == 2}
    pairs = [rising(f) for f in facts if len(f) == 3]
    lines = [row(slots, count)]
    while pending := _pending(chains, slots):
        done = [_placed(lines, c, slots, count) for c in pending if not _known(c, slots)]
        if any(done):
            continue
        step = next_step(slots, pairs, count)  # objects of several chains
        if step is None:
            break
        nodes = [LETTERS[i] for i in step[0]]
        low, high = ([str(s)] if s else [] for s in step[1:])
        _placed(lines, (*low, *nodes, *high), slots, count)
    while len(slots) < count:
        step = next_step(slots, pairs, count)
        assert step is not None  # the caller has solved the facts
        _placed(lines, tuple(LETTERS[i] for i in step[0]), slots, count)
    objects = {s: i for i, s in slots.items()}
    return lines, [objects[s] for s in range(1, count + 1)]


def _known(chain: Chain, slots: dict[int, int]) -> bool:
    """Whether an object of the chain was placed since the chains were listed."""
    return any(x.isalpha() and LETTERS.index(x) in slots for x in chain)


def chain_holds(text: str, slots: tuple[int, ...]) -> bool:
    """Whether "D<A<3" is in rising order, given the slot of every object."""
    where = [int(x[-1]) if x[-1].isdigit() else slots[LETTERS.index(x)] for x in text.split("<")]
    return all(a < b for a, b in pairwise(where))
