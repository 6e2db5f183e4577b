"""Chooses what a model's `thinking.json` says: the weights whose vote is right most often.

Traces are sampled on held-out problems of a seed of their own; each token's confidence is then
measured three ways by one packed forward, so that all measures are judged on the same traces. How
many weak traces to stop is chosen by replaying the votes of these traces.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from falcon_h1r.errors import ConfigError
from falcon_h1r.hub import read_object
from falcon_h1r.llm import LLM
from falcon_h1r.model.weights import tensor_files
from falcon_h1r.train.calibration import KEEPS, START, WARMUP, Calibration, choose
from falcon_h1r.train.checkpoint import MANIFEST, write_folder
from falcon_h1r.train.config import known_name, require
from falcon_h1r.train.judged import Part, judged_traces
from falcon_h1r.train.loop import make_folder, named, sole_run
from falcon_h1r.train.tasks import EVALUATED, FAMILIES

THINKING, CALIBRATION = "thinking.json", "calibration.json"


def calibrate(
    model: Path,
    output: Path,
    *,
    families: Sequence[str] = EVALUATED,
    levels: Sequence[int] = (2, 3),
    problems: int = 16,
    traces: int = 16,
    keep: float | None = None,
    max_tokens: int = 512,
    watch: Callable[[Part], None] | None = None,
) -> Calibration:
    """Write `output`: the model's files, a `thinking.json` and what it was chosen by.

    The folder appears whole or not at all. Until then what is sampled lies in `NAME.work` beside
    it, and the same call goes on there after Ctrl-C or a kill. `problems` are per family and level;
    sampling is at temperature 0.7 over the whole distribution. A `keep` that is given is written as
    it is, and so is the model's own system prompt.

    Raises ConfigError, before anything is made, for a family that does not exist, a `keep` that is
    no share, an output that is not of calibrate, and one that another process makes; TrainingError
    when the disk refuses.
    """
    output = named(output)
    for family in families:
        known_name(family, FAMILIES, family, "a family of tasks")
    require(keep is None or 0 < keep <= 1, "keep", keep, "in (0, 1]")
    if output.exists() and not (output / CALIBRATION).exists():
        raise ConfigError(f"{output} was not written by calibrate; name another --output")
    thinking: dict[str, Any] = {
        **START, "warmup": WARMUP, "keep": keep or KEEPS[0],
        "max_tokens": max_tokens, "temperature": 0.7, "top_p": 1.0,
    }  # fmt: skip
    tensor_files(model)  # refuses what is no model
    own = read_object(model / THINKING)
    thinking |= {key: own[key] for key in ("system_prompt",) if key in own}
    made: list[Calibration] = []
    work = output.with_name(f"{output.name}.work")

    def fill(folder: Path) -> None:
        for path in (*model.glob("*.json"), *model.glob("*.safetensors"), *model.glob("*.jinja")):
            if path.name not in (MANIFEST, CALIBRATION):
                shutil.copy(path, folder / path.name)
        _write_json(folder / THINKING, thinking)  # what the traces are sampled with
        with LLM(folder) as llm:
            judged = judged_traces(
                llm, families=families, levels=levels, problems=problems, traces=traces,
                store=work / "judged", watch=watch,
            )  # fmt: skip
        made.append(choose(judged, thinking, search_keep=keep is None))
        _write_json(folder / THINKING, made[0].thinking)
        _write_json(folder / CALIBRATION, asdict(made[0]))

    make_folder(work)
    with sole_run(work):
        try:
            write_folder(output, fill)
        finally:
            if made or not (work / "judged").exists():  # else there is something to go on with
                shutil.rmtree(work, ignore_errors=True)
    return made[0]


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
