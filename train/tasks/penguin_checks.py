"""Solves penguins_in_a_table from its text, and writes the thought once more to compare it."""

import re
from collections.abc import Callable

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.choices import LETTERS, read_options
from falcon_h1r.train.tasks.penguin_tables import Row, Tables, read_tables

_WORDS = {
    "oldest": ("age", 1), "older": ("age", 1), "youngest": ("age", -1), "younest": ("age", -1),
    "younger": ("age", -1), "tallest": ("height", 1), "taller": ("height", 1),
    "shortest": ("height", -1), "shorter": ("height", -1), "heaviest": ("weight", 1),
    "heavier": ("weight", 1), "lightest": ("weight", -1), "lighter": ("weight", -1),
}  # fmt: skip
_UNITS = {"years": "age", "cm": "height", "kg": "weight"}
_CONDITION = re.compile(r"(more|less) than (\d+) (years|cm|kg)")


def _read_question(text: str) -> tuple[Tables, str, list[Row]]:
    """The tables, the question, and the rows it is about."""
    tables = read_tables(text)
    question = text.split("\nOptions:")[0].split("\n")[-1].split("  ")[-1]
    rows = tables.penguins
    if "animals" in question:
        rows = rows + tables.others
    elif tables.kind and re.search(rf"\b{tables.kind[:-1]}", question):
        rows = tables.others
    return tables, question, rows


def _meets(row: Row, condition: tuple[str, str, str]) -> tuple[int, bool]:
    """The number a condition is about, and whether it is met."""
    number = row.at(_UNITS[condition[2]])
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
        values = [row.at(total[2]) for row in rows]
        return str(sum(values) // (1 if total[1] == "cumulated" else len(values)))
    key = next((w for w in words if w in _WORDS), None)
    if key is not None:
        column, sign = _WORDS[key]
        if " than " in question:
            limit = named[words[-1]].at(column)
            return next(row.name for row in rows if sign * row.at(column) > sign * limit)
        best = max(rows, key=lambda row: sign * row.at(column))
        asked = re.search(r"What is the (age|height|weight) of", question)
        return str(best.at(asked[1])) if asked else best.name
    lookup = re.search(r"What is the (\w+) of (\w+)\?", question)
    if lookup:
        return str(named[lookup[2]].at(lookup[1]))
    which = re.search(r"that is (\d+) (cm|years)", question)
    if which is None:
        raise ValueError(f"no such question: {question}")
    return next(row.name for row in rows if row.at(_UNITS[which[2]]) == int(which[1]))


def _line(row: Row) -> str:
    return ", ".join(map(str, row))


def _options(
    text: str, tables: Tables, rows: list[Row], tell: Callable[[list[Row]], str], whole: bool = True
) -> list[str]:
    """The walk through the options; `tell` gets the rows that count up to the one in question.

    Without `whole` of those rows, too, the name alone is written.
    """
    lines, seen, kept = [], list[Row](), ""
    everyone = [*tables.listed, *tables.others]
    for letter, name in zip(LETTERS, read_options(text), strict=False):
        row = next((row for row in everyone if row.name == name), None)
        if row is None:
            lines.append(f"{letter} {name} none{kept}")
        elif row in rows:
            seen.append(row)
            told = tell(seen)
            lines.append(f"{letter} {_line(row) if whole else row.name}:{told}")
            kept = f";{told.split(';')[-1]}" if "," in told else ""
        else:
            gone = row in tables.listed and row not in tables.penguins
            lines.append(f"{letter} {row.name} {'gone' if gone else 'other'}{kept}")
        if lines[-1].endswith(" yes"):
            break
    return lines


def _rows(tables: Tables, rows: list[Row], tell: Callable[[list[Row]], str]) -> list[str]:
    """The walk through the tables, in the same way."""
    lines = []
    walked = tables.listed if any(row in tables.listed for row in rows) else []
    for row in walked:
        lines += ["table:"] if row in tables.listed[4:] else []
        told = f"{row.name} gone"
        if row in rows:
            told = f"{_line(row)}:{tell(rows[: rows.index(row) + 1])}"
        lines.append(f"{'- ' if row in tables.listed[:4] else ''}{told}")
    for row in tables.others if any(row in tables.others for row in rows) else []:
        lines += ["(kg)"] if row == tables.others[0] else []
        lines.append(f"{_line(row)}:{tell(rows[: rows.index(row) + 1])}")
    return lines


def _equal(text: str, value: str) -> list[str]:
    """The comparison of the options with a number."""
    options = read_options(text)
    tried = list(zip(LETTERS, options[: options.index(value) + 1], strict=False))
    return [f"{a} {o}={value} {'yes' if o == value else 'no'}" for a, o in tried]


def _best_so_far(numbers: list[int] | list[str], sign: int) -> str:
    """The comparison of the last number with the best before it."""
    if len(numbers) == 1:
        return ""
    old = max(numbers[:-1]) if sign > 0 else min(numbers[:-1])
    new = max(numbers) if sign > 0 else min(numbers)
    verdict = "yes" if new != old else "no"
    return f"{numbers[-1]}{'>' if sign > 0 else '<'}{old} {verdict};"


def _walk_best(text: str, column: str, sign: int, other: str) -> list[str]:
    """The chain of an extreme or of the alphabet (column "name")."""
    tables, _, rows = _read_question(text)
    options = read_options(text)

    def key(row: Row) -> int | str:
        return row.name[0] if column == "name" else row.at(column)

    def tell(seen: list[Row]) -> str:
        best = sorted(seen, key=key, reverse=sign > 0)[0]
        carried = best.at(other) if other else LETTERS[options.index(best.name)]
        return f"{_best_so_far([key(row) for row in seen], sign)}{key(best)},{carried}"  # type: ignore[arg-type]

    if other:
        return _rows(tables, rows, tell)
    return _options(text, tables, rows, tell, whole=column != "name")


def _walk_total(text: str, column: str, average: bool, value: str) -> list[str]:
    tables, _, rows = _read_question(text)

    def tell(seen: list[Row]) -> str:
        numbers = [row.at(column) for row in seen]
        old, last, new = (str(n)[::-1] for n in (sum(numbers[:-1]), numbers[-1], sum(numbers)))
        return f"{numbers[-1]} p{new}" if len(seen) == 1 else f"{numbers[-1]} p{old}+{last}=p{new}"

    lines = _rows(tables, rows, tell)
    if not average:
        return [*lines, value, *_equal(text, value)]
    options, total = read_options(text), str(int(value) * len(rows))[::-1]
    for letter, option in zip(LETTERS, options[: options.index(value) + 1], strict=False):
        product = str(int(option) * len(rows))[::-1]
        verdict = "yes" if option == value else "no"
        lines.append(f"{letter} {option}:{option[::-1]}*{len(rows)}={product} {total} {verdict}")
    return lines


def _walk_met(text: str, value: str) -> list[str]:
    """The chain of a count, with or without conditions."""
    tables, question, rows = _read_question(text)
    conditions = _CONDITION.findall(question)

    def tell(seen: list[Row]) -> str:
        shown = []
        for condition in conditions:
            number, met = _meets(seen[-1], condition)
            sign = ">" if condition[0] == "more" else "<"
            shown.append(f"{number}{sign}{condition[1]} {'yes' if met else 'no'}")
        met_by = [row for row in seen if all(_meets(row, c)[1] for c in conditions)]
        return " ".join([*shown, str(len(met_by))])

    words = [question.split()[2]]
    words += [f"{_UNITS[u]}{'>' if m == 'more' else '<'}{n}" for m, n, u in conditions]
    return [" ".join(words), *_rows(tables, rows, tell), *_equal(text, value)]


def walk(text: str, value: str) -> list[str]:
    """The lines that lead to `value`, written once more from the text; without the named one."""
    tables, question, rows = _read_question(text)
    words = re.findall(r"\w+", question)
    key = next((w for w in words if w in _WORDS), "")
    if total := re.search(r"(cumulated|average) (\w+) of the (\w+)", question):
        chain = _walk_total(text, total[2], total[1] == "average", value)
        return [f"{total[3]} {total[2]}", *chain]
    if "alphabetic" in question:
        sign = 1 if "last" in question else -1
        header = f"{words[6]} {words[7]} name{'>' if sign > 0 else '<'}"
        return [header, *_walk_best(text, "name", sign, "")]
    if words[:2] == ["How", "many"]:
        return _walk_met(text, value)
    column, sign = _WORDS.get(key, ("", 0))
    if key and " than " not in question:
        asked = re.search(r"What is the (age|height|weight) of", question)
        other = asked[1] if asked else ""
        header = f"{key} {words[-1]} {column}{'>' if sign > 0 else '<'} {other}".strip()
        lines = [header, *_walk_best(text, column, sign, other)]
        return lines + _equal(text, value) if asked else lines
    named = next((r for r in tables.listed + tables.others if r.name == words[-1]), None)
    lookup = re.match(r"What is the (age|height|weight) of", question)
    if lookup and named:
        return [lookup[1], f"- {_line(named)}:{value}", *_equal(text, value)]
    which = re.search(r"that is (\d+) (cm|years)", question)
    if key and named:
        symbol, limit = ">" if sign > 0 else "<", named.at(column)
        lines = [f"{key} {column}{symbol}", f"- {_line(named)}:{limit}"]
    else:
        assert which is not None
        column, symbol, limit = _UNITS[which[2]], "=", int(which[1])
        lines = [f"{column}={limit}"]

    def tell(seen: list[Row]) -> str:
        verdict = "yes" if seen[-1].name == value else "no"
        return f"{seen[-1].at(column)}{symbol}{limit} {verdict}"

    return lines + _options(text, tables, rows, tell)


def verify(problem: Problem) -> bool:
    """Answer the text by table look-ups, and write the walk down the rows once more."""
    value = solve(problem.problem)
    options = read_options(problem.problem)
    if value not in options:
        return False
    tables = read_tables(problem.problem)
    gone = [row for row in tables.listed if row not in tables.penguins]
    lines = [*(f"named {row.name}" for row in gone), *walk(problem.problem, value)]
    letter = LETTERS[options.index(value)]
    return problem.answer == f"({letter})" and problem.thought == "\n".join(lines)
