"""The report of a curation, as JSON and as Markdown. It holds no times: same recipe, same bytes."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from falcon_h1r.train.curation.mix import Cell, by_axis
from falcon_h1r.train.curation.recipe import AXES, BUCKETS, CurateRecipe
from falcon_h1r.train.curation.shard import Counts

NUM_BINS = 16
MAX_NAMED = 20
_BAR = 40


def build_report(
    counts: Counts,
    available: Mapping[Cell, int],
    taken: Mapping[Cell, int],
    lengths: NDArray[np.int64],
    recipe: CurateRecipe,
    num_evaluation: int,
) -> dict[str, Any]:
    """Everything the report says, as JSON."""
    return {
        "read": dict(sorted(counts.read.items())),
        "dropped": _nested(counts.dropped),
        "broken": counts.broken[:MAX_NAMED],
        "passed_filters": sum(counts.kept.values()),
        "samples": sum(taken.values()),
        "tokens": int(lengths.sum()),
        "verified_by": dict(sorted(counts.checked_by.items())),
        "augmented": _nested(counts.augmented),
        "rollouts": dict(sorted(counts.rollouts.items())),
        "overlap": {"evaluation_problems": num_evaluation, **_nested(counts.overlap)},
        "mix": {
            axis: {
                value: {"available": round(n), "taken": round(by_axis(taken, axis).get(value, 0))}
                for value, n in sorted(by_axis(available, axis).items())
            }
            for axis in AXES
        }
        | {"difficulty": _difficulties(available, taken)},
        "pass_rate": _mean_rates(counts),
        "lengths": _lengths(lengths),
        "recipe": {"seed": recipe.seed, "max_length": recipe.max_length},
    }


def _nested(counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """ "a|b" -> n as {a: {b: n}}."""
    nested: dict[str, dict[str, int]] = {}
    for key, number in sorted(counts.items()):
        name, _, rest = key.partition("|")
        if number:
            nested.setdefault(name, {})[rest] = number
    return nested


def _difficulties(available: Mapping[Cell, int], taken: Mapping[Cell, int]) -> dict[str, Any]:
    sums: dict[str, Counter[str]] = {name: Counter() for name in BUCKETS}
    for cell, number in available.items():
        sums[cell[4]].update(available=number, taken=taken.get(cell, 0))
    return {name: dict(counter) for name, counter in sums.items() if counter["available"]}


def _mean_rates(counts: Counts) -> float | None:
    tried = counts.rollouts["rollouts"]
    return round(counts.rollouts["right"] / tried, 4) if tried else None


def _lengths(lengths: NDArray[np.int64]) -> dict[str, Any]:
    """Figures and a histogram of documents' tokens, with bins of one width."""
    longest = int(lengths.max())
    width = max(1, -(-longest // NUM_BINS))
    found = np.bincount((lengths - 1) // width, minlength=1)
    return {
        "min": int(lengths.min()),
        "median": int(np.median(lengths)),
        "p95": int(np.percentile(lengths, 95)),
        "max": longest,
        "histogram": {
            f"{i * width + 1}-{(i + 1) * width}": int(n) for i, n in enumerate(found.tolist())
        },
    }


def to_markdown(report: Mapping[str, Any]) -> str:
    """The report to be read."""
    parts = [
        "# Curated set\n",
        f"{report['samples']} samples, {report['tokens']} tokens, of "
        f"{sum(report['read'].values())} records read; {report['passed_filters']} passed the "
        "filters (augmented ones included) before the mix.\n",
        "## Read\n",
        _table(["source", "records"], [[k, v] for k, v in report["read"].items()]),
        "## Dropped\n",
        _dropped(report["dropped"]),
    ]
    if report["broken"]:
        parts += ["The first broken records:\n", *(f"- {_line(b)}" for b in report["broken"]), ""]
    parts += [
        "## Verified\n",
        "What the answers of the samples that passed were verified by.\n",
        _table(["by", "samples"], [[k, v] for k, v in report["verified_by"].items()]),
    ]
    if report["augmented"]:
        columns = ("proposed", "verified", "kept")
        rows = [[k, *(v.get(c, 0) for c in columns)] for k, v in report["augmented"].items()]
        parts += ["## Augmented\n", _table(["augmentation", *columns], rows)]
    if report["rollouts"]:
        asked = report["rollouts"]
        parts += [
            "## Difficulty\n",
            f"{asked['problems']} problems, {asked.get('rollouts', 0)} rollouts, mean pass rate "
            f"{report['pass_rate']}.\n",
        ]
    overlap = report["overlap"]
    if overlap["evaluation_problems"]:
        rows = [
            [name, overlap.get("ngram", {}).get(name, 0), overlap.get("item", {}).get(name, 0)]
            for name in report["read"]
        ]
        parts += [
            "## Overlap with evaluation\n",
            f"{overlap['evaluation_problems']} evaluation problems. A sample shares an n-gram, or "
            "holds a whole problem; what of it was dropped stands above.\n",
            _table(["source", "share an n-gram", "hold a problem"], rows),
        ]
    parts.append("## Mix\n")
    for axis, values in report["mix"].items():
        total = sum(v.get("taken", 0) for v in values.values())
        rows = [
            [name, v["available"], v.get("taken", 0), f"{v.get('taken', 0) / max(1, total):.1%}"]
            for name, v in values.items()
        ]
        parts.append(_table([axis, "available", "taken", "share"], rows))
    parts += ["## Lengths\n", _histogram(report["lengths"])]
    return "\n".join(parts)


def to_json(report: Mapping[str, Any]) -> str:
    """The report as JSON text."""
    return json.dumps(report, indent=1, ensure_ascii=False) + "\n"


def _line(text: str) -> str:
    return " ".join(text.split())[:300]


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [" | ".join(head), " | ".join(["---", *["---:"] * (len(head) - 1)])]
    lines += [" | ".join(_line(str(value)).replace("|", "\\|") for value in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def _dropped(dropped: Mapping[str, Mapping[str, int]]) -> str:
    if not dropped:
        return "Nothing.\n"
    sources = sorted({source for by_source in dropped.values() for source in by_source})
    rows = [
        [reason, *(by_source.get(source, 0) for source in sources), sum(by_source.values())]
        for reason, by_source in dropped.items()
    ]
    return _table(["reason", *sources, "all"], rows)


def _histogram(lengths: Mapping[str, Any]) -> str:
    head = (
        f"Tokens of a document: shortest {lengths['min']}, median {lengths['median']}, 95th "
        f"percentile {lengths['p95']}, longest {lengths['max']}.\n"
    )
    most = max(lengths["histogram"].values())
    width = max(map(len, lengths["histogram"]))
    bars = [
        f"{name:>{width}} {'#' * round(n / most * _BAR)} {n}"
        for name, n in lengths["histogram"].items()
    ]
    return head + "\n```\n" + "\n".join(bars) + "\n```\n"
