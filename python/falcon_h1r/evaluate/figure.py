"""The figure: accuracy against tokens and time, and every task. Needs the extra "report"."""

import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from falcon_h1r.evaluate import statistics
from falcon_h1r.evaluate.records import Run, RunRecord
from falcon_h1r.evaluate.results import EvalResult, Row
from falcon_h1r.evaluate.statistics import Estimate
from falcon_h1r.evaluate.tables import all_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by every kind of eye.
_GREY, _BLUE, _RED = "#666666", "#0072B2", "#D55E00"
_COLOURS = {"greedy": _GREY, "full": _BLUE, "deepconf": _RED}
_MARKERS = {"greedy": "s", "full": "o", "deepconf": "D"}
_NAMES = {"greedy": "greedy", "full": "majority", "deepconf": "DeepConf"}
_POINTS: tuple[tuple[Run, str], ...] = (
    ("greedy", "greedy"),
    ("full", "majority"),
    ("deepconf", "deepconf"),
)
"""Every run with the mode that a point shows."""
_ROW_INCHES = 0.27
_STYLE: dict[Any, Any] = {
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "svg.fonttype": "path",
    "svg.hashsalt": "falcon-h1r",
}


def has_matplotlib() -> bool:
    """Return whether figures can be drawn here."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def draw(result: EvalResult) -> "Figure":
    """Return the figure of one result: speed x tokens x accuracy, and the tasks beside them."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = all_rows(result)
    with mpl.rc_context(_STYLE):
        height = max(6.4, 2.0 + _ROW_INCHES * len(rows))
        figure = Figure(figsize=(13.0, height), layout="constrained")
        parts = figure.add_gridspec(1, 2, width_ratios=[1.0, 1.15])
        left = parts[0].subgridspec(2, 1)
        _against_tokens(figure.add_subplot(left[0]), result)
        _against_time(figure.add_subplot(left[1]), result)
        _by_task(figure.add_subplot(parts[1]), rows)
        figure.suptitle(_title(result), fontsize=13, fontweight="bold")
        if command := result.header.get("command"):
            text = "\n".join(textwrap.wrap(f"$ {command}", 150, subsequent_indent="    "))
            figure.supxlabel(text, fontsize=8, family="monospace", color="#555555")
    return figure


def svg(figure: "Figure") -> str:
    """Return a figure as an SVG element."""
    import matplotlib as mpl

    buffer = BytesIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue().decode()
    return text[text.index("<svg") :]


def png(figure: "Figure") -> bytes:
    """Return a figure as a PNG file of 150 dots an inch."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def majority_curve(records: Sequence[RunRecord]) -> list[tuple[int, float, Estimate]]:
    """Return (k, tokens a problem, accuracy) of the plain majority of the first k traces.

    k doubles up to the budget; k = 1 is the mean over all traces, which one trace is a draw of.
    """
    budget = max((len(record.answers) for record in records), default=0)
    curve = []
    k = 1
    while k <= budget:
        tokens = sum(sum(record.lengths[:k]) for record in records) / len(records)
        if k == 1:
            tokens = sum(r.num_tokens / max(1, len(r.lengths)) for r in records) / len(records)
            values = [statistics.pass_at_k(len(r.rights), sum(r.rights), 1) if r.rights else 0.0
                      for r in records]  # fmt: skip
        else:
            values = [float(_majority_is_right(record, k)) for record in records]
        curve.append((k, tokens, statistics.mean(values)))
        k = budget if k < budget < 2 * k else 2 * k
    return curve


def _majority_is_right(record: RunRecord, k: int) -> bool:
    votes = Counter(answer for answer in record.answers[:k] if answer is not None)
    if not votes:
        return False
    winner = votes.most_common(1)[0][0]  # of equal counts the answer seen first
    return record.rights[record.answers.index(winner)]


def _against_tokens(axes: "Axes", result: EvalResult) -> None:
    total, done = result.total(), result.done()
    if "full" in result.runs and done:
        curve = majority_curve(result.records_of("full", done))
        xs = [tokens for _, tokens, _ in curve]
        ys = [100 * estimate.value for _, _, estimate in curve]
        low = [100 * estimate.low for _, _, estimate in curve]
        high = [100 * estimate.high for _, _, estimate in curve]
        axes.fill_between(xs, low, high, color=_BLUE, alpha=0.12, linewidth=0)
        axes.plot(xs, ys, "-o", color=_BLUE, markersize=4.5, label="majority of k traces")
        for (k, _, _), x, y in zip(curve, xs, ys, strict=True):
            axes.annotate(
                f"k={k}" if k == 1 else str(k), (x, y), textcoords="offset points",
                xytext=(0, -13), ha="center", fontsize=8, color=_BLUE,
            )  # fmt: skip
    for run, mode in _POINTS:
        if mode in total.accuracy and run != "full":
            speed = total.speed[run]
            _point(axes, run, speed.tokens_per_problem, total.accuracy[mode], _NAMES[run])
    _log_axis(axes)
    axes.set_xlabel("tokens a problem (log scale; fewer is better)")
    axes.set_title("Tokens x accuracy", loc="left", fontsize=11)
    _finish(axes)


def _against_time(axes: "Axes", result: EvalResult) -> None:
    total = result.total()
    for run, mode in _POINTS:
        if mode in total.accuracy and total.speed[run].seconds:
            speed = total.speed[run]
            label = f"{_NAMES[run]}: {speed.tokens_per_second:,.0f} tokens/s"
            _point(axes, run, speed.seconds_per_problem, total.accuracy[mode], label)
    axes.set_xlim(left=0.0)
    axes.margins(x=0.1)
    axes.set_xlabel("seconds a problem (fewer is better)")
    axes.set_title("Speed x accuracy", loc="left", fontsize=11)
    _finish(axes)


def _by_task(axes: "Axes", rows: list[Row]) -> None:
    shown = [(run, mode) for run, mode in _POINTS if rows and mode in rows[0].accuracy]
    offsets = {1: [0.0], 2: [0.16, -0.16], 3: [0.26, 0.0, -0.26]}.get(len(shown), [0.0])
    for y, row in enumerate(reversed(rows)):
        for (run, mode), offset in zip(shown, offsets, strict=True):
            estimate = row.accuracy[mode]
            axes.plot(
                [100 * estimate.low, 100 * estimate.high], [y + offset] * 2,
                color=_COLOURS[run], linewidth=1.2, alpha=0.55,
            )  # fmt: skip
            label = _NAMES[run] if y == 0 else None
            axes.plot(
                100 * estimate.value, y + offset, _MARKERS[run], color=_COLOURS[run],
                markersize=5, label=label, clip_on=False,
            )  # fmt: skip
        if row.saved is not None and math.isfinite(row.saved.value):
            text = f"{100 * row.saved.value:.0f} %"
            axes.text(112, y, text, va="center", ha="right", fontsize=8.5, color=_RED)
    if rows and rows[0].saved is not None:
        head = "tokens\nsaved"
        axes.text(112, len(rows) - 0.35, head, ha="right", va="bottom", fontsize=8.5, color=_RED)
    num_sums = sum(row.task in _sums(rows) for row in rows)
    if 0 < num_sums < len(rows):
        axes.axhline(num_sums - 0.5, color="#888888", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [_short(row) for row in reversed(rows)], fontsize=9)
    axes.set_xlim(-2, 102)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel("right answers, % (95 % interval over problems)")
    axes.set_title("Tasks", loc="left", fontsize=11)
    if shown:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=3, frameon=False)


def _point(axes: "Axes", run: str, x: float, estimate: Estimate, label: str) -> None:
    y = 100 * estimate.value
    errors: Any = [[y - 100 * estimate.low], [100 * estimate.high - y]]
    axes.errorbar(
        x, y, yerr=errors, fmt=_MARKERS[run], color=_COLOURS[run], markersize=8, capsize=3,
        label=label,
    )  # fmt: skip


def _log_axis(axes: "Axes") -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,g}")
    axes.xaxis.set_minor_locator(NullLocator())


def _finish(axes: "Axes") -> None:
    axes.set_ylabel("right answers, %")
    low, high = axes.get_ylim()
    axes.set_ylim(max(-3.0, low - 3.0), min(103.0, high + 3.0))
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=9, loc="best")


def _title(result: EvalResult) -> str:
    model = result.header.get("model", {})
    count = len(result.done())
    tasks = len({(item.task, item.level) for item in result.done()})
    return (
        f"{model.get('name', 'model')}: {count} problems of {tasks} tasks, "
        f"budget {result.budget} traces"
    )


def _sums(rows: list[Row]) -> set[str]:
    """Return the names of the rows that stand for several others."""
    return {"all", *(row.task.partition("/")[0] for row in rows if "/" in row.task)}


def _short(row: Row) -> str:
    """Return a row's name with its count; of a long task name the end."""
    name = row.name if len(row.name) <= 46 else "..." + row.name[-43:]
    return f"{name} ({row.num_problems})"


def draw_comparison(results: Sequence[EvalResult], names: Sequence[str]) -> "Figure":
    """Return the figure of several results over the same problems: a colour a run."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(12.0, 5.2), layout="constrained")
        tokens, time = figure.subplots(1, 2, sharey=True)
        for number, (name, result) in enumerate(zip(names, results, strict=True)):
            total = result.total()
            for run, mode in _POINTS:
                if mode not in total.accuracy or not total.speed[run].seconds:
                    continue
                speed, estimate = total.speed[run], total.accuracy[mode]
                style = {"color": f"C{number}", "marker": _MARKERS[run], "markersize": 8}
                errors: Any = [
                    [100 * (estimate.value - estimate.low)],
                    [100 * (estimate.high - estimate.value)],
                ]
                for axes, x in (
                    (tokens, speed.tokens_per_problem),
                    (time, speed.seconds_per_problem),
                ):
                    axes.errorbar(
                        x, 100 * estimate.value, yerr=errors, capsize=3, linestyle="",
                        label=f"{name}: {_NAMES[run]}", **style,
                    )  # fmt: skip
        tokens.set_xlabel("tokens a problem (fewer is better)")
        time.set_xlabel("seconds a problem (fewer is better)")
        for axes in (tokens, time):
            _log_axis(axes)
        tokens.set_ylabel("right answers, %")
        count = len(results[0].done())
        figure.suptitle(f"{len(results)} runs over the same {count} problems", fontweight="bold")
        time.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
