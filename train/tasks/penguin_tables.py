"""Tables of animals in BIG-Bench-Hard's wording (penguins_in_a_table), drawn and read.

A text holds one table on a line, a row below "table:" at times, and then a row that is deleted, or
a second table below its own header.
"""

import re
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from falcon_h1r.train.tasks.names import draw_names


class Row(NamedTuple):
    """An animal."""

    name: str
    age: int
    height: int
    """Centimetres."""
    weight: int
    """Kilograms."""

    def at(self, column: str) -> int:
        """The number in a column of `COLUMNS`."""
        return {"age": self.age, "height": self.height, "weight": self.weight}[column]


COLUMNS = ("age", "height", "weight")
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


def _draw_rows(rng: Random, names: list[str], high: bool) -> list[Row]:
    ages = rng.sample(range(2, 18), len(names))
    if high:
        heights = rng.sample(range(150, 600, 10), len(names))
        weights = rng.sample(range(200, 900, 10), len(names))
    else:
        heights = rng.sample(range(30, 125, rng.choice((1, 5, 5))), len(names))
        weights = [rng.randint(6, 40) for _ in names]
    return [Row(*cells) for cells in zip(names, ages, heights, weights, strict=True)]


def show(row: Row) -> str:
    """A row as the tables write it."""
    return f"{row.name}, {row[1]}, {row[2]}, {row[3]}"


def draw_tables(rng: Random, level: int) -> tuple[str, Tables, list[str]]:
    """The text of the tables, their content, and five penguin names for options."""
    names = draw_names(rng, 9)
    while len({n[0] for n in names[:5]}) < 5 or len({n[0] for n in names[5:]}) < 4:
        names = draw_names(rng, 9)
    rows = _draw_rows(rng, names[:5], high=False)
    first, last = rows[:4], rows[4]
    animal = "penguin" if rng.random() < 0.85 else rng.choice(("pigeon", "heron", "beaver"))
    a, b, c = rng.sample(first, 3)
    text = (
        "Here is a table where the first line is a header and each subsequent line is a "
        f"{animal}:  {_HEADER} {' '.join(map(show, first))}  For example: the age of {a[0]} is "
        f"{a[1]}, the weight of {b[0]} is {b[3]} kg, the height of {c[0]} is {c[2]} cm.  "
    )
    tables = Tables(listed=list(first), penguins=list(first), others=[], kind="", animal=animal)
    if rng.random() < (0.3, 0.5, 0.6)[level - 1]:
        text += f"We now add a {animal} to the table:\n{show(last)}\n"
        tables.listed.append(last)
        tables.penguins.append(last)
    if level > 1 and rng.random() < 0.3:
        gone = rng.choice(tables.listed[:4])
        text += f"We then delete the {animal} named {gone[0]} from the table.\n"
        tables.penguins.remove(gone)
    elif level > 1 and rng.random() < (0.0, 0.45, 0.9)[level - 1]:
        tables.kind = rng.choice(_KINDS) if rng.random() < 0.7 else "giraffes"
        tables.others = _draw_rows(rng, names[5:], high=True)
        text += f"And here is a similar table, but listing {tables.kind}:\n{_HEADER}\n"
        text += "".join(f"{show(row)}\n" for row in tables.others)
    return text, tables, names[:5]


def read_tables(text: str) -> Tables:
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
