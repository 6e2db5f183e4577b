"""The tables of a result as rows of texts, and in Markdown, HTML and plain text. Imports no torch.

Every table is (head, rows); the first column is left-aligned, the others are numbers.
"""

import html
import math
from collections.abc import Sequence

from falcon_h1r.evaluate.results import EvalResult, Row
from falcon_h1r.evaluate.statistics import Estimate

Table = tuple[list[str], list[list[str]]]

RUN_NAMES = {"greedy": "greedy", "full": "full budget", "deepconf": "DeepConf"}


def mode_name(mode: str, budget: int) -> str:
    """Return how a mode is called in a table."""
    return {"majority": f"majority of {budget}", "deepconf": f"DeepConf, budget {budget}"}.get(
        mode, mode
    )


def accuracy_table(result: EvalResult) -> Table:
    """Accuracy in percent a task, group and in all, with intervals; tokens saved beside it."""
    head = ["task", "problems", *(mode_name(mode, result.budget) for mode in result.modes)]
    has_both = result.total().difference is not None
    head += ["DeepConf - majority", "tokens saved"] if has_both else []
    rows = []
    for row in all_rows(result):
        cells = [row.name, str(row.num_problems)]
        cells += [percent(row.accuracy[mode]) for mode in result.modes]
        if row.difference is not None and row.saved is not None:
            cells += [percent(row.difference, sign=True), percent(row.saved)]
        rows.append(cells)
    return head, rows


def speed_table(result: EvalResult) -> Table:
    """Tokens, time and operations of every run, over all problems."""
    head = [
        "run", "tokens a problem", "seconds a problem", "tokens/s", "seconds per 100 tokens",
        "GFLOPs a problem",
    ]  # fmt: skip
    rows = [
        [
            RUN_NAMES[run],
            number(speed.tokens_per_problem),
            number(speed.seconds_per_problem),
            number(speed.tokens_per_second),
            number(speed.seconds_per_100_tokens),
            number(speed.flops / 1e9),
        ]
        for run, speed in result.total().speed.items()
    ]
    return head, rows


def all_rows(result: EvalResult) -> list[Row]:
    """Return the rows of tasks, groups and all; "all" only where there are several tasks."""
    rows = result.rows()
    groups = result.group_rows()
    if len(rows) > 1 and not (len(groups) == 1 and groups[0].num_problems == len(result.done())):
        groups.append(result.total())
    return rows + groups


def markdown(table: Table) -> str:
    """Return a table in Markdown."""
    head, rows = table
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def to_html(table: Table) -> str:
    """Return a table in HTML; texts are escaped."""
    head, rows = table

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(line(cells, "td") for cells in rows)
    return f"<table><thead>{line(head, 'th')}</thead>\n<tbody>\n{body}\n</tbody></table>"


def plain(table: Table) -> str:
    """Return a table in aligned columns."""
    head, rows = table
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for cells in [head, *rows]:
        first, *others = zip(cells, widths, strict=True)
        words = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        lines.append("  ".join(words).rstrip())
    return "\n".join(lines)


def percent(estimate: Estimate, sign: bool = False) -> str:
    """Return "81.2 (70.1 to 88.9)", in percent."""
    if not math.isfinite(estimate.value):
        return "-"
    plus = "+" if sign else ""
    value, low, high = (f"{100 * part:{plus}.1f}" for part in estimate)
    return f"{value} ({low} to {high})"


def number(value: float) -> str:
    """Return a number with three digits that count."""
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
