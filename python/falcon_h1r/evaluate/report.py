"""The report of a result: one self-contained HTML file, one PNG, and the rows as JSON."""

import html
import json
from collections.abc import Sequence
from pathlib import Path

from falcon_h1r.evaluate.overlap import Overlap
from falcon_h1r.evaluate.records import write_whole
from falcon_h1r.evaluate.results import EvalResult
from falcon_h1r.evaluate.tables import accuracy_table, speed_table, to_html

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1150px; margin: 2em auto; padding: 0 1em;
  color: #222 }}
h1 {{ font-size: 1.5em }} h2 {{ font-size: 1.15em; margin-top: 2em }}
svg {{ width: 100%; height: auto }}
table {{ border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }}
th, td {{ padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: right }}
th:first-child, td:first-child {{ text-align: left }}
th {{ vertical-align: bottom }}
pre {{ background: #f4f4f4; padding: .7em; white-space: pre-wrap }}
p.note {{ color: #555; font-size: 13px }}
.scroll {{ overflow-x: auto }}
</style></head><body>
<h1>{title}</h1>
<p>{facts}</p>
<pre>{command}</pre>
{warning}
<h2>Speed x tokens x accuracy</h2>
{figure}
<h2>Accuracy, in percent</h2>
<div class="scroll">{accuracy}</div>
<p class="note">{meaning}</p>
<h2>Tokens, time and operations</h2>
<div class="scroll">{speed}</div>
<p class="note">{speed_meaning}</p>
<h2>How DeepConf's traces ended</h2>
<p>{stopped}</p>
<h2>Overlap with the training set</h2>
{overlap}
</body></html>
"""
_MEANING = (
    "In brackets 95 % intervals: bootstrap over problems; where all problems agree, Wilson's for "
    "as many. greedy: one trace at temperature 0. pass@K: unbiased, over all traces of the "
    "budget. majority: the plain vote of all traces in full. DeepConf: online, the same budget "
    "and the same seed of every problem, so that its traces are the same ones until they are "
    "stopped; the difference is paired. Tokens saved: measured against the full budget. Groups "
    "and all: every problem counts one."
)
_SPEED_MEANING = (
    "Problems run side by side: seconds a problem are the wall time of a run over its problems. "
    "Tokens are generated ones, all traces. Operations: products with weights, attention, "
    "convolution and state update (a multiply-add is two), the prompt once a problem."
)


def write_report(
    result: EvalResult, folder: str | Path, overlaps: Sequence[Overlap] = ()
) -> list[Path]:
    """Write results.json, report.html and, with the extra "report", report.png; return them."""
    from falcon_h1r.evaluate import figure

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = result.to_dict() | {"overlap": [overlap.sentence() for overlap in overlaps]}
    paths = [folder / "results.json", folder / "report.html"]
    write_whole(paths[0], json.dumps(data, indent=1) + "\n")
    drawn = ""
    if result.done() and figure.has_matplotlib():
        picture = figure.draw(result)
        drawn = figure.svg(picture)
        paths.append(folder / "report.png")
        write_whole(paths[-1], figure.png(picture))
    write_whole(paths[1], render(result, overlaps, drawn))
    return paths


def render(result: EvalResult, overlaps: Sequence[Overlap] = (), figure: str = "") -> str:
    """Return the report as one HTML page that loads nothing; `figure` is an SVG element."""
    header, model = result.header, result.header.get("model", {})
    done, asked = len(result.done()), len(result.items)
    warning = ""
    if done < asked:
        warning = (
            f"<p><b>Interrupted: {done} of {asked} problems. The same command goes on.</b></p>"
        )
    return _PAGE.format(
        title=html.escape(f"Evaluation of {model.get('name', 'a model')}"),
        facts=html.escape(facts(result)),
        command=html.escape(header.get("command") or "made by evaluate(), without a command"),
        warning=warning,
        figure=figure
        or "<p>No figure: <code>pip install 'falcon-h1r[report]'</code> and run it again.</p>",
        accuracy=to_html(accuracy_table(result)),
        meaning=html.escape(_MEANING),
        speed=to_html(speed_table(result)),
        speed_meaning=html.escape(_SPEED_MEANING),
        stopped=html.escape(stopped(result)),
        overlap="\n".join(f"<p>{html.escape(each.sentence())}</p>" for each in overlaps)
        or "<p>Not measured: name the training set with <code>--training-set</code>.</p>",
    )


def facts(result: EvalResult) -> str:
    """Return model, settings, machine and date in one line."""
    header = result.header
    model, config, machine = (header.get(key, {}) for key in ("model", "config", "machine"))
    parameters = model.get("num_parameters")
    deepconf = config.get("deepconf", {})
    words = [
        f"{parameters / 1e6:,.2f}M parameters" if parameters else "",
        f"{model.get('dtype')} on {model.get('device')}",
        f"weights {model['weights']}" if model.get("weights") else "",
        f"temperature {config.get('temperature')}, top_p {config.get('top_p')}, "
        f"max_tokens {config.get('max_tokens')}, seed {config.get('seed')}",
        f"DeepConf: confidence {deepconf.get('confidence')}, window {deepconf.get('window')}, "
        f"warmup {deepconf.get('warmup')}, keep {deepconf.get('keep')}, vote "
        f"{deepconf.get('vote')}, power {deepconf.get('power')}, consensus "
        f"{deepconf.get('consensus')}",
        f"{machine.get('processor')}, {machine.get('num_cores')} cores",
        str(header.get("date", "")),
    ]
    return "; ".join(word for word in words if word)


def stopped(result: EvalResult) -> str:
    """Return how DeepConf's traces ended, and how good its own estimate of the saving was."""
    total = result.total()
    if not total.stopped_by:
        return "DeepConf was not run."
    all_traces = sum(total.stopped_by.values())
    words = ", ".join(
        f"{count / all_traces:.1%} by {kind}" for kind, count in sorted(total.stopped_by.items())
    )
    text = f"{all_traces:,} traces: {words}."
    if total.saved is not None and total.saved_estimate is not None:
        text += (
            f" Tokens saved: {total.saved.value:.1%} measured, {total.saved_estimate:.1%} by "
            "DeepConf's own estimate."
        )
    if result.header.get("config", {}).get("replay"):
        text += " DeepConf was replayed over the full traces: the fewest tokens it can spend."
    if total.does_not_fit:
        text += f" {total.does_not_fit} problems did not fit the context and count as wrong."
    return text
