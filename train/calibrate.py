"""Chooses what a model's `thinking.json` says: the weights whose vote is right most often.

Traces are sampled on held-out problems of a seed of their own; each token's confidence is then
measured three ways by one packed forward, so that all measures are judged on the same traces. How
many weak traces to stop is chosen by replaying the votes of these traces.

Legend: T tokens of a batch, D model width, V vocabulary.
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from falcon_h1r.errors import ConfigError
from falcon_h1r.llm import LLM
from falcon_h1r.model.model import FalconH1ForCausalLM
from falcon_h1r.thinking.answers import AnswerClasses, equal
from falcon_h1r.thinking.deepconf import DeepConf
from falcon_h1r.thinking.prompts import encode_prompt
from falcon_h1r.train.calibration import (
    KEEPS,
    START,
    WARMUP,
    Calibration,
    Confidences,
    JudgedTrace,
    choose,
)
from falcon_h1r.train.checkpoint import MANIFEST, write_folder
from falcon_h1r.train.config import known_name, require
from falcon_h1r.train.held_out import COUNT
from falcon_h1r.train.tasks import EVALUATED, FAMILIES, held_out_problems

THINKING, CALIBRATION = "thinking.json", "calibration.json"

TOP = 20
CALIBRATION_SEED = 2
"""Of the held-out problems; evaluation (0) and training's measurements (1) use others."""


@torch.no_grad()
def measure_confidences(
    model: FalconH1ForCausalLM, prompt: Sequence[int], outputs: Sequence[Sequence[int]]
) -> list[Confidences]:
    """Each token's confidence in the three measures of DeepConf, from the raw logits.

    One mapping an output; all run behind the same prompt, in one packed forward.
    """
    device = model.lm_head.weight.device
    ends = np.cumsum([0] + [len(prompt) + len(output) for output in outputs])
    ids = torch.tensor([i for output in outputs for i in (*prompt, *output)], device=device)
    cu_seqlens = torch.tensor(ends, dtype=torch.int32, device=device)
    hidden = model.hidden_packed(ids, cu_seqlens)  # [T, D]
    measured: list[Confidences] = []
    for output, (start, end) in zip(outputs, pairwise(ends.tolist()), strict=True):
        logits = model.logits(hidden[start + len(prompt) - 1 : end - 1])
        logprobs = logits.cpu().double().log_softmax(-1)  # [T, V]
        k = min(TOP, logprobs.shape[1] // 10)
        chosen = logprobs.gather(1, torch.tensor(output)[:, None])[:, 0]
        measured.append(
            {
                "top_logprobs": -logprobs.topk(k).values.mean(-1).numpy(),
                "logprob": chosen.numpy(),
                "entropy": (logprobs.exp() * logprobs).sum(-1).numpy(),
            }
        )
    return measured


def judged_traces(
    llm: LLM, *, families: Iterable[str], levels: Iterable[int], problems: int, traces: int
) -> list[JudgedTrace]:
    """Sample full traces on held-out problems of every family and level; judge their answers.

    An easy level has so few problems that two seeds share some: those that evaluation asks are
    left out.
    """
    judged: list[JudgedTrace] = []
    ordinal = 0
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
            # One that met a NaN may have no token, and tells nothing.
            traces_run = [t for t in result.traces if t.stopped_by in ("stop", "length")]
            outputs = [trace.token_ids for trace in traces_run]
            measured = measure_confidences(llm.model, prompt, outputs) if outputs else []
            classes = AnswerClasses()
            for trace, confidences in zip(traces_run, measured, strict=True):
                answer = trace.answer if trace.stopped_by == "stop" else None
                judged.append(
                    JudgedTrace(
                        problem=ordinal,
                        answer_class=None if answer is None else classes.class_of(answer),
                        is_right=answer is not None and equal(answer, problem.answer),
                        confidences=confidences,
                    )
                )
            ordinal += 1
    return judged


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
) -> Calibration:
    """Write `output`: the model's files, a `thinking.json` and what it was chosen by.

    The folder appears whole or not at all. `problems` are per family and level; sampling is at
    temperature 0.7 over the whole distribution. A `keep` that is given is written as it is. Raises
    ConfigError, before anything is made, for a family that does not exist, a `keep` that is no
    share, and an output that is not of calibrate.
    """
    for family in families:
        known_name(family, FAMILIES, family, "a family of tasks")
    require(keep is None or 0 < keep <= 1, "keep", keep, "in (0, 1]")
    if output.exists() and not (output / CALIBRATION).exists():
        raise ConfigError(f"{output} was not written by calibrate; name another --output")
    thinking: dict[str, Any] = {
        **START, "warmup": WARMUP, "keep": keep or KEEPS[0],
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
        made.append(choose(judged, thinking, search_keep=keep is None))
        _write_json(folder / THINKING, made[0].thinking)
        _write_json(folder / CALIBRATION, asdict(made[0]))

    write_folder(output, fill)
    return made[0]


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
