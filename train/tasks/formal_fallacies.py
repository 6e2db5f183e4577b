"""Arguments in BIG-Bench-Hard's wording (formal_fallacies): do the premises entail the conclusion?

The chain speaks of one being. It copies each sentence with a letter behind every predicate (the
next letter for a new one) and writes it as disjunctions with an address ("a-A+B": not A, or B) or
as facts ("A1C0": A holds, C does not). The conclusion is denied after "but", and the facts are
gathered. Then the disjunctions are gone through, each with what is known of its letters; one with
a single part left, the others being false, gives a new fact and a new start. A disjunction with
nothing left ("!") ends a valid argument; if all were gone through ("open"), it is invalid:

    - First, every cousin of Ola=A is a fan of FC Pim=B:a-A+B
    - Hence, whoever is not a fan of FC Pim=B is not a cousin of Ola=A:+B-A
    but:B0,A1
    B0A1
    a-A1+B0:!
"""

import re
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.choices import LETTERS
from falcon_h1r.train.tasks.formal_reading import read_argument
from falcon_h1r.train.tasks.formal_statements import (
    NOTHING,
    Literal,
    Parts,
    Statement,
    World,
    render,
)
from falcon_h1r.train.tasks.formal_steps import letters, think
from falcon_h1r.train.tasks.names import draw_names, made_up_name
from falcon_h1r.train.tasks.things import EDIBLE, THINGS

_KIN = (
    "ancestor aunt brother classmate close_friend coach colleague cousin daughter daughter-in-law "
    "descendant fellow father friend grandfather granddaughter grandson great-grandfather "
    "great-grandson half-brother half-sister housemate husband mentor mother neighbor nephew niece "
    "partner pupil roommate schoolmate sister son stepbrother stepsister student teacher tutor "
    "uncle wife workmate"
)
_FANS = (
    "admirer backer critic devotee enemy expert ex-fan ex-supporter fan follower friend guest "
    "loyalist member opponent rival sponsor supporter"
)
_USERS = "buyer consumer owner purchaser user"
_HOW_OFTEN = "frequent infrequent loyal occasional rare regular"
_INTRODUCTIONS = {
    "kin": ("It is not always easy to see who is related to whom -- and in which ways. The "
            "following argument pertains to this question:",
            "Some families are large, and their members many. The following argument seeks to "
            "clarify some such relations:"),
    "fans": ("Some people admire several clubs, others only one. But who is a fan of whom? The "
             "following argument pertains to this question:",
             "It is sometimes difficult to keep track of who admires whom. The following argument "
             "seeks to clarify some such relations:"),
    "parts": ("It is not always easy to see what a product is made of. The following argument "
              "pertains to this question:",),
    "users": ("Research asks whether those who use one product also use another. The following "
              "argument seeks to clarify some such relations:",),
}  # fmt: skip
_VALID = "Here comes a perfectly valid argument:"
_QUESTION = (
    "Is the argument, given the explicitly stated premises, deductively valid or invalid?\n"
    "Options:\n- valid \n- invalid"
)
_STARTS = (
    ("First,", "Second,", "Third,", "Fourth,"), ("First of all,", "Next,", "Moreover,", "Finally,"),
    ("To begin with,", "Moreover,", "Plus,", "Finally,"),
    ("To start with,", "Second,", "Now,", "Finally,"),
    ("First premise:", "Second premise:", "Third premise:", "Fourth premise:"), ("", "", "", ""),
)  # fmt: skip
_ENDS = (
    "Therefore,", "Hence,", "In consequence,", "So, necessarily,", "We may conclude:",
    "We may conclude that", "It follows that", "All this entails that", "From this follows:",
    "Consequently,",
)  # fmt: skip


def _world(rng: Random, count: int) -> tuple[str, World]:
    theme = rng.choice(("kin", "kin", "fans", "fans", "parts", "users"))
    names = draw_names(rng, count + 1)
    predicates: list[str] = []
    for i in range(count):
        if theme == "kin":
            predicates.append(f"{rng.choice(_KIN.split()).replace('_', ' ')} of {names[i]}")
            continue
        brand = made_up_name(rng)
        if rng.random() < 0.5:
            brand = f"{rng.choice(('FC', 'AS', 'New', 'Royal', 'Old', 'Real'))} {brand}"
        if theme == "fans":
            role = rng.choice(_FANS.split())
            predicates.append(f"{role} {'to' if role == 'opponent' else 'of'} {brand}")
            continue
        product = f"{rng.choice((made_up_name(rng), brand))} {rng.choice(THINGS).title()}"
        if theme == "parts":
            product = product.upper() if rng.random() < 0.2 else product
            predicates.append(f"ingredient of {product}")
        else:
            who = f"{rng.choice(_HOW_OFTEN.split())} {rng.choice(_USERS.split())}"
            predicates.append(f"{who} of {brand} {rng.choice(('soap', 'shampoo', 'tea'))}")
    name = rng.choice(EDIBLE).capitalize() if theme == "parts" else names[count]
    if len(set(predicates)) < count:
        return _world(rng, count)
    return theme, World(predicates=tuple(predicates), people=theme != "parts", name=name)


def _all(a: tuple[Literal, ...], c: tuple[Literal, ...], *, either: bool = False) -> Statement:
    return Statement(kind="all", antecedent=Parts(literals=a),
                     consequent=Parts(literals=c, all_of=not either))  # fmt: skip


def _some(a: Literal, c: Literal) -> Statement:
    return Statement(kind="some", antecedent=Parts(literals=(a,)), consequent=Parts(literals=(c,)))


def _named(c: Literal) -> Statement:
    return Statement(kind="name", antecedent=NOTHING, consequent=Parts(literals=(c,)))


def _not(x: Literal) -> Literal:
    return x[0], not x[1]


Argument = tuple[list[Statement], Statement]


def _two(rng: Random, p: Literal, q: Literal) -> Argument:
    """Arguments about two predicates."""
    return rng.choice((
        ([_all((p,), (q,))], _all((_not(q),), (_not(p),))),
        ([_all((p,), (q,))], _all((p,), (q,))),
        ([_named(p), _all((p,), (q,))], _named(q)),
        ([_named(_not(q)), _all((p,), (q,))], _named(_not(p))),
    ))  # fmt: skip


def _three(rng: Random, p: Literal, q: Literal, r: Literal) -> Argument:
    """Arguments about three predicates; the first of a "some" is always a positive one."""
    a = (p[0], True)
    return rng.choice((
        ([_all((p,), (q,)), _all((q,), (r,))], _all((p,), (r,))),
        ([_all((p,), (q,)), _all((q,), (r,))], _all((_not(r),), (_not(p),))),
        ([_all((p,), (q, r), either=True), _all((p,), (_not(q),))], _all((p,), (r,))),
        ([_all((p, q), (r,)), _all((p,), (q,))], _all((p,), (r,))),
        ([_some(a, q), _all((q,), (r,))], _some(a, r)),
        ([_all((a,), (q,)), _some((r[0], True), _not(q))], _some((r[0], True), _not(a))),
        ([_named(p), _all((p,), (q, r))], _named(q)),
        ([_named(p), _named(q), _all((p, q), (r,))], _named(r)),
        ([_named(q), _all((p,), (_not(q), _not(r)), either=True), _named(r)], _named(_not(p))),
        ([_all((p, q), (r,))], _all((p, _not(r)), (_not(q),))),
        ([_all((p,), (q, r), either=True)], _all((p, _not(q)), (r,))),
    ))  # fmt: skip


def _four(rng: Random, p: Literal, q: Literal, r: Literal, s: Literal) -> Argument:
    """Arguments about four predicates."""
    a = (p[0], True)
    return rng.choice((
        ([_all((p,), (q,)), _all((q,), (r,)), _all((r,), (s,))], _all((p,), (s,))),
        ([_all((p,), (q, r), either=True), _all((q,), (s,)), _all((r,), (s,))], _all((p,), (s,))),
        ([_all((p, q), (r,)), _all((r,), (s,))], _all((p, q), (s,))),
        ([_all((p,), (q,)), _all((q,), (r, s), either=True)], _all((p,), (r, s), either=True)),
        ([_some(a, q), _all((q,), (r, s)), ], _some(a, r)),
        ([_some(a, q), _all((r, s), (_not(q),))],
         Statement(kind="some", antecedent=Parts(literals=(a,)),
                   consequent=Parts(literals=(_not(r), _not(s)), all_of=False))),
        ([_all((_not(p),), (q,)), _all((r,), (_not(s), _not(p)), either=True),
          _all((_not(s),), (q,))], _all((r,), (q,))),
        ([_all((p, q), (r, s), either=True), _all((p,), (_not(r),))], _all((p, q), (s,))),
    ))  # fmt: skip


def _valid_argument(rng: Random, count: int) -> Argument:
    literals = [(i, rng.random() < 0.7) for i in range(count)]
    rng.shuffle(literals)
    if count == 2:
        return _two(rng, *literals)
    return _three(rng, *literals) if count == 3 else _four(rng, *literals)


def _flip(rng: Random, parts: Parts) -> Parts:
    k = rng.randrange(len(parts.literals))
    changed = tuple(_not(x) if i == k else x for i, x in enumerate(parts.literals))
    return Parts(literals=changed, all_of=parts.all_of)


def _spoil(rng: Random, statement: Statement) -> Statement:
    """Turn an implication round, or deny one of its parts."""
    a, c = statement.antecedent, statement.consequent
    if statement.kind == "all":
        kind = rng.random()
        if kind < 0.5 and len(a.literals) == len(c.literals) == 1:
            return Statement(kind="all", antecedent=c, consequent=a)
        if kind < 0.7:
            return Statement(kind="all", antecedent=_flip(rng, a), consequent=c)
    return Statement(kind=statement.kind, antecedent=a, consequent=_flip(rng, c))


def is_valid(premises: list[Statement], conclusion: Statement, count: int) -> bool:
    """Whether no being (of all 2^count) fits the premises and not the conclusion.

    One being is enough: at most one premise is existential or singular, or all are of one name.
    """
    for facts in range(1 << count):
        if all(p.holds(facts) for p in premises) and not conclusion.holds(facts):
            return False
    return True


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def generate(rng: Random, level: int) -> Problem:
    """Two predicates (1), two to four (2), three or four (3); half of the arguments are valid."""
    count = (2, rng.choice((2, 3, 3, 3, 4)), rng.choice((3, 4, 4)))[level - 1]
    wanted = rng.random() < 0.5
    while True:
        premises, conclusion = _valid_argument(rng, count)
        rng.shuffle(premises)
        for _ in range(0 if wanted else rng.choice((1, 1, 2))):
            k = rng.randrange(len(premises) + 1)
            if k == len(premises):
                conclusion = _spoil(rng, conclusion)
            else:
                premises[k] = _spoil(rng, premises[k])
        consistent = any(all(p.holds(f) for p in premises) for f in range(1 << count))
        if consistent and is_valid(premises, conclusion, count) == wanted:
            break
    theme, world = _world(rng, count)
    introduction = _VALID if rng.random() < 0.4 else rng.choice(_INTRODUCTIONS[theme])
    starts, end = rng.choice(_STARTS), rng.choice(_ENDS)
    sentences = []
    for start, premise in zip(starts, premises, strict=False):
        said = render(world, premise, rng)
        sentences.append(f"{start} {said}." if start.endswith(",") else
                         f"{start} {_capital(said)}.".strip())  # fmt: skip
    said = render(world, conclusion, rng)
    sentences.append(f"{end} {_capital(said) if end.endswith(':') else said}.")
    text = f'"{introduction} {" ".join(sentences)}"\n{_QUESTION}'
    reader, read_premises, read_conclusion = read_argument(text)
    thought = think(reader.sentences, reader.predicates, [*read_premises, read_conclusion])
    if thought[-1].endswith("!") != wanted:
        return generate(rng, level)  # a proof by cases: beyond what the chain can draw
    form = " ".join(
        letters(clause) for s in (*read_premises, read_conclusion) for clause in s.clauses()
    )
    kinds = "".join(s.kind[0] for s in (*read_premises, read_conclusion))
    return Problem(
        problem=text,
        thought="\n".join(thought),
        answer="valid" if wanted else "invalid",
        family="formal_fallacies",
        level=level,
        keys=(f"fallacies {kinds} {form} {' '.join(reader.predicates)}",),
    )


def solve(text: str) -> str:
    """Try all beings against the text's premises and conclusion."""
    reader, premises, conclusion = read_argument(text)
    return "valid" if is_valid(premises, conclusion, len(reader.predicates)) else "invalid"


def _read_clauses(text: str) -> list[Parts]:
    """The disjunctions and facts of "a-A+B,b+C-D" or "A1B0"; without known values."""
    found = []
    for word in re.split(r"[ ,]", text):
        if "+" in word or "-" in word:
            literals = re.findall(r"([+-])([A-Z])", word)
            found.append(Parts(literals=tuple((LETTERS.index(x), s == "+") for s, x in literals),
                               all_of=False))  # fmt: skip
            continue
        facts = re.findall(r"([A-Z])([01])", word)
        found.append(Parts(literals=tuple((LETTERS.index(x), v == "1") for x, v in facts)))
    return found


def verify(problem: Problem) -> bool:
    """Decide by truth tables; premises and drawn lines must follow, the last line must fit."""
    reader, premises, conclusion = read_argument(problem.problem)
    if problem.answer != solve(problem.problem):
        return False
    lines = problem.thought.split("\n")
    if len(lines) < len(premises) + 3 or lines[-1].endswith("!") != (problem.answer == "valid"):
        return False
    beings = range(1 << len(reader.predicates))
    fit = [f for f in beings if all(p.holds(f) for p in premises)]
    for k, line in enumerate(lines):
        if k == len(premises):  # the claim itself
            if any(all(p.holds(f) for p in _read_clauses(line.rpartition(":")[2]))
                   != conclusion.holds(f) for f in beings):  # fmt: skip
                return False
            fit = [f for f in fit if not conclusion.holds(f)]
            continue
        text = line.rpartition(":")[2] if k < len(premises) else line.replace(":", " ")
        if not all(p.holds(f) for p in _read_clauses(text) for f in fit):
            return False
    return lines == think(reader.sentences, reader.predicates, [*premises, conclusion])
