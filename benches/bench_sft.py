"""Supervised training steps: our loop beside the same model in transformers and PyTorch.

The model and the mix of the reference recipe, one step of 4,096 slots, AdamW on both sides, one
thread. The peer gets the same documents padded, once as one batch and once sorted by length in
micro-batches of eight with accumulated gradients. Variants run in turns; what is compared is
processor time, which other work on the machine disturbs less than it does the clock. A rate is
that of the documents' tokens: padding does not count.

`products in bfloat16` is `torch.set_float32_matmul_precision("medium")`, on both sides.

Legend: B documents, L padded length.
"""

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from falcon_h1r.train.config import load_recipe
from falcon_h1r.train.recipe_sft import SftRecipe
from falcon_h1r.train.sft import SftRun

ROUNDS = 3
PRECISIONS = {"float32": "highest", "products in bfloat16": "medium"}
PARTS = ("draw", "forward and backward", "optimizer")
Documents = list[tuple[list[int], int]]
"""Token ids and how many of them are the prompt."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SftRun:
    overrides = ["optimizer.kind=adamw", "device=cpu", "parallel.processes=1"]
    recipe = load_recipe(SftRecipe, "reference_sft", overrides)
    return SftRun(recipe, tmp_path_factory.mktemp("sft"), print)


def documents_of(run: SftRun) -> tuple[Any, Documents]:
    """A packed step and its documents."""
    (rows,) = run.batches.draw()
    bounds = rows.cu_seqlens.tolist()
    documents: Documents = []
    for start, end in pairwise(bounds):
        learnt = np.flatnonzero(rows.loss_mask[start:end])
        if len(learnt):
            documents.append((rows.input_ids[start:end].tolist(), int(learnt[0]) + 1))
    return rows, documents


def padded(documents: Documents) -> tuple[Tensor, Tensor, Tensor]:
    """ids, attention mask and labels [B, L]."""
    length = max(len(ids) for ids, _ in documents)
    ids = torch.zeros(len(documents), length, dtype=torch.int64)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, (tokens, prompt) in enumerate(documents):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
        labels[row, prompt : len(tokens)] = ids[row, prompt : len(tokens)]
    return ids, mask, labels


def peer_step(run: SftRun, tmp_path: Path) -> Callable[[list[Documents]], float]:
    """One step of transformers and torch.optim.AdamW over micro-batches: step(...) -> loss."""
    from transformers import FalconH1ForCausalLM

    run.model.save_pretrained(tmp_path)
    peer = FalconH1ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(peer.parameters(), lr=1e-6, betas=(0.9, 0.95))

    def step(batches: list[Documents]) -> float:
        optimizer.zero_grad()
        count = sum(len(ids) - prompt for batch in batches for ids, prompt in batch)
        total = 0.0
        for batch in batches:
            ids, mask, labels = padded(batch)
            logits = peer(input_ids=ids, attention_mask=mask).logits
            loss = F.cross_entropy(
                logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
            )
            (loss / count).backward()
            total += float(loss.detach()) / count
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        optimizer.step()
        return total

    return step


def our_step(run: SftRun, rows: Any) -> float:
    run.accumulate([rows])
    losses, learnt, *_ = run.gradients.sum(run.group)
    run.gradients.average_and_clip(learnt, 1.0)
    run.optimizer.step(1e-6, 0, run.gradients.by_name)
    return losses / learnt


@pytest.mark.parametrize("precision", PRECISIONS)
def bench_a_step_beside_transformers(
    run: SftRun, precision: str, tmp_path: Path, record: Callable[[dict[str, Any]], None]
) -> None:
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision(PRECISIONS[precision])
    rows, documents = documents_of(run)
    by_length = sorted(documents, key=lambda d: len(d[0]))
    groups = [by_length[i : i + 8] for i in range(0, len(by_length), 8)]
    peer = peer_step(run, tmp_path)
    variants: dict[str, Callable[[], float]] = {
        "ours": lambda: our_step(run, rows),
        "transformers, one padded batch": lambda: peer([documents]),
        "transformers, sorted by length in eights": lambda: peer(groups),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    losses: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, step in variants.items():
            began = time.process_time()
            losses[name] = step()
            seconds[name].append(time.process_time() - began)
    torch.set_float32_matmul_precision("highest")
    ours = median(seconds["ours"])
    assert max(losses.values()) - min(losses.values()) < 0.02 * max(losses.values())
    for name in variants:
        spent = median(seconds[name])
        record(
            {
                "variant": name,
                "precision": precision,
                "documents": len(documents),
                "tokens": rows.num_tokens,
                "fill": rows.fill,
                "cpu_seconds": spent,
                "tokens_per_cpu_second": rows.num_tokens / spent,
                "ours_is_faster_by": spent / ours,
                "loss": losses[name],
            }
        )


def bench_where_a_step_goes(run: SftRun, record: Callable[[dict[str, Any]], None]) -> None:
    """Processor time of the parts of a step of the reference recipe."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("medium")
    parts: dict[str, list[float]] = {name: [] for name in PARTS}
    for _ in range(ROUNDS):
        marks = [time.process_time()]
        batch = run.batches.draw()
        marks.append(time.process_time())
        run.accumulate(batch)
        marks.append(time.process_time())
        run.gradients.average_and_clip(1000.0, 1.0)
        run.optimizer.step(1e-6, 0, run.gradients.by_name)
        marks.append(time.process_time())
        for name, (start, end) in zip(PARTS, pairwise(marks), strict=True):
            parts[name].append(end - start)
    torch.set_float32_matmul_precision("highest")
    total = sum(median(values) for values in parts.values())
    for name, values in parts.items():
        record({"part": name, "cpu_seconds": median(values), "share": median(values) / total})
