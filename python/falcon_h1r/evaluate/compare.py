"""Several results beside each other, over the problems that all of them have."""

import dataclasses
import html
from collections.abc import Sequence
from pathlib import Path

from falcon_h1r.errors import ConfigError
from falcon_h1r.evaluate import statistics
from falcon_h1r.evaluate.records import write_whole
from falcon_h1r.evaluate.results import EvalResult, run_of
from falcon_h1r.evaluate.tables import Table, mode_name, number, percent, to_html

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Comparison</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1150px; margin: 2em auto; color: #222 }}
table {{ border-collapse: collapse; font-size: 13px }}
th, td {{ padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: right }}
th:first-child, td:first-child {{ text-align: left }}
svg {{ width: 100%; height: auto }}
</style></head><body><h1>Comparison</h1>
<p>Over the {count} problems that all runs have; differences are paired, against the first run,
with 95 % intervals over problems.</p>
{figure}
{table}
<h2>Commands</h2>
{commands}
</body></html>
"""


def common(results: Sequence[EvalResult]) -> list[EvalResult]:
    """Return the results cut down to the problems that all of them have done.

    Raises ConfigError where there is none.
    """
    keys = set.intersection(*({item.key for item in result.done()} for result in results))
    if not keys:
        raise ConfigError("these runs share no problem that all have done; compare the same tasks")
    return [
        dataclasses.replace(result, items=[item for item in result.done() if item.key in keys])
        for result in results
    ]


def compare_table(results: Sequence[EvalResult], names: Sequence[str]) -> Table:
    """A row a run and mode: accuracy, difference from the first run, tokens, time."""
    head = [
        "run", "mode", "problems", "right, %", "against the first", "tokens a problem",
        "seconds a problem", "tokens/s",
    ]  # fmt: skip
    results = common(results)
    order = sorted(item.key for item in results[0].items)
    first = results[0]
    rows = []
    for name, result in zip(names, results, strict=True):
        total = result.total()
        for mode, estimate in total.accuracy.items():
            speed = total.speed[run_of(mode)]
            against = "-"
            if result is not first and mode in first.modes:
                ours, theirs = (each.values(mode, order) for each in (result, first))
                against = percent(statistics.difference(ours, theirs), sign=True)
            is_one = mode.startswith("pass@")
            rows.append(
                [
                    name,
                    mode_name(mode, result.budget),
                    str(total.num_problems),
                    percent(estimate),
                    against,
                    "-" if is_one else number(speed.tokens_per_problem),
                    "-" if is_one else number(speed.seconds_per_problem),
                    number(speed.tokens_per_second),
                ]
            )
    return head, rows


def write_comparison(
    results: Sequence[EvalResult], names: Sequence[str], folder: str | Path
) -> list[Path]:
    """Write comparison.html into a folder and, with the extra "report", its figure as PNG."""
    from falcon_h1r.evaluate import figure

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    commands = "\n".join(
        f"<p>{html.escape(name)}: <code>{html.escape(str(result.header.get('command')))}</code></p>"
        for name, result in zip(names, results, strict=True)
    )
    paths = [folder / "comparison.html"]
    shared = common(results)
    drawn = ""
    if figure.has_matplotlib():
        picture = figure.draw_comparison(shared, names)
        drawn = figure.svg(picture)
        paths.append(folder / "comparison.png")
        write_whole(paths[-1], figure.png(picture))
    page = _PAGE.format(
        count=len(shared[0].items),
        figure=drawn,
        table=to_html(compare_table(results, names)),
        commands=commands,
    )
    write_whole(paths[0], page)
    return paths
