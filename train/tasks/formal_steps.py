"""The chain of an argument: sentences in letters, then what they leave possible for one being.

A clause is a disjunction of literals ("-A+B": not A, or B). What is known of the being is written
letter by letter, "A1C0": A holds, C does not.
"""

import re

from falcon_h1r.train.tasks.choices import LETTERS
from falcon_h1r.train.tasks.formal_statements import Literal, Statement

Clause = tuple[Literal, ...]
_ADDRESSES = "abcdefghijklmnop"


def letters(clause: Clause) -> str:
    """ "-A+B"."""
    return "".join(("+" if positive else "-") + LETTERS[i] for i, positive in clause)


def _facts(known: dict[int, bool]) -> str:
    """ "A1C0"."""
    return "".join(f"{LETTERS[i]}{int(value)}" for i, value in known.items())


def _unique(clauses: list[Clause]) -> list[Clause]:
    return [tuple(dict.fromkeys(clause)) for clause in clauses]


def quote(sentence: str, predicates: list[str]) -> str:
    """The sentence with every predicate's letter behind it."""
    longest = sorted(predicates, key=len, reverse=True)
    pattern = "|".join(re.escape(p) for p in longest)
    return re.sub(
        rf"(?<![\w-])(?:{pattern})(?![\w-])",
        lambda match: f"{match[0]}={LETTERS[predicates.index(match[0])]}",
        sentence,
    )


class _Chain:
    """Lines so far, clauses of two or more literals by their address, and what is known."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.clauses: list[Clause] = []
        self.known: dict[int, bool] = {}
        self.against: Literal | None = None
        """A literal that was stated after its opposite."""

    def say(self, clauses: list[Clause]) -> str:
        """Take up clauses: "a-A+B" for one of several literals, "A1" for a single one."""
        parts = []
        for clause in clauses:
            if len(clause) > 1:
                parts.append(_ADDRESSES[len(self.clauses)] + letters(clause))
                self.clauses.append(clause)
                continue
            parts.append(_facts(dict(clause)))
            i, positive = clause[0]
            if self.known.setdefault(i, positive) != positive:
                self.against = clause[0]
        return ",".join(parts)

    def draw(self) -> bool:
        """Look at the clauses from the first on, again after each new fact; True: impossible."""
        k = 0
        while k < len(self.clauses):
            clause = self.clauses[k]
            signs = {None: "_", False: "0", True: "1"}
            shown = "".join(letters((x,)) + signs[self.known.get(x[0])] for x in clause)
            line = f"{_ADDRESSES[k]}{shown}"
            left = [x for x in clause if x[0] not in self.known]
            satisfied = any(self.known.get(i) == positive for i, positive in clause)
            k += 1
            if not satisfied and not left:
                self.lines.append(f"{line}:!")
                return True
            if not satisfied and len(left) == 1:
                self.known[left[0][0]] = left[0][1]
                line += f":{_facts(self.known)}"
                k = 0
            self.lines.append(line)
        return False


def think(sentences: list[str], predicates: list[str], statements: list[Statement]) -> list[str]:
    """The chain of an argument (the last statement is the conclusion): it ends in "!" if valid."""
    chain = _Chain()
    for sentence, premise in zip(sentences[:-1], statements[:-1], strict=True):
        said = chain.say(_unique(premise.clauses()))
        chain.lines.append(f"- {quote(sentence, predicates)}:{said}")
    conclusion = statements[-1]
    claim = ",".join(map(letters, _unique(conclusion.clauses())))
    chain.lines.append(f"- {quote(sentences[-1], predicates)}:{claim}")
    chain.lines.append(f"but:{chain.say(_unique(conclusion.denied_clauses()))}")
    if chain.against is not None:
        chain.lines.append(f"{_facts(chain.known)}{_facts(dict([chain.against]))}!")
        return chain.lines
    chain.lines.append(_facts(chain.known) or "_")
    if not chain.draw():
        chain.lines.append("open")
    return chain.lines
