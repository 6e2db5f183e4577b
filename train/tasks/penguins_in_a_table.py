"""Questions about a small table in BIG-Bench-Hard's wording (penguins_in_a_table).

`penguin_tables` draws and reads the tables, `penguin_chains` writes the thought (its form stands
there), and `penguin_checks` solves the text and writes the thought once more.
"""

from random import Random
from typing import NamedTuple

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.choices import letter_of, render_options
from falcon_h1r.train.tasks.penguin_chains import (
    Chain,
    Condition,
    best_number,
    best_option,
    first_option,
    holds,
    number_met,
    number_of,
    total_of,
)
from falcon_h1r.train.tasks.penguin_checks import verify
from falcon_h1r.train.tasks.penguin_tables import COLUMNS, Row, Tables, draw_tables, show

__all__ = ["generate", "verify"]


class Asked(NamedTuple):
    """A question, the value of its answer, its options and its chain of thought."""

    text: str
    value: str
    options: list[str]
    chain: Chain


def _numbers(rng: Random, value: int) -> list[str]:
    """Five ascending options around a value."""
    if value <= 5 and rng.random() < 0.9:
        return ["1", "2", "3", "4", "5"]
    low = value - rng.randint(0, min(4, value - 1))
    return [str(low + i) for i in range(5)]


def _plural(tables: Tables, rows: list[Row], noun: str) -> str:
    return noun + "s" if rows[0] in tables.listed else tables.kind


def _extreme(rng: Random, tables: Tables, rows: list[Row], noun: str, names: list[str]) -> Asked:
    column, sign, word = rng.choice((
        ("age", ">", "oldest"), ("age", "<", "youngest"), ("age", "<", "younest"),
        ("height", ">", "tallest"), ("height", "<", "shortest"), ("weight", ">", "heaviest"),
        ("weight", "<", "lightest"),
    ))  # fmt: skip
    if len({row.at(column) for row in rows}) < len(rows):
        return _extreme(rng, tables, rows, noun, names)
    best = (max if sign == ">" else min)(rows, key=lambda row: row.at(column))
    header = f"{word} {noun}"
    if rng.random() < 0.25:
        other = rng.choice([c for c in COLUMNS if c != column])
        value = best.at(other)
        values = sorted({row.at(other) for row in rows} | {value + 2, value + 5, value + 9})
        options = [str(v) for v in values if v != value][:4]
        options.insert(rng.randint(0, 4), str(value))
        chain = best_number(header, tables, rows, column, sign, other)
        return Asked(f"What is the {other} of the {header}?", str(value), options, chain)
    chain = best_option(header, tables, rows, column, sign)
    return Asked(f"Which is the {header}?", best.name, names, chain)


def _alphabet(rng: Random, tables: Tables, rows: list[Row], noun: str, names: list[str]) -> Asked:
    last = rng.random() < 0.6
    best = (max if last else min)(row.name for row in rows)
    header = f"{'last' if last else 'first'} {noun}"
    chain = best_option(header, tables, rows, "name", ">" if last else "<")
    text = f"What is the name of the {header} sorted by alphabetic order?"
    return Asked(text, best, names, chain)


def _threshold(rng: Random, rows: list[Row], column: str) -> tuple[Condition, str]:
    """A condition near the rows' values, and its words."""
    limit = rng.choice(rows).at(column) + rng.choice((0, 0, -1, 1))
    more = rng.random() < 0.6
    compared = "more" if more else "less"
    words = {
        "age": f"are {compared} than {limit} years old",
        "height": f"are {compared} than {limit} cm tall",
        "weight": f"weight {compared} than {limit} kg",
    }[column]
    return (column, ">" if more else "<", limit), words


def _how_many(rng: Random, tables: Tables, rows: list[Row], noun: str, names: list[str]) -> Asked:
    column = rng.choice(("age", "age", "age", "height", "weight"))
    condition, words = _threshold(rng, rows, column)
    conditions = [condition]
    plural, counted = _plural(tables, rows, noun), rows
    if rng.random() < 0.25:
        other = rng.choice([c for c in COLUMNS if c != column])
        condition, words2 = _threshold(rng, rows, other)
        conditions.append(condition)
        words += f" and {words2}"
    elif tables.others and column == "age" and rng.random() < 0.35:
        counted, plural = [*tables.penguins, *tables.others], "animals"
    total = sum(all(holds(row.at(c), sign, n) for c, sign, n in conditions) for row in counted)
    if total == 0:
        return _how_many(rng, tables, rows, noun, names)
    chain = number_met(plural, tables, counted, conditions)
    return Asked(f"How many {plural} {words}?", str(total), _numbers(rng, total), chain)


def _listed(rng: Random, tables: Tables, rows: list[Row], noun: str, names: list[str]) -> Asked:
    """How many rows there are, of one table or of all."""
    where = "tables" if tables.others else "table"
    plural = _plural(tables, rows, noun)
    text = f"How many {plural} are there in the {where}?"
    if rng.random() < 0.4:
        rows, plural = [*tables.penguins, *tables.others], "animals"
        text = f"How many animals are listed in the {where}?"
    chain = number_met(plural, tables, rows, [])
    return Asked(text, str(len(rows)), _numbers(rng, len(rows)), chain)


def _compared(rng: Random, tables: Tables, rows: list[Row], noun: str, names: list[str]) -> Asked:
    """The only one that is older (taller, heavier, ...) than a named one."""
    column, sign, word = rng.choice((
        ("age", ">", "older"), ("age", "<", "younger"), ("height", ">", "taller"),
        ("height", "<", "shorter"), ("weight", ">", "heavier"), ("weight", "<", "lighter"),
    ))  # fmt: skip
    ordered = sorted(rows, key=lambda row: row.at(column), reverse=sign == ">")
    if len({row.at(column) for row in rows}) < len(rows):
        return _compared(rng, tables, rows, noun, names)
    best, second = ordered[:2]
    limit = second.at(column)
    header = [f"{word} {column}{sign}", f"- {show(second)}:{limit}"]
    chain = first_option(header, tables, rows, (column, sign, limit))
    return Asked(f"Which {noun} is {word} than {second.name}?", best.name, names, chain)


def _lookup(rng: Random, tables: Tables, rows: list[Row], noun: str, names: list[str]) -> Asked:
    column = rng.choice(COLUMNS)
    row = rng.choice(rows)
    if rng.random() < 0.5:
        values = [str(r.at(column)) for r in rows]
        values += [str(max(int(v) for v in values) + 1 + i) for i in range(5 - len(values))]
        if len(set(values)) == len(values):
            text = f"What is the {column} of {row.name}?"
            return Asked(text, str(row.at(column)), values, number_of(column, row))
    column = rng.choice(("age", "height"))
    value = row.at(column)
    words = f"is {value} cm tall" if column == "height" else f"is {value} years old"
    chain = first_option([f"{column}={value}"], tables, rows, (column, "=", value))
    return Asked(f"What is the name of the {noun} that {words}?", row.name, names, chain)


def _total(rng: Random, tables: Tables, rows: list[Row], noun: str, names: list[str]) -> Asked:
    """Sum or average of a column."""
    column = rng.choice(COLUMNS)
    total = sum(row.at(column) for row in rows)
    plural = _plural(tables, rows, noun)
    word, step = "cumulated", rng.choice((1, 2, 3, 5, 10, 12))
    if total % len(rows) == 0 and rng.random() < 0.9:
        word, total, step = "average", total // len(rows), rng.choice((1, 2, 5))
    below = rng.randint(0, min(4, (total - 1) // step))
    options = [str(total + step * (i - below)) for i in range(5)]
    chain = total_of(plural, tables, rows, column, word == "average")
    return Asked(f"What is the {word} {column} of the {plural}?", str(total), options, chain)


_QUESTIONS = ((_extreme, 3), (_alphabet, 2), (_how_many, 4), (_listed, 2), (_compared, 2),
              (_lookup, 3), (_total, 2))  # fmt: skip


def generate(rng: Random, level: int) -> Problem:
    """One table with an addition at times (level 2: a deletion or a second table; 3: mostly)."""
    scene, tables, names = draw_tables(rng, level)
    rows, noun = tables.penguins, tables.animal
    if tables.others and rng.random() < 0.5:
        rows, noun = tables.others, tables.kind[:-1]
        names = [*(row.name for row in tables.others), names[0]]
    weights = [w for _, w in _QUESTIONS]
    ask = rng.choices([q for q, _ in _QUESTIONS], weights)[0]
    text, value, options, chain = ask(rng, tables, rows, noun, names)
    if rng.random() < 0.2 and options is not names:
        rng.shuffle(options)
    elif options is names and rng.random() < 0.3:
        options = rng.sample(names, len(names))
    letter = letter_of(options, value)
    gone = [f"named {row.name}" for row in tables.listed if row not in tables.penguins]
    content = " ".join(show(row) for row in [*tables.penguins, *tables.others])
    return Problem(
        problem=f"{scene}{text}\n{render_options(options)}",
        thought="\n".join([*gone, *chain(options)]),
        answer=f"({letter})",
        family="penguins_in_a_table",
        level=level,
        keys=(f"penguins {content} {text}",),
    )
