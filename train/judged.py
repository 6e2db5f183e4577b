"""Traces on held-out problems, judged right or wrong and measured three ways: what `calibrate`
chooses by. Kept a family and level at a time, so that a run that was stopped goes on.

Legend: T tokens of a batch, D model width, V vocabulary, N traces of a family and level.
"""

import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from falcon_h1r.evaluate.records import write_whole
from falcon_h1r.evaluate.run import describe_model
from falcon_h1r.llm import LLM
from falcon_h1r.model.model import FalconH1ForCausalLM
from falcon_h1r.thinking.answers import AnswerClasses, equal
from falcon_h1r.thinking.deepconf import DeepConf
from falcon_h1r.thinking.prompts import encode_prompt
from falcon_h1r.train.calibration import MEASURES, Confidences, JudgedTrace
from falcon_h1r.train.held_out import COUNT
from falcon_h1r.train.loop import disk_errors
from falcon_h1r.train.tasks import held_out_problems

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


def sample_and_judge(
    llm: LLM, problems: Sequence[tuple[str, str]], traces: int
) -> list[JudgedTrace]:
    """Sample full traces on (problem, answer) pairs, by what the model's folder says.

    Problems are numbered from 0. Raises KeyboardInterrupt when Ctrl-C came before all had ended.
    """
    results = llm.thinking(
        [problem for problem, _ in problems],
        DeepConf(mode="offline", budget=traces, consensus=None),
        seeds=[_seed_of(problem) for problem, _ in problems],
    ).run()
    if any(result.partial for result in results):
        raise KeyboardInterrupt
    judged: list[JudgedTrace] = []
    for number, ((problem, right), result) in enumerate(zip(problems, results, strict=True)):
        prompt = encode_prompt(llm.tokenizer, problem, llm.thinking_defaults.system_prompt)
        # One that met a NaN may have no token, and tells nothing.
        traces_run = [t for t in result.traces if t.stopped_by in ("stop", "length")]
        outputs = [trace.token_ids for trace in traces_run]
        measured = measure_confidences(llm.model, prompt, outputs) if outputs else []
        classes = AnswerClasses()
        for trace, confidences in zip(traces_run, measured, strict=True):
            answer = trace.answer if trace.stopped_by == "stop" else None
            judged.append(
                JudgedTrace(
                    problem=number,
                    answer_class=None if answer is None else classes.class_of(answer),
                    is_right=answer is not None and equal(answer, right),
                    confidences=confidences,
                )
            )
    return judged


def _seed_of(problem: str) -> int:
    """A seed, 64 bits, that depends on nothing that was asked before."""
    digest = hashlib.blake2b(f"{CALIBRATION_SEED} {problem}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """How far the sampling is."""

    done: int
    total: int
    name: str
    """FAMILY@LEVEL that was just done."""
    right: float
    """Share of its traces that are right."""
    kept: bool
    """An earlier run had sampled it."""


def judged_traces(
    llm: LLM,
    *,
    families: Sequence[str],
    levels: Sequence[int],
    problems: int,
    traces: int,
    store: Path,
    watch: Callable[[Part], None] | None = None,
) -> list[JudgedTrace]:
    """Sample full traces on held-out problems of every family and level; judge their answers.

    An easy level has so few problems that two seeds share some: those that evaluation asks, in
    whatever words, are left out. `store` is a folder for what is done, used again by the same call;
    it stays. Raises TrainingError when the disk refuses.
    """
    kept = TraceStore(store, _made_by(llm, problems, traces))
    judged: list[JudgedTrace] = []
    num_problems = 0
    parts = list(product(families, levels))
    for done, (family, level) in enumerate(parts, 1):
        name = f"{family}@{level}"
        found = kept.get(name)
        was_kept = found is not None
        if found is None:
            evaluated = {p.keys[0] for p in held_out_problems(family, COUNT, level=level)}
            drawn = held_out_problems(family, problems, level=level, seed=CALIBRATION_SEED)
            asked = [(p.problem, p.answer) for p in drawn if p.keys[0] not in evaluated]
            # None of a level that is only a drill.
            found = sample_and_judge(llm, asked, traces) if asked else []
            kept.put(name, found)
        judged += [replace(each, problem=each.problem + num_problems) for each in found]
        num_problems += max((each.problem + 1 for each in found), default=0)
        if watch is not None:
            right = sum(each.is_right for each in found) / max(1, len(found))
            watch(Part(done=done, total=len(parts), name=name, right=right, kept=was_kept))
    return judged


def _made_by(llm: LLM, problems: int, traces: int) -> str:
    """What the traces depend on, beside family and level."""
    model = describe_model(llm)
    files = sorted(llm.folder.glob("*.json")) if llm.folder else []  # tokenizer, thinking, ...
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    ways = (model["weights"], model["dtype"], *digests, CALIBRATION_SEED, problems, traces)
    return " ".join(map(str, ways)) + "\n"


class TraceStore:
    """Judged traces in a folder, a file a family and level; each is there whole or not at all.

    What was made by something else than `made_by` is removed.
    """

    def __init__(self, folder: Path, made_by: str) -> None:
        self.folder = folder
        stamp = folder / "made_by.txt"
        with disk_errors(folder):
            if not stamp.exists() or stamp.read_text(encoding="utf-8") != made_by:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                write_whole(stamp, made_by)

    def get(self, name: str) -> list[JudgedTrace] | None:
        """What was kept by this name; None: nothing, or a file that cannot be read."""
        try:
            # Opened here: numpy leaves a damaged file open.
            with self._path(name).open("rb") as file, np.load(file) as found:
                arrays: dict[str, Any] = {key: found[key] for key in found.files}
            return _traces_of(arrays)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, name: str, traces: Sequence[JudgedTrace]) -> None:
        """Keep traces by a name; TrainingError when the disk refuses."""
        path = self._path(name)
        draft = path.with_name(path.name + ".part")
        with disk_errors(path):
            with draft.open("wb") as file:
                np.savez(file, **_arrays_of(traces))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"


def _arrays_of(traces: Sequence[JudgedTrace]) -> dict[str, Any]:
    lengths = [len(trace.confidences[MEASURES[0]]) for trace in traces]
    classes = [-1 if trace.answer_class is None else trace.answer_class for trace in traces]
    arrays = {
        "problem": np.array([trace.problem for trace in traces], np.int64),  # [N], as the next
        "answer_class": np.array(classes, np.int64),
        "is_right": np.array([trace.is_right for trace in traces], np.bool_),
        "length": np.array(lengths, np.int64),
    }
    for measure in MEASURES:  # of all tokens, trace after trace
        parts = [trace.confidences[measure] for trace in traces]
        arrays[measure] = np.concatenate([np.zeros(0), *parts])
    return arrays


def _traces_of(arrays: dict[str, Any]) -> list[JudgedTrace]:
    ends = np.cumsum(arrays["length"])[:-1]
    split = {measure: np.split(arrays[measure], ends) for measure in MEASURES}
    return [
        JudgedTrace(
            problem=int(arrays["problem"][i]),
            answer_class=None if arrays["answer_class"][i] < 0 else int(arrays["answer_class"][i]),
            is_right=bool(arrays["is_right"][i]),
            confidences={measure: split[measure][i] for measure in MEASURES},
        )
        for i in range(len(arrays["length"]))
    ]
