"""Chooses what a model's `thinking.json` says: the confidence that tells right from wrong best.

Traces are sampled on held-out problems of a seed of their own; each token's confidence is then
measured three ways by one packed forward, so that all measures are judged on the same traces.

Legend: T tokens of a batch, V vocabulary.
"""

import json
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from falcon_h1r.errors import ConfigError
from falcon_h1r.llm import LLM
from falcon_h1r.model.model import FalconH1ForCausalLM
from falcon_h1r.thinking.answers import equal
from falcon_h1r.thinking.deepconf import DeepConf
from falcon_h1r.thinking.prompts import encode_prompt
from falcon_h1r.train.checkpoint import MANIFEST, write_folder
from falcon_h1r.train.config import known_name, require
from falcon_h1r.train.held_out import COUNT
from falcon_h1r.train.tasks import EVALUATED, FAMILIES, held_out_problems

THINKING, CALIBRATION = "thinking.json", "calibration.json"

CALIBRATION_SEED = 2
"""Of the held-out problems; evaluation (0) and training's measurements (1) use others."""
MEASURES = ("top_logprobs", "logprob", "entropy")
WINDOWS = (8, 12, 16, 24, 32)
TOP = 20

Confidences = dict[str, NDArray[np.float64]]
Auroc = dict[str, dict[str, dict[str, float]]]
"""Measure -> window -> family and level -> AUROC, and their "mean" where there is any."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedTrace:
    """A finished trace, whether its answer is right, and its tokens' confidences by measure."""

    family: str
    """Family and level: a hard level is no evidence against a trace of an easy one."""
    is_right: bool
    confidences: Confidences


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What was chosen, and by what."""

    thinking: dict[str, Any]
    """What `thinking.json` says."""
    auroc: Auroc
    right: int
    """Traces that ended and were right."""
    wrong: int


def lowest_group(confidences: NDArray[np.float64], window: int) -> float:
    """Smallest mean of `window` tokens in a row; the mean of all while there are fewer."""
    if len(confidences) < window:
        return float(confidences.mean())
    sums = np.concatenate([[0.0], confidences.cumsum()])
    return float((sums[window:] - sums[:-window]).min() / window)


def auroc(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Chance that a right trace scores above a wrong one; ties count half."""
    if not right or not wrong:
        raise ValueError("both right and wrong traces are needed")
    difference = np.array(right)[:, None] - np.array(wrong)[None, :]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


@torch.no_grad()
def measure_confidences(
    model: FalconH1ForCausalLM, prompt: Sequence[int], output: Sequence[int]
) -> Confidences:
    """Each output token's confidence in the three measures of DeepConf, from the raw logits."""
    device = model.lm_head.weight.device
    ids = torch.tensor([*prompt, *output], device=device)
    cu_seqlens = torch.tensor([0, len(ids)], dtype=torch.int32, device=device)
    hidden = model.hidden_packed(ids, cu_seqlens)[len(prompt) - 1 : -1]
    logprobs = model.logits(hidden).cpu().double().log_softmax(-1)  # [T, V]
    k = min(TOP, logprobs.shape[1] // 10)
    chosen = logprobs.gather(1, torch.tensor(output)[:, None])[:, 0]
    return {
        "top_logprobs": -logprobs.topk(k).values.mean(-1).numpy(),
        "logprob": chosen.numpy(),
        "entropy": (logprobs.exp() * logprobs).sum(-1).numpy(),
    }


def judged_traces(
    llm: LLM, *, families: Iterable[str], levels: Iterable[int], problems: int, traces: int
) -> list[JudgedTrace]:
    """Sample full traces on held-out problems of every family and level; judge their answers.

    An easy level has so few problems that two seeds share some: those that evaluation asks are
    left out.
    """
    judged: list[JudgedTrace] = []
    for family, level in product(families, levels):
        evaluated = {p.problem for p in held_out_problems(family, COUNT, level=level)}
        found = held_out_problems(family, problems, level=level, seed=CALIBRATION_SEED)
        asked = [p for p in found if p.problem not in evaluated]
        if not asked:  # a level that is only a drill
            continue
        results = llm.think(
            [p.problem for p in asked], DeepConf(mode="offline", budget=traces, consensus=None)
        )
        for problem, result in zip(asked, results, strict=True):
            prompt = encode_prompt(llm.tokenizer, problem.problem)
            for trace in result.traces:
                if trace.stopped_by != "stop":
                    continue
                is_right = trace.answer is not None and equal(trace.answer, problem.answer)
                judged.append(
                    JudgedTrace(
                        family=f"{family}@{level}",
                        is_right=is_right,
                        confidences=measure_confidences(llm.model, prompt, trace.token_ids),
                    )
                )
    return judged


def score(traces: Iterable[JudgedTrace], measure: str, window: int) -> dict[str, float]:
    """AUROC of the lowest group by family (those with right and wrong traces), and their mean."""
    by_family: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for trace in traces:
        right, wrong = by_family[trace.family]
        value = lowest_group(trace.confidences[measure], window)
        (right if trace.is_right else wrong).append(value)
    scores = {f: auroc(r, w) for f, (r, w) in by_family.items() if r and w}
    if scores:
        scores["mean"] = sum(scores.values()) / len(scores)
    return scores


def calibrate(
    model: Path,
    output: Path,
    *,
    families: Sequence[str] = EVALUATED,
    levels: Sequence[int] = (2, 3),
    problems: int = 12,
    traces: int = 12,
    keep: float = 0.7,
    max_tokens: int = 512,
) -> Calibration:
    """Write `output`: the model's files, a `thinking.json` and what it was chosen by.

    The folder appears whole or not at all. `problems` are per family and level; sampling is at
    temperature 0.7 over the whole distribution. `keep` is not searched for: `falcon-h1r bench keep`
    measures what it costs (docs/deepconf.md). Raises ConfigError, before anything is made, for a
    family that does not exist, a `keep` that is no share, and an output that is not of calibrate.
    """
    for family in families:
        known_name(family, FAMILIES, family, "a family of tasks")
    require(0 < keep <= 1, "keep", keep, "in (0, 1]")
    if output.exists() and not (output / CALIBRATION).exists():
        raise ConfigError(f"{output} was not written by calibrate; name another --output")
    thinking: dict[str, Any] = {
        "confidence": "logprob", "window": 16, "warmup": 8, "keep": keep,
        "max_tokens": max_tokens, "temperature": 0.7, "top_p": 1.0,
    }  # fmt: skip
    made: list[Calibration] = []

    def fill(folder: Path) -> None:
        for path in (*model.glob("*.json"), *model.glob("*.safetensors"), *model.glob("*.jinja")):
            if path.name not in (MANIFEST, CALIBRATION):
                shutil.copy(path, folder / path.name)
        _write_json(folder / THINKING, thinking)  # what the traces are sampled with
        with LLM(folder) as llm:
            judged = judged_traces(
                llm, families=families, levels=levels, problems=problems, traces=traces
            )
        made.append(choose(judged, thinking))
        _write_json(folder / THINKING, made[0].thinking)
        _write_json(folder / CALIBRATION, asdict(made[0]))

    write_folder(output, fill)
    return made[0]


def choose(judged: Sequence[JudgedTrace], thinking: dict[str, Any]) -> Calibration:
    """Put the measure and window of the highest mean AUROC into `thinking`.

    Where no family has both right and wrong traces nothing can be told apart: it stays as it is.
    """
    table = {m: {str(w): score(judged, m, w) for w in WINDOWS} for m in MEASURES}
    told = [(table[m][str(w)]["mean"], m, w) for m in MEASURES for w in WINDOWS
            if "mean" in table[m][str(w)]]  # fmt: skip
    if told:
        _, measure, window = max(told, key=lambda each: each[0])
        thinking = thinking | {"confidence": measure, "window": window}
    right = sum(trace.is_right for trace in judged)
    return Calibration(thinking=thinking, auroc=table, right=right, wrong=len(judged) - right)


def calibration_section(found: Calibration) -> str:
    """What a card says of the choice, in Markdown without a heading."""
    thinking = found.thinking
    groups = max(
        (len(row) - 1 for rows in found.auroc.values() for row in rows.values()), default=0
    )
    lines = [
        f"`thinking.json` says {thinking['confidence']}, window {thinking['window']}: the highest "
        f"AUROC of telling {found.right} right from {found.wrong} wrong traces by their lowest "
        f"group, mean over the {max(0, groups)} families and levels that have both, on held-out "
        "problems that no other table uses (`falcon-h1r calibrate`).",
        "",
        "| measure | " + " | ".join(f"window {w}" for w in WINDOWS) + " |",
        "| --- |" + " ---: |" * len(WINDOWS),
    ]
    for measure, rows in found.auroc.items():
        means = [rows[str(w)].get("mean") for w in WINDOWS]
        cells = ["-" if mean is None else f"{mean:.3f}" for mean in means]
        lines.append(f"| {measure} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
