"""Questions about a small table in BIG-Bench-Hard's wording (penguins_in_a_table).

The chain walks down the rows that are asked about, one line a row, and carries along what it
needs: the best value so far, a count, or a sum (reversed digits, as in `steps`).

    - Tovan 7:7        - Tovan 7 no 0         - Tovan 7:p7
    - Lysk 5:7         - Lysk 11 yes 1        - Lysk 5:p7+5=p21
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.choices import LETTERS, letter_of, read_options, render_options
from falcon_h1r.train.tasks.names import draw_names
from falcon_h1r.train.tasks.steps import Tally, reverse


class Row(NamedTuple):
    """An animal."""

    name: str
    age: int
    height: int
    """Centimetres."""
    weight: int
    """Kilograms."""

    def at(self, column: int) -> int:
        """The number in column 1 (age), 2 (height) or 3 (weight)."""
        return (self.age, self.height, self.weight)[column - 1]


_COLUMNS = {"age": 1, "height": 2, "weight": 3}
_HEADER = "name, age, height (cm), weight (kg)"
_KINDS = ("seals", "otters", "parrots", "llamas", "camels", "giraffes", "bears", "zebras")


@dataclass(kw_only=True, slots=True)
class Tables:
    """The penguins in order, those among them that count, and the other animals."""

    listed: list[Row]
    penguins: list[Row]
    others: list[Row]
    kind: str
    animal: str


def _rows(rng: Random, names: list[str], high: bool) -> list[Row]:
    ages = rng.sample(range(2, 18), len(names))
    if high:
        heights = rng.sample(range(150, 600, 10), len(names))
        weights = rng.sample(range(200, 900, 10), len(names))
    else:
        heights = rng.sample(range(30, 125, rng.choice((1, 5, 5))), len(names))
        weights = [rng.randint(6, 40) for _ in names]
    return [Row(*cells) for cells in zip(names, ages, heights, weights, strict=True)]


def _line(row: Row) -> str:
    return f"{row.name}, {row[1]}, {row[2]}, {row[3]}"


def _draw_tables(rng: Random, level: int) -> tuple[str, Tables, list[str]]:
    """The text of the tables, their content, and five penguin names for options."""
    names = draw_names(rng, 9)
    while len({n[0] for n in names[:5]}) < 5 or len({n[0] for n in names[5:]}) < 4:
        names = draw_names(rng, 9)
    rows = _rows(rng, names[:5], high=False)
    first, last = rows[:4], rows[4]
    animal = "penguin" if rng.random() < 0.85 else rng.choice(("pigeon", "heron", "beaver"))
    a, b, c = rng.sample(first, 3)
    text = (
        "Here is a table where the first line is a header and each subsequent line is a "
        f"{animal}:  {_HEADER} {' '.join(map(_line, first))}  For example: the age of {a[0]} is "
        f"{a[1]}, the weight of {b[0]} is {b[3]} kg, the height of {c[0]} is {c[2]} cm.  "
    )
    tables = Tables(listed=list(first), penguins=list(first), others=[], kind="", animal=animal)
    if rng.random() < (0.3, 0.5, 0.6)[level - 1]:
        text += f"We now add a {animal} to the table:\n{_line(last)}\n"
        tables.listed.append(last)
        tables.penguins.append(last)
    if level > 1 and rng.random() < 0.3:
        gone = rng.choice(tables.listed[:4])
        text += f"We then delete the {animal} named {gone[0]} from the table.\n"
        tables.penguins.remove(gone)
    elif level > 1 and rng.random() < (0.0, 0.45, 0.9)[level - 1]:
        tables.kind = rng.choice(_KINDS) if rng.random() < 0.7 else "giraffes"
        tables.others = _rows(rng, names[5:], high=True)
        text += f"And here is a similar table, but listing {tables.kind}:\n{_HEADER}\n"
        text += "".join(f"{_line(row)}\n" for row in tables.others)
    return text, tables, names[:5]


Answer = tuple[str, list[str], str, list[str]]
"""Question, lines of the thought, value of the answer, options."""


def _best(lines: list[str], rows: list[Row], column: int, largest: bool) -> Row:
    """Carry the largest or smallest value down the rows."""
    best = rows[0]
    for row in rows:
        if (row.at(column) > best.at(column)) if largest else (row.at(column) < best.at(column)):
            best = row
        lines.append(f"- {row.name} {row.at(column)}:{best.at(column)}")
    return best


def _count(lines: list[str], rows: list[Row], holds: Callable[[Row], str], total: int = 0) -> int:
    """Write each row with the yes or no of its conditions and the count so far."""
    for row in rows:
        shown = holds(row)
        total += "no" not in shown.split()
        lines.append(f"- {row.name} {shown} {total}")
    return total


def _numbers(rng: Random, value: int) -> list[str]:
    """Five ascending options around a value."""
    if value <= 5 and rng.random() < 0.9:
        return ["1", "2", "3", "4", "5"]
    low = value - rng.randint(0, min(4, value - 1))
    return [str(low + i) for i in range(5)]


def _extreme(rng: Random, tables: Tables, rows: list[Row], noun: str, names: list[str]) -> Answer:
    column, largest, word = rng.choice((
        (1, True, "oldest"), (1, False, "youngest"), (1, False, "younest"), (2, True, "tallest"),
        (2, False, "shortest"), (3, True, "heaviest"), (3, False, "lightest"),
    ))  # fmt: skip
    if len({row.at(column) for row in rows}) < len(rows):
        return _extreme(rng, tables, rows, noun, names)
    lines: list[str] = []
    best = _best(lines, rows, column, largest)
    lines.append(f"{best.at(column)} {best.name}")
    if rng.random() < 0.25:
        other = rng.choice([c for c in _COLUMNS if _COLUMNS[c] != column])
        value = best.at(_COLUMNS[other])
        lines.append(f"{other} {value}")
        found = {row.at(_COLUMNS[other]) for row in rows}
        values = sorted(found | {value + 2, value + 5, value + 9})
        options = [str(v) for v in values if v != value][:4]
        options.insert(rng.randint(0, 4), str(value))
        return f"What is the {other} of the {word} {noun}?", lines, str(value), options
    return f"Which is the {word} {noun}?", lines, best.name, names


def _alphabet(rng: Random, tables: Tables, rows: list[Row], noun: str, names: list[str]) -> Answer:
    last = rng.random() < 0.6
    best = rows[0][0]
    lines = []
    for row in rows:
        best = max(best, row.name) if last else min(best, row.name)
        lines.append(f"- {row.name} {row.name[0]}:{best[0]}")
    lines.append(f"{best[0]} {best}")
    end = "last" if last else "first"
    question = f"What is the name of the {end} {noun} sorted by alphabetic order?"
    return question, lines, best, names


def _threshold(rng: Random, rows: list[Row], column: int) -> tuple[int, bool, str]:
    """A threshold near the rows' values, whether more is asked, and the words."""
    limit = rng.choice(rows).at(column) + rng.choice((0, 0, -1, 1))
    more = rng.random() < 0.6
    compared = "more" if more else "less"
    words = {
        1: f"are {compared} than {limit} years old",
        2: f"are {compared} than {limit} cm tall",
        3: f"weight {compared} than {limit} kg",
    }[column]
    return limit, more, words


def _how_many(rng: Random, tables: Tables, rows: list[Row], noun: str, names: list[str]) -> Answer:
    column = rng.choice((1, 1, 1, 2, 3))
    limit, more, words = _threshold(rng, rows, column)
    second = rng.random() < 0.25
    other = rng.choice([c for c in (1, 2, 3) if c != column])
    limit2, more2, words2 = _threshold(rng, rows, other)

    def holds(row: Row) -> str:
        yes = row.at(column) > limit if more else row.at(column) < limit
        shown = f"{row.at(column)} {'yes' if yes else 'no'}"
        if second and yes:
            yes = row.at(other) > limit2 if more2 else row.at(other) < limit2
            shown += f" {row.at(other)} {'yes' if yes else 'no'}"
        return shown

    lines: list[str] = []
    plural = noun + "s" if rows[0] in tables.listed else tables.kind
    counted = rows
    if tables.others and column == 1 and not second and rng.random() < 0.35:
        counted, plural = [*tables.penguins, *tables.others], "animals"
    total = _count(lines, counted, holds)
    if total == 0:
        return _how_many(rng, tables, rows, noun, names)
    question = f"How many {plural} {words}{' and ' + words2 if second else ''}?"
    return question, lines, str(total), _numbers(rng, total)


def _listed(rng: Random, tables: Tables, rows: list[Row], noun: str, names: list[str]) -> Answer:
    """How many rows there are, of one table or of all."""
    where = "tables" if tables.others else "table"
    plural = noun + "s" if rows[0] in tables.listed else tables.kind
    question = f"How many {plural} are there in the {where}?"
    if rng.random() < 0.4:
        rows = [*tables.penguins, *tables.others]
        question = f"How many animals are listed in the {where}?"
    lines = [f"- {row.name} {i}" for i, row in enumerate(rows, 1)]
    return question, lines, str(len(rows)), _numbers(rng, len(rows))


def _compared(rng: Random, tables: Tables, rows: list[Row], noun: str, names: list[str]) -> Answer:
    """The only one that is older (taller, heavier, ...) than a named one."""
    column, more, word = rng.choice((
        (1, True, "older"), (1, False, "younger"), (2, True, "taller"), (2, False, "shorter"),
        (3, True, "heavier"), (3, False, "lighter"),
    ))  # fmt: skip
    ordered = sorted(rows, key=lambda row: row.at(column), reverse=more)
    if len({row.at(column) for row in rows}) < len(rows):
        return _compared(rng, tables, rows, noun, names)
    best, second = ordered[0], ordered[1]
    lines = [f"- {second.name} {second.at(column)}"]
    for row in rows:
        if row is not second:
            yes = row is best
            lines.append(f"- {row.name} {row.at(column)} {'yes' if yes else 'no'}")
            if yes:
                break
    return f"Which {noun} is {word} than {second.name}?", lines, best.name, names


def _lookup(rng: Random, tables: Tables, rows: list[Row], noun: str, names: list[str]) -> Answer:
    column = rng.choice(list(_COLUMNS))
    row = rng.choice(rows)
    value = row.at(_COLUMNS[column])
    if rng.random() < 0.5:
        values = [str(r.at(_COLUMNS[column])) for r in rows]
        values += [str(max(int(v) for v in values) + 1 + i) for i in range(5 - len(values))]
        if len(set(values)) == len(values):
            question = f"What is the {column} of {row.name}?"
            return question, [f"- {row.name} {value}"], str(value), values
    column = rng.choice(("age", "height"))
    value = row.at(_COLUMNS[column])
    words = f"is {value} cm tall" if column == "height" else f"is {value} years old"
    question = f"What is the name of the {noun} that {words}?"
    return question, [f"{value} {row.name}"], row.name, names


def _total(rng: Random, tables: Tables, rows: list[Row], noun: str, names: list[str]) -> Answer:
    """Sum or average of a column; reversed digits."""
    column = rng.choice(list(_COLUMNS))
    values = [row.at(_COLUMNS[column]) for row in rows]
    lines: list[str] = []
    tally = Tally(lines)
    for row, value in zip(rows, values, strict=True):
        tally.add((1, value))
        lines[-1] = f"- {row.name} {value}:{lines[-1].split(':')[1]}"
    total = sum(values)
    plural = noun + "s" if rows[0] in tables.listed else tables.kind
    question = f"What is the cumulated {column} of the {plural}?"
    step = rng.choice((1, 2, 3, 5, 10, 12))
    if total % len(rows) == 0 and rng.random() < 0.9:
        question = f"What is the average {column} of the {plural}?"
        lines.append(f"{reverse(total)}/{len(rows)}={reverse(total // len(rows))}")
        total, step = total // len(rows), rng.choice((1, 2, 5))
    below = rng.randint(0, min(4, (total - 1) // step))
    return question, lines, str(total), [str(total + step * (i - below)) for i in range(5)]


_QUESTIONS = ((_extreme, 3), (_alphabet, 2), (_how_many, 4), (_listed, 2), (_compared, 2),
              (_lookup, 3), (_total, 2))  # fmt: skip


def generate(rng: Random, level: int) -> Problem:
    """One table with an addition at times (level 2: a deletion or a second table; 3: mostly)."""
    text, tables, names = _draw_tables(rng, level)
    rows, noun = tables.penguins, tables.animal
    if tables.others and rng.random() < 0.5:
        rows, noun = tables.others, tables.kind[:-1]
        names = [*(row.name for row in tables.others), names[0]]
    weights = [w for _, w in _QUESTIONS]
    ask = rng.choices([q for q, _ in _QUESTIONS], weights)[0]
    question, lines, value, options = ask(rng, tables, rows, noun, names)
    if rng.random() < 0.2 and options is not names:
        rng.shuffle(options)
    elif options is names and rng.random() < 0.3:
        options = rng.sample(names, len(names))
    letter = letter_of(options, value)
    lines.append(f"- {value} {letter}")
    content = " ".join(_line(row) for row in [*tables.penguins, *tables.others])
    return Problem(
        problem=f"{text}{question}\n{render_options(options)}",
        thought="\n".join(lines),
        answer=f"({letter})",
        family="penguins_in_a_table",
        level=level,
        keys=(f"penguins {content} {question}",),
    )


def _read_tables(text: str) -> Tables:
    """The tables of the text after its additions and deletions."""
    animal = re.search(r"subsequent line is an? (\w+):", text)
    assert animal is not None
    kind = re.search(r"similar table, but listing (\w+):", text)
    first, _, second = text.partition("similar table, but listing")

    def rows(part: str) -> list[Row]:
        found = re.findall(r"(\w+), (\d+), (\d+), (\d+)", part)
        return [Row(name, int(a), int(h), int(w)) for name, a, h, w in found]

    listed = rows(first)
    gone = re.findall(r"delete the \w+ named (\w+) ", text)
    left = [row for row in listed if row.name not in gone]
    return Tables(listed=listed, penguins=left, others=rows(second),
                  kind=kind[1] if kind else "", animal=animal[1])  # fmt: skip


_WORDS = {
    "oldest": (1, 1), "older": (1, 1), "youngest": (1, -1), "younest": (1, -1), "younger": (1, -1),
    "tallest": (2, 1), "taller": (2, 1), "shortest": (2, -1), "shorter": (2, -1),
    "heaviest": (3, 1), "heavier": (3, 1), "lightest": (3, -1), "lighter": (3, -1),
}  # fmt: skip


_CONDITION = re.compile(r"(more|less) than (\d+) (years|cm|kg)")


def _read_question(text: str) -> tuple[Tables, str, list[Row]]:
    """The tables, the question, and the rows it is about."""
    tables = _read_tables(text)
    question = text.split("\nOptions:")[0].split("\n")[-1].split("  ")[-1]
    rows = tables.penguins
    if "animals" in question:
        rows = rows + tables.others
    elif tables.kind and re.search(rf"\b{tables.kind[:-1]}", question):
        rows = tables.others
    return tables, question, rows


def _meets(row: Row, condition: tuple[str, str, str]) -> tuple[int, bool]:
    """The number a condition is about, and whether it is met."""
    number = row.at({"years": 1, "cm": 2, "kg": 3}[condition[2]])
    limit = int(condition[1])
    return number, number > limit if condition[0] == "more" else number < limit


def solve(text: str) -> str:
    """Answer the question of the text; ValueError for a question of another kind."""
    tables, question, rows = _read_question(text)
    words = re.findall(r"\w+", question)
    named = {row.name: row for row in [*tables.penguins, *tables.others]}
    conditions = _CONDITION.findall(question)
    if conditions:
        return str(sum(all(_meets(row, c)[1] for c in conditions) for row in rows))
    if "alphabetic" in question:
        return (max if "last" in question else min)(row.name for row in rows)
    if "there in the" in question or "listed" in question:
        return str(len(rows))
    total = re.search(r"(cumulated|average) (\w+) of the", question)
    if total:
        values = [row.at(_COLUMNS[total[2]]) for row in rows]
        return str(sum(values) // (1 if total[1] == "cumulated" else len(values)))
    key = next((w for w in words if w in _WORDS), None)
    if key is not None:
        column, sign = _WORDS[key]
        if " than " in question:
            limit = named[words[-1]].at(column)
            return next(row.name for row in rows if sign * row.at(column) > sign * limit)
        best = max(rows, key=lambda row: sign * row.at(column))
        asked = re.search(r"What is the (age|height|weight) of", question)
        return str(best.at(_COLUMNS[asked[1]])) if asked else best.name
    lookup = re.search(r"What is the (\w+) of (\w+)\?", question)
    if lookup:
        return str(named[lookup[2]].at(_COLUMNS[lookup[1]]))
    which = re.search(r"that is (\d+) (cm|years)", question)
    if which is None:
        raise ValueError(f"no such question: {question}")
    column = 2 if which[2] == "cm" else 1
    return next(row.name for row in rows if row.at(column) == int(which[1]))


def _walk(text: str, value: str) -> list[str]:
    """The lines that lead to `value`, written once more from the text."""
    _, question, rows = _read_question(text)
    words = re.findall(r"\w+", question)
    key = next((w for w in words if w in _WORDS), None)
    total = re.search(r"(cumulated|average) (\w+) of the", question)
    if conditions := _CONDITION.findall(question):
        lines, met = [], 0
        for row in rows:
            verdicts = [_meets(row, c) for c in conditions]
            known = verdicts[: 1 + all(v for _, v in verdicts[:1])]
            met += all(v for _, v in verdicts)
            shown = " ".join(f"{n} {'yes' if v else 'no'}" for n, v in known)
            lines.append(f"- {row.name} {shown} {met}")
        return lines
    if "alphabetic" in question:
        pick = max if "last" in question else min
        firsts = [row.name[0] for row in rows]
        lines = [f"- {row.name} {row.name[0]}:{pick(firsts[: i + 1])}"
                 for i, row in enumerate(rows)]  # fmt: skip
        return [*lines, f"{value[0]} {value}"]
    if "there in the" in question or "listed" in question:
        return [f"- {row.name} {i + 1}" for i, row in enumerate(rows)]
    if total:
        numbers = [row.at(_COLUMNS[total[2]]) for row in rows]
        lines = [f"- {rows[0].name} {numbers[0]}:p{reverse(numbers[0])}"]
        for i in range(1, len(rows)):
            old, new = sum(numbers[:i]), sum(numbers[: i + 1])
            step = f"p{reverse(old)}+{reverse(numbers[i])}=p{reverse(new)}"
            lines.append(f"- {rows[i].name} {numbers[i]}:{step}")
        if total[1] == "average":
            lines.append(f"{reverse(sum(numbers))}/{len(rows)}={reverse(int(value))}")
        return lines
    if key is None:
        which = re.search(r"that is (\d+) (cm|years)", question)
        return [f"{which[1]} {value}" if which else f"- {words[-1]} {value}"]
    column, sign = _WORDS[key]
    numbers = [row.at(column) for row in rows]
    if " than " in question:
        lines = [f"- {row.name} {row.at(column)}" for row in rows if row.name == words[-1]]
        others = [row for row in rows if row.name != words[-1]]
        end = 1 + [row.name for row in others].index(value)
        return lines + [f"- {row.name} {row.at(column)} {'yes' if row.name == value else 'no'}"
                        for row in others[:end]]  # fmt: skip
    pick = max if sign > 0 else min
    lines = [f"- {row.name} {row.at(column)}:{pick(numbers[: i + 1])}"
             for i, row in enumerate(rows)]  # fmt: skip
    best = rows[numbers.index(pick(numbers))]
    lines.append(f"{pick(numbers)} {best.name}")
    asked = re.search(r"What is the (age|height|weight) of", question)
    return [*lines, f"{asked[1]} {value}"] if asked else lines


def verify(problem: Problem) -> bool:
    """Answer the text by table look-ups, and write the walk down the rows once more."""
    value = solve(problem.problem)
    options = read_options(problem.problem)
    if value not in options:
        return False
    letter = LETTERS[options.index(value)]
    lines = [*_walk(problem.problem, value), f"- {value} {letter}"]
    return problem.answer == f"({letter})" and problem.thought == "\n".join(lines)
