"""Reads arguments in BIG-Bench-Hard's wording (formal_fallacies) back into statements."""

import re
from collections.abc import Callable

from falcon_h1r.train.tasks.formal_statements import NOTHING, Literal, Parts, Statement

_OPENERS = (
    r"(?:first of all|first premise|first|second premise|second|third premise|third|"
    r"fourth premise|fourth|to begin with|to start with|to begin|next|moreover|plus|now|finally|"
    r"also|besides|furthermore|and)[,:] ?"
)
_CONCLUSIONS = (
    r"(?:therefore|in consequence|hence|consequently|thus|so, necessarily|it follows that|"
    r"we may conclude that|we may conclude|all this entails that|from this follows|"
    r"from all this follows|this implies that|as a result)[,:]? ?"
)
INTRODUCTION = (
    r"(?:argument pertains to this question|clarify some such relations|valid argument): "
)


class Reader:
    """Numbers the predicates in the order in which they first appear."""

    def __init__(self) -> None:
        self.predicates: list[str] = []
        self.name: str | None = None
        self.sentences: list[str] = []
        """The sentences read, as the text has them, without full stop."""

    def number(self, noun: str) -> int:
        """The number of a predicate, new or known."""
        noun = re.sub(r"^(?:an? |also )+", "", noun.strip().rstrip(","))
        if noun not in self.predicates:
            self.predicates.append(noun)
        return self.predicates.index(noun)

    def literal(self, text: str) -> Literal:
        """ "not a cousin of Ola"."""
        text = re.sub(r"^(?:being |to be |also )", "", text.strip())
        positive = not text.startswith("not ")
        text = text.removeprefix("not ").removeprefix("being ")
        return self.number(text), positive

    def parts(self, text: str) -> Parts:
        """One or two literals with "and", "or", "both", "neither"."""
        text = text.strip().removesuffix(",").removesuffix(", too").strip()
        text = text.removeprefix("also ").removeprefix("being ").removeprefix("to be ")
        if text.startswith(("neither ", "none of this: ")):
            text = text.removeprefix("neither ").removeprefix("none of this: ")
            either = re.split(r" nor | or ", text)
            return Parts(literals=tuple((self.number(t), False) for t in either))
        if text.startswith("not both "):
            either = re.split(r" and (?=an? )", text.removeprefix("not both "))
            literals = tuple((self.number(t), False) for t in either)
            return Parts(literals=literals, all_of=False)
        ors = re.split(r" or (?=not |an? )", text)
        if len(ors) > 1:
            return Parts(literals=tuple(self.literal(t) for t in ors), all_of=False)
        ands = re.split(r" and (?=not |an? )", text.removeprefix("both "))
        return Parts(literals=tuple(self.literal(t) for t in ands))

    def all(self, a: Parts, c: Parts) -> Statement:
        """A universal statement."""
        return Statement(kind="all", antecedent=a, consequent=c)

    def _necessary(self, match: re.Match[str]) -> Statement:
        first, second = self.parts(match[1]), self.parts(match[3])
        if match[2] == "necessary":  # in the order of the text: without the first no second
            return self.all(first.denied(), second.denied())
        return self.all(first, second)

    def _nobody(self, match: re.Match[str]) -> Statement:
        one, two = self.number(match[1]), self.number(match[2])
        return self.all(Parts(literals=((one, False),)), Parts(literals=((two, True),)))

    def _no_who(self, match: re.Match[str]) -> Statement:
        head, rest = (self.number(match[1]), True), self.literal(match[2])
        return self.all(Parts(literals=(head, rest)), self.parts(match[3]).denied())

    def _every_who(self, match: re.Match[str]) -> Statement:
        head, rest = (self.number(match[1]), True), self.literal(match[2])
        return self.all(Parts(literals=(head, rest)), self.parts(match[3]))

    def _no(self, match: re.Match[str]) -> Statement:
        head = Parts(literals=((self.number(match[1]), True),))
        return self.all(head, self.parts(match[2]).denied())

    def _whoever(self, match: re.Match[str]) -> Statement:
        return self.all(self.parts(match[1]), self.parts(match[2]))

    def _every(self, match: re.Match[str]) -> Statement:
        head = Parts(literals=((self.number(match[1]), True),))
        return self.all(head, self.parts(match[2]))

    def _somebody(self, match: re.Match[str]) -> Statement:
        parts = self.parts(match[1])
        return Statement(kind="some", antecedent=Parts(literals=parts.literals[:1]),
                         consequent=Parts(literals=parts.literals[1:]))  # fmt: skip

    def _some(self, match: re.Match[str]) -> Statement:
        head = Parts(literals=((self.number(match[1]), True),))
        return Statement(kind="some", antecedent=head, consequent=self.parts(match[2]))

    def _not_every(self, match: re.Match[str]) -> Statement:
        head = Parts(literals=((self.number(match[1]), True),))
        return Statement(kind="some", antecedent=head, consequent=self.parts(match[2]).denied())

    def _not_case(self, match: re.Match[str]) -> Statement:
        self.name = match[1]
        return Statement(kind="name", antecedent=NOTHING, consequent=self.parts(match[2]).denied())

    def _name(self, match: re.Match[str]) -> Statement:
        self.name = match[1]
        return Statement(kind="name", antecedent=NOTHING, consequent=self.parts(match[2]))

    def statement(self, text: str) -> Statement:
        """Read one sentence; ValueError for a wording of another kind."""
        patterns: tuple[tuple[str, Callable[[re.Match[str]], Statement]], ...] = (
            (r"((?:not )?(?:being|to be) .+) is (necessary|sufficient) for (.+)", self._necessary),
            (r"no(?:body|thing|one| one) is neither (.+) nor (.+)", self._nobody),
            (r"no (.+?) (?:who|that) is (.+?) is (.+)", self._no_who),
            (r"no (.+?) is (.+)", self._no),
            (r"(?:whoever|whatever|every(?:one|body|thing) (?:who|that)) is (.+?) is (.+)",
             self._whoever),
            (r"every (.+?) (?:who|that) is (.+?) is (.+)", self._every_who),
            (r"every (.+?) is (.+)", self._every),
            (r"(?:there is )?some(?:body|one|thing) (?:(?:who|that) )?is (.+)", self._somebody),
            (r"some (.+?) is (.+)", self._some),
            (r"not every (.+?) is (.+)", self._not_every),
            (r"it is not the case that (.+?) is (.+)", self._not_case),
            (r"(.+?) is (.+)", self._name),
        )  # fmt: skip
        if re.match(r"(?:Being|Not|To) ", text):
            text = text[0].lower() + text[1:]
        for pattern, build in patterns:
            match = re.fullmatch(pattern, text, re.IGNORECASE)
            if match:
                return build(match)
        raise ValueError(f"no such statement: {text!r}")


def read_argument(text: str) -> tuple[Reader, list[Statement], Statement]:
    """Premises and conclusion of a problem's text; ValueError for a wording of another kind."""
    quoted = text.split("\nIs the argument")[0].strip().strip('"')
    body = re.split(INTRODUCTION, quoted, maxsplit=1, flags=re.IGNORECASE)[-1]
    reader = Reader()
    statements: list[Statement] = []
    for sentence in re.split(r"(?<=\.) (?=[A-Z])", body.strip()):
        reader.sentences.append(sentence.strip().rstrip("."))
        words = re.sub(rf"^(?:{_OPENERS}|{_CONCLUSIONS})", "", reader.sentences[-1],
                       flags=re.IGNORECASE)  # fmt: skip
        statements.append(reader.statement(words.strip()))
    if len(statements) < 2:
        raise ValueError(f"no argument in {text!r}")
    return reader, statements[:-1], statements[-1]
