"""Supervised fine-tuning: documents -> packed micro-batches -> safetensors, resumable.

The loop reads top to bottom in `SftRun.train`. Everything a step depends on is in the checkpoint:
weights, optimizer state, the step, and which documents are drawn but not yet placed.

The loss is the mean over the learnt tokens of all processes and micro-batches of a step, so that
each token weighs the same wherever it is computed (Falcon-H1R, arXiv 2601.02346, section 3).
"""

import math
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from falcon_h1r.errors import TrainingError
from falcon_h1r.tokenizer import Tokenizer
from falcon_h1r.train import checkpoint, distributed
from falcon_h1r.train.batches import Batches
from falcon_h1r.train.chain_accuracy import measure_held_out
from falcon_h1r.train.config import RECIPE, load_recipe
from falcon_h1r.train.distributed import Group
from falcon_h1r.train.export import export
from falcon_h1r.train.gradients import FlatGradients
from falcon_h1r.train.loop import (
    CHECKPOINTS,
    FINAL,
    MetricsLog,
    Progress,
    Report,
    flushed_denormals,
    keep_recipe,
    sole_run,
    stop_on_interrupt,
)
from falcon_h1r.train.optimizer import make_optimizer
from falcon_h1r.train.packing import PackedRows
from falcon_h1r.train.recipe_sft import SftRecipe
from falcon_h1r.train.start import (
    VOCABULARY,
    build_model,
    held_out_documents,
    load_weights,
    open_source,
    pick_device,
    prepare_output,
    prepare_vocabulary,
)

METHOD = "sft"
LOSS, LEARNT, SEEN, STOP, SAVE = range(5)
"""What is summed over processes behind the gradients: the losses, the tokens learnt, all tokens of
documents, and who wants to stop or to save."""


class SftRun:
    """One run in a folder: what is trained, where it stands, how it is saved."""

    def __init__(
        self, recipe: SftRecipe, output: Path, report: Report, group: Group | None = None
    ) -> None:
        self.recipe, self.output, self.report = recipe, output, report
        self.group = group or Group()
        self.device = pick_device(recipe.device, recipe.parallel.processes)
        if self.group.rank == 0:
            prepare_vocabulary(recipe, output)
        self.group.wait_for_first()
        self.encoder = Tokenizer.from_pretrained(output / VOCABULARY)
        self.model = build_model(recipe, self.encoder, self.device)
        self.optimizer = make_optimizer(self.model, recipe.optimizer)
        self.gradients = FlatGradients(self.optimizer, 5)
        lanes = recipe.parallel.lanes
        self.batches = Batches(
            open_source(recipe, self.encoder),
            lanes=range(self.group.rank, lanes, self.group.size),
            num_lanes=lanes,
            rows=recipe.data.rows // lanes,
            row_length=recipe.data.row_length,
        )
        self.held_out = held_out_documents(recipe)
        self.step = self.tokens = self.skipped = 0
        self.seconds = 0.0

    # State

    def resume(self) -> bool:
        """Take over the newest whole checkpoint; False when there is none."""
        path = checkpoint.latest_checkpoint(self.output / CHECKPOINTS, self.report)
        if path is None:
            return False
        tensors, state = checkpoint.load_checkpoint(path)
        checkpoint.check_method(state, METHOD, path)
        if state["lora_alpha"] != self.lora_alpha():
            raise TrainingError(
                f"{path.name} was saved with lora.alpha {state['lora_alpha']}, the recipe has "
                f"{self.lora_alpha()}; resume with the recipe it was saved with, or --fresh"
            )
        drawn = state["lanes"]
        if len(drawn) != self.batches.num_lanes:
            raise TrainingError(
                f"{path.name} was saved with {len(drawn)} micro-batches a step; "
                "parallel.processes * parallel.accumulation must be that many, or use --fresh"
            )
        load_weights(self.model, tensors["model"], path)
        self.optimizer.load_state(tensors["optimizer"])
        self.batches.load(torch.tensor(drawn))
        self.step, self.tokens = state["step"], state["tokens"]
        self.seconds, self.skipped = state["seconds"], state["skipped"]
        return True

    def save(self) -> None:
        """Write a checkpoint of this moment; every process takes part, the first one writes."""
        lanes = self.batches.state()
        self.group.sum(lanes)
        if self.group.rank == 0:
            state = {
                "method": METHOD,
                "lora_alpha": self.lora_alpha(),
                "step": self.step,
                "tokens": self.tokens,
                "skipped": self.skipped,
                "seconds": self.seconds,
                "lanes": lanes.tolist(),
            }
            tensors = {"model": self.weights(), "optimizer": self.optimizer.state}
            keep = self.recipe.keep_checkpoints
            checkpoint.save_checkpoint(self.output / CHECKPOINTS, self.step, tensors, state, keep)
        self.group.wait_for_first()

    def weights(self) -> dict[str, Tensor]:
        """Every trainable parameter once."""
        return {n: p.detach() for n, p in self.model.named_parameters() if p.requires_grad}

    def lora_alpha(self) -> float | None:
        """How loud the adapters are: no shape tells it, so that a checkpoint must."""
        return None if self.recipe.lora is None else self.recipe.lora.alpha

    # Loop

    def loss(self, rows: PackedRows) -> Tensor:
        """Sum of the cross entropies of a micro-batch's learnt tokens."""
        wanted = torch.from_numpy(rows.loss_mask.nonzero()[0]).to(self.device)
        targets = torch.from_numpy(rows.targets).to(self.device)[wanted]
        hidden = self.model.hidden_packed(
            torch.from_numpy(rows.input_ids).to(self.device),
            torch.from_numpy(rows.cu_seqlens).to(self.device),
        )
        losses = self.model.token_losses(hidden[wanted], targets)
        return losses.sum(dtype=self.gradients.flat.dtype)

    def accumulate(self, batch: Sequence[PackedRows]) -> None:
        """Add up gradients and sums of this process's micro-batches."""
        self.gradients.zero()
        sums = self.gradients.sums
        for rows in batch:
            loss = self.loss(rows)
            loss.backward()  # type: ignore[no-untyped-call]
            sums[LOSS] += loss.detach()
            sums[LEARNT] += int(rows.loss_mask.sum())
            sums[SEEN] += rows.num_tokens

    def train(self, stop: threading.Event) -> None:
        """Run until the last step or until `stop`; always ends with a checkpoint."""
        recipe, rates, group = self.recipe, self.recipe.optimizer, self.group
        is_first = group.rank == 0
        progress = Progress(self.report, rates.steps)
        log = MetricsLog(self.output, self.step, recipe.tensorboard) if is_first else nullcontext()
        in_a_row, saved_step, last_save, stopping = 0, self.step, time.monotonic(), False
        with log as metrics:
            while self.step < rates.steps and not stopping:
                began = time.monotonic()
                batch = self.batches.draw()
                self.accumulate(batch)
                self.gradients.sums[STOP] = stop.is_set()
                self.gradients.sums[SAVE] = (
                    is_first and began - last_save > recipe.checkpoint_seconds
                )
                losses, learnt, seen, stops, saves = self.gradients.sum(group)
                loss, scale = losses / learnt, rates.scale(self.step)
                norm = self.gradients.average_and_clip(learnt, rates.max_grad_norm)
                if math.isfinite(loss) and math.isfinite(norm):
                    self.optimizer.step(scale, self.step, self.gradients.by_name)
                    in_a_row = 0
                else:
                    in_a_row += 1
                    self.skipped += 1
                    self.report(f"step {self.step + 1} skipped: loss {loss}, gradient norm {norm}")
                if in_a_row >= recipe.max_non_finite:
                    raise TrainingError(
                        f"{in_a_row} steps in a row had a non-finite loss (step {self.step}); "
                        "lower optimizer.muon_lr or adam_lr and resume"
                    )
                self.step += 1
                self.tokens += int(seen)
                spent = time.monotonic() - began
                self.seconds += spent
                line: dict[str, Any] = {
                    "loss": loss, "grad_norm": norm, "lr_scale": scale, "num_tokens": self.tokens,
                    "fill": seen / (recipe.data.rows * recipe.data.row_length),
                    "skipped": self.skipped, "seconds": self.seconds,
                    "tokens_per_second": seen / spent,
                }  # fmt: skip
                every = recipe.evaluate_every
                if every and (self.step % every == 0 or self.step == rates.steps):
                    line["held_out"] = self.evaluate()
                    self.report(f"step {self.step} held-out chains {line['held_out']}")
                if metrics is not None:
                    metrics.write(self.step - 1, line)
                    progress.update(self.step, int(seen), f"loss {loss:.4f}")
                stopping = stops > 0
                if saves > 0 or stopping or self.step == rates.steps:
                    if metrics is not None:
                        metrics.sync()
                    self.save()
                    saved_step, last_save = self.step, time.monotonic()
        assert saved_step == self.step

    def evaluate(self) -> dict[str, float]:
        """Share of held-out problems a family whose whole chain is the model's first choice.

        With `data.held_out` also the same of its documents ("set") and their loss ("set_loss").
        """
        recipe = self.recipe
        return measure_held_out(
            self.model,
            self.encoder,
            families=recipe.data.families,
            count=recipe.evaluate_count,
            documents=self.held_out,
            group=self.group,
        )


def train_as_rank(
    recipe: SftRecipe, output: Path, report: Report, *, fresh: bool = False
) -> Path | None:
    """Train as one process of the run, alone or one of several; see `run_sft`."""
    on_gpus = pick_device(recipe.device, recipe.parallel.processes).type == "cuda"
    parallel = recipe.parallel
    group = distributed.join(parallel.processes, parallel.timeout_seconds, on_gpus)
    alone: AbstractContextManager[None] = nullcontext()
    if group.rank != 0:
        report = _silent
    elif not distributed.is_launched():
        prepare_output(recipe, output, fresh)
        alone = sole_run(output)
    with alone:
        return _train(recipe, output, report, group)


def _train(recipe: SftRecipe, output: Path, report: Report, group: Group) -> Path | None:
    """Resume, train and export; None when it was interrupted."""
    threads = recipe.parallel.num_threads()
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(threads or before[0])
    torch.set_float32_matmul_precision(recipe.matmul_precision)
    final = output / FINAL
    try:
        run = SftRun(recipe, output, report, group)
        if run.resume():
            report(f"resumed at step {run.step}")
        if group.rank == 0:
            keep_recipe(output / RECIPE, recipe)  # not before its checkpoints were accepted
        with stop_on_interrupt(report) as stop, flushed_denormals():
            run.train(stop)
        if run.step < recipe.optimizer.steps:
            return None
        if group.rank == 0:
            export(run.model, recipe, output)
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])
        distributed.leave()
    return final


def run_sft(
    recipe: str | Path,
    output: str | Path,
    overrides: Sequence[str] = (),
    *,
    fresh: bool = False,
    report: Report = print,
) -> Path | None:
    """Train by a recipe (name or path) in the folder `output`; the same call again resumes.

    Returns the folder `output/final` that `from_pretrained` loads, or None when it was interrupted
    (a checkpoint is there). Raises ConfigError for a bad recipe, TrainingError for damaged state,
    WorkerDied when one of several processes ended.
    """
    resolved, output = load_recipe(SftRecipe, recipe, overrides), Path(output)
    parallel = resolved.parallel
    if parallel.processes == 1 or distributed.is_rank():
        return train_as_rank(resolved, output, report, fresh=fresh)
    prepare_output(resolved, output, fresh)
    handed = output / ".launched.yaml"
    before = _made(output)
    with sole_run(output), stop_on_interrupt(_silent) as stop:
        keep_recipe(handed, resolved)
        try:
            distributed.launch(
                "falcon_h1r.train.worker",
                [str(handed)],
                parallel.processes,
                parallel.num_threads() or 1,
                stop,
                report,
            )
        finally:
            handed.unlink(missing_ok=True)
    return output / FINAL if _made(output) not in (None, before) else None


def _made(output: Path) -> int | None:
    """Which `final` there is: every export has a manifest of its own."""
    path = output / FINAL / checkpoint.MANIFEST
    return path.stat().st_ino if path.exists() else None


def _silent(text: str) -> None:
    """Say nothing: another process speaks for the run."""
