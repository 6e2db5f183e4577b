"""Statements about one kind of beings: what they say, and how an English text words them.

A statement is universal ("all": whatever is the antecedent is the consequent), existential
("some": something is both) or about a named individual ("name": it is the consequent).
"""

from dataclasses import dataclass
from random import Random

Literal = tuple[int, bool]
"""Number of a predicate, and False where it is denied."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """Literals joined by "and" or "or"."""

    literals: tuple[Literal, ...]
    all_of: bool = True

    def holds(self, facts: int) -> bool:
        """Whether it is true where bit k of `facts` says that predicate k holds."""
        values = [(facts >> i & 1 == 1) == positive for i, positive in self.literals]
        return all(values) if self.all_of else any(values)

    def clauses(self) -> list[tuple[Literal, ...]]:
        """Disjunctions that hold together."""
        return [(x,) for x in self.literals] if self.all_of else [self.literals]

    def denied(self) -> "Parts":
        """The opposite."""
        return Parts(literals=tuple((i, not p) for i, p in self.literals), all_of=not self.all_of)


NOTHING = Parts(literals=())


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """A universal, existential or singular statement."""

    kind: str
    """"all", "some" or "name"."""
    antecedent: Parts
    """Empty for "name"."""
    consequent: Parts

    def holds(self, facts: int) -> bool:
        """Its truth for one being: an implication for "all", otherwise both parts."""
        if self.kind == "all":
            return not self.antecedent.holds(facts) or self.consequent.holds(facts)
        return self.antecedent.holds(facts) and self.consequent.holds(facts)

    def clauses(self) -> list[tuple[Literal, ...]]:
        """The statement about the one being the argument speaks of, as disjunctions."""
        if self.kind != "all":
            return [*self.antecedent.clauses(), *self.consequent.clauses()]
        return [(*a, *c) for a in self.antecedent.denied().clauses()
                for c in self.consequent.clauses()]  # fmt: skip

    def denied_clauses(self) -> list[tuple[Literal, ...]]:
        """The opposite: a being with the antecedent and without the consequent, or none such."""
        if self.kind == "all":
            return [*self.antecedent.clauses(), *self.consequent.denied().clauses()]
        return [(*a, *c) for a in self.antecedent.denied().clauses()
                for c in self.consequent.denied().clauses()] if self.kind == "some" else (
                self.consequent.denied().clauses())  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Words of an argument: predicates ("cousin of Ola"), and whether they are people."""

    predicates: tuple[str, ...]
    people: bool
    name: str
    """An individual, for singular statements."""

    def noun(self, i: int, article: bool = True) -> str:
        """ "a cousin of Ola"."""
        text = self.predicates[i]
        if not article:
            return text
        return ("an " if text[0] in "aeiouAEIOU" else "a ") + text

    def literal(self, literal: Literal) -> str:
        """ "not a cousin of Ola"."""
        return ("" if literal[1] else "not ") + self.noun(literal[0])

    def being(self, literal: Literal) -> str:
        """ "not being a cousin of Ola"."""
        return ("" if literal[1] else "not ") + f"being {self.noun(literal[0])}"

    def parts(self, parts: Parts, rng: Random) -> str:
        """Two literals as a predicate: "a or b", "neither a nor b", "both a and b"."""
        # "a and not b" is clear where "not b and a" is not
        texts = [self.literal(x) for x in sorted(parts.literals, key=lambda x: not x[1])]
        if len(texts) == 1:
            return texts[0]
        signs = {positive for _, positive in parts.literals}
        nouns = [self.noun(i) for i, _ in parts.literals]
        if not parts.all_of:
            if signs == {False} and rng.random() < 0.3:
                return f"not both {nouns[0]} and {nouns[1]}"
            return " or ".join(texts)
        if signs == {False} and rng.random() < 0.7:
            return f"neither {nouns[0]} nor {nouns[1]}"
        return ("both " if rng.random() < 0.5 and signs == {True} else "") + " and ".join(texts)


def _universal(world: World, rng: Random, a: Parts, c: Parts) -> str:
    one = "body" if world.people else "thing"
    whoever = "whoever" if world.people else "whatever"
    that = "who" if world.people else "that"
    subject, predicate = world.parts(a, rng), world.parts(c, rng)
    ways = [
        f"{whoever} is {subject} is {predicate}",
        f"every{one} {that} is {subject} is {predicate}, too",
        f"every{'one' if world.people else 'thing'} {that} is {subject} is {predicate}",
    ]
    single = len(a.literals) == 1
    if single and len(c.literals) == 1:
        (i, yes), (j, so) = a.literals[0], c.literals[0]
        sufficient = f"{world.being((i, yes))} is sufficient for {world.being((j, so))}"
        necessary = f"{world.being((j, so))} is necessary for {world.being((i, yes))}"
        ways += [sufficient, sufficient]
        if so:
            ways += [necessary, f"to be {world.noun(j)} is necessary for {world.being((i, yes))}"]
        if yes and not so:
            ways += [f"no {world.noun(i, False)} is {world.noun(j)}"] * 3
        if not yes and so:
            ways += [f"no{one} is neither {world.noun(i)} nor {world.noun(j)}"] * 3
    if single and a.literals[0][1]:
        ways += [f"every {world.noun(a.literals[0][0], False)} is {predicate}"] * 3
        if len(c.literals) == 2 and not c.all_of and {p for _, p in c.literals} == {True}:
            either = " or ".join(world.noun(i) for i, _ in c.literals)
            ways.append(f"to be {either} is necessary for {world.being(a.literals[0])}")
        if len(c.literals) == 2 and c.all_of and {p for _, p in c.literals} == {False}:
            either = " or ".join(world.noun(i) for i, _ in c.literals)
            ways += [f"no {world.noun(a.literals[0][0], False)} is {either}"] * 2
    if len(a.literals) == 2 and a.all_of and a.literals[0][1]:
        head, rest = world.noun(a.literals[0][0], False), world.literal(a.literals[1])
        ways += [f"every {head} {that} is {rest} is {predicate}",
                 f"every {head} {that} is {rest} is also {predicate}"]  # fmt: skip
        if len(c.literals) == 1 and not c.literals[0][1]:
            ways += [f"no {head} {that} is {rest} is {world.noun(c.literals[0][0])}"] * 2
    if len(a.literals) == 2 and a.all_of and not a.literals[0][1] and not a.literals[1][1]:
        first = world.noun(a.literals[0][0])
        ways.append(f"{whoever} is none of this: {first} or {world.noun(a.literals[1][0], False)}, "
                    f"is {predicate}")  # fmt: skip
    return rng.choice(ways)


def render(world: World, statement: Statement, rng: Random) -> str:
    """Word a statement, without capital and full stop."""
    a, c = statement.antecedent, statement.consequent
    if statement.kind == "all":
        return _universal(world, rng, a, c)
    predicate = world.parts(c, rng)
    if statement.kind == "name":
        if len(c.literals) == 1 and not c.literals[0][1] and rng.random() < 0.3:
            return f"it is not the case that {world.name} is {world.noun(c.literals[0][0])}"
        return f"{world.name} is {predicate}"
    some, that = ("somebody", "who") if world.people else ("something", "that")
    head = world.noun(a.literals[0][0], False)
    ways = [f"some {head} is {predicate}"] * 3
    if len(c.literals) == 1 and c.literals[0][1]:
        both = f"{world.noun(a.literals[0][0])} and {predicate}"
        ways += [f"{some} is {both}", f"there is {some} {that} is {both}"]
    if len(c.literals) == 1 and not c.literals[0][1]:
        ways.append(f"not every {head} is {world.noun(c.literals[0][0])}")
    return rng.choice(ways)
