"""Chains of thought of penguins_in_a_table: every line quotes a row and computes from it alone.

A question for a name goes through the options, each with its row, its number compared with the best
so far, and the best so far with its letter; it ends in the answer's letter. Whether a row counts is
decided behind its name, before any number stands between. The alphabet needs no rows:

    oldest penguin age>               last penguin name>
    A Kaimpos, 2, 58, 16:2,A          A Kaimpos:K,A
    B Dugru, 8, 42, 39:8>2 yes;8,B    B Dugru:D>K no;K,A
    C Maya gone;8,B                   C Maya gone;K,A
    D Lisa none;8,B                   D Lisa none;K,A

A question for a number goes through the tables. An added row stands below "table:" and the rows of
a second table below "(kg)", as in the text, so that quoting goes on where it stopped. Then the
options are compared with the number, until one is equal to it:

    penguins age>5 weight>12         penguins age
    - Kaimpos, 2, 58, 16:2>5 no 0    - Kaimpos, 2, 58, 16:2 p2
    table:                           - Dugru, 18, 42, 39:18 p2+81=p02
    Lisa, 6, 98, 13:6>5 yes 1        20
    A 1=1 yes                        A 19=20 no

The name of a deleted row is copied in a line before all ("named Maya"). Sums have reversed digits,
as in `steps`, and an average is found by multiplying the options: "A 65:56*4=062 082 no".
"""

from collections.abc import Callable, Sequence
from typing import Any

from falcon_h1r.train.tasks.choices import LETTERS
from falcon_h1r.train.tasks.penguin_tables import Row, Tables, show
from falcon_h1r.train.tasks.steps import reverse

Chain = Callable[[Sequence[str]], list[str]]
"""Writes the lines of a thought, given the options of the problem."""
Condition = tuple[str, str, int]
"""A column, "<" or ">", and a limit."""


def holds(a: Any, sign: str, b: Any) -> bool:
    """Whether `a` < (=, >) `b`: two numbers or two letters."""
    return bool({"<": a < b, "=": a == b, ">": a > b}[sign])


def compare(a: Any, sign: str, b: Any) -> str:
    """ "7>5 yes"."""
    return f"{a}{sign}{b} {'yes' if holds(a, sign, b) else 'no'}"


def _fate(tables: Tables, row: Row) -> str:
    return " other" if row in tables.others or row in tables.penguins else " gone"


def through_options(
    tables: Tables,
    rows: list[Row],
    options: Sequence[str],
    tell: Callable[[Row, str], str],
    keep: Callable[[], str] = str,
    shown: Callable[[Row], str] = show,
) -> list[str]:
    """One line an option, up to the one that ends in "yes".

    `tell` follows a row that counts, as `shown`; `keep` follows any other's name.
    """
    known = {row.name: row for row in [*tables.listed, *tables.others]}
    lines = []
    for letter, name in zip(LETTERS, options, strict=False):
        row = known.get(name)
        if row is None:
            lines.append(f"{letter} {name} none{keep()}")
        elif row not in rows:
            lines.append(f"{letter} {name}{_fate(tables, row)}{keep()}")
        else:
            lines.append(f"{letter} {shown(row)}:{tell(row, letter)}")
            if lines[-1].endswith(" yes"):
                break
    return lines


def through_tables(tables: Tables, rows: list[Row], tell: Callable[[Row], str]) -> list[str]:
    """One line a row of the tables that `rows` belong to; `tell` follows a row that counts."""
    lines = []
    if rows[0] in tables.penguins:
        for i, row in enumerate(tables.listed):
            told = f"{show(row)}:{tell(row)}" if row in rows else f"{row.name}{_fate(tables, row)}"
            lines += [f"- {told}"] if i < 4 else ["table:", told]
    if rows[-1] in tables.others:
        lines += ["(kg)", *(f"{show(row)}:{tell(row)}" for row in tables.others)]
    return lines


def best_option(header: str, tables: Tables, rows: list[Row], column: str, sign: str) -> Chain:
    """The option whose number, or first letter for the column "name", is the best."""

    def chain(options: Sequence[str]) -> list[str]:
        best: list[tuple[int | str, str]] = []

        def tell(row: Row, letter: str) -> str:
            value = row.name[0] if column == "name" else row.at(column)
            if not best:
                best.append((value, letter))
                return f"{value},{letter}"
            old = best[-1][0]
            best.append((value, letter) if holds(value, sign, old) else best[-1])
            return f"{compare(value, sign, old)};{best[-1][0]},{best[-1][1]}"

        def keep() -> str:
            return f";{best[-1][0]},{best[-1][1]}" if best else ""

        shown = (lambda row: row.name) if column == "name" else show
        lines = through_options(tables, rows, options, tell, keep, shown)
        return [f"{header} {column}{sign}", *lines]

    return chain


def best_number(
    header: str, tables: Tables, rows: list[Row], column: str, sign: str, other: str
) -> Chain:
    """The number in another column of the best row."""

    def chain(options: Sequence[str]) -> list[str]:
        best = rows[:1]

        def tell(row: Row) -> str:
            old, shown = best[-1].at(column), ""
            if row is not rows[0]:
                shown = f"{compare(row.at(column), sign, old)};"
                best.append(row if holds(row.at(column), sign, old) else best[-1])
            return f"{shown}{best[-1].at(column)},{best[-1].at(other)}"

        lines = [f"{header} {column}{sign} {other}", *through_tables(tables, rows, tell)]
        return [*lines, *equal_option(best[-1].at(other), options)]

    return chain


def first_option(
    header: list[str], tables: Tables, rows: list[Row], condition: Condition
) -> Chain:  # fmt: skip
    """The first option that meets a condition."""
    column, sign, limit = condition

    def chain(options: Sequence[str]) -> list[str]:
        def tell(row: Row, letter: str) -> str:
            return compare(row.at(column), sign, limit)

        return [*header, *through_options(tables, rows, options, tell)]

    return chain


def number_met(
    header: str, tables: Tables, rows: list[Row], conditions: list[Condition]
) -> Chain:  # fmt: skip
    """How many rows meet all conditions; without any it numbers the rows."""

    def chain(options: Sequence[str]) -> list[str]:
        total = 0

        def tell(row: Row) -> str:
            nonlocal total
            total += all(holds(row.at(column), sign, limit) for column, sign, limit in conditions)
            shown = [compare(row.at(column), sign, limit) for column, sign, limit in conditions]
            return " ".join([*shown, str(total)])

        words = [header, *(f"{column}{sign}{limit}" for column, sign, limit in conditions)]
        lines = [" ".join(words), *through_tables(tables, rows, tell)]
        return [*lines, *equal_option(total, options)]

    return chain


def number_of(column: str, row: Row) -> Chain:
    """The number in one column of a named row."""

    def chain(options: Sequence[str]) -> list[str]:
        value = row.at(column)
        return [column, f"- {show(row)}:{value}", *equal_option(value, options)]

    return chain


def total_of(header: str, tables: Tables, rows: list[Row], column: str, average: bool) -> Chain:
    """Sum or average of a column."""

    def chain(options: Sequence[str]) -> list[str]:
        total = 0

        def tell(row: Row) -> str:
            nonlocal total
            value, old = row.at(column), total
            total += value
            if row is rows[0]:
                return f"{value} p{reverse(value)}"
            return f"{value} p{reverse(old)}+{reverse(value)}=p{reverse(total)}"

        lines = [f"{header} {column}", *through_tables(tables, rows, tell)]
        if not average:
            return [*lines, str(total), *equal_option(total, options)]
        for letter, option in zip(LETTERS, options, strict=False):
            product = int(option) * len(rows)
            verdict = "yes" if product == total else "no"
            step = f"{reverse(int(option))}*{len(rows)}={reverse(product)}"
            lines.append(f"{letter} {option}:{step} {reverse(total)} {verdict}")
            if product == total:
                break
        return lines

    return chain


def equal_option(value: int, options: Sequence[str]) -> list[str]:
    """The options compared with a number, up to the one that is equal."""
    lines = []
    for letter, option in zip(LETTERS, options, strict=False):
        lines.append(f"{letter} {compare(int(option), '=', value)}")
        if int(option) == value:
            break
    return lines
