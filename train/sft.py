"""Supervised fine-tuning from scratch: generators -> packed rows -> safetensors, resumable.

The loop reads top to bottom in `SftRun.train`. Everything a step depends on is in the checkpoint:
weights, optimizer state, the step, and which documents are drawn but not yet placed.

Legend: R rows, L row length, T = R * L tokens of a step.
"""

import json
import math
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from falcon_h1r.errors import TrainingError
from falcon_h1r.model.config import FalconH1Config
from falcon_h1r.model.model import FalconH1ForCausalLM
from falcon_h1r.tokenizer import Tokenizer
from falcon_h1r.train import checkpoint
from falcon_h1r.train.calibrate import calibrate
from falcon_h1r.train.chain_accuracy import chain_accuracy
from falcon_h1r.train.config import load_recipe, recipe_text
from falcon_h1r.train.loop import METRICS, MetricsLog, Progress, Report, stop_on_interrupt
from falcon_h1r.train.optimizer import make_optimizer
from falcon_h1r.train.packing import PackedRows, pack_rows
from falcon_h1r.train.recipe_sft import SftRecipe
from falcon_h1r.train.stream import DocumentStream
from falcon_h1r.train.vocabulary import BOS, IM_END, PAD, build_vocabulary

VOCABULARY = "vocabulary"
CHECKPOINTS = "checkpoints"


def model_config(recipe: SftRecipe, vocab_size: int) -> FalconH1Config:
    """The recipe's model with the vocabulary's size and token ids."""
    fields = {
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": IM_END,
        "tie_word_embeddings": True,
        **recipe.model,
    }
    return FalconH1Config.from_dict({**fields, "vocab_size": vocab_size}, "recipe")


class SftRun:
    """One run in a folder: what is trained, where it stands, how it is saved."""

    def __init__(self, recipe: SftRecipe, output: Path, report: Report) -> None:
        self.recipe, self.output, self.report = recipe, output, report
        folder = output / VOCABULARY
        if not (folder / "tokenizer.json").exists():
            build_vocabulary(folder, recipe.data.vocabulary_size, recipe.seed)
        self.encoder = Tokenizer.from_file(folder / "tokenizer.json")
        config = model_config(recipe, self.encoder.vocab_size)
        self.model = FalconH1ForCausalLM(config)
        self.model.reset_parameters(recipe.seed)
        self.optimizer = make_optimizer(self.model, recipe.optimizer)
        self.stream = DocumentStream(
            self.encoder,
            families=recipe.data.families,
            levels=recipe.data.levels,
            seed=recipe.seed,
            max_length=recipe.data.row_length,
        )
        self.step = self.next_ordinal = self.tokens = 0
        self.seconds = 0.0
        self.waiting: list[int] = []

    # State

    def resume(self) -> bool:
        """Take over the newest whole checkpoint; False when there is none."""
        path = checkpoint.latest_checkpoint(self.output / CHECKPOINTS, self.report)
        if path is None:
            return False
        tensors, state = checkpoint.load_checkpoint(path)
        self.model.load_state_dict(tensors["model"], strict=False)  # the tied head is not stored
        self.optimizer.load_state(tensors["optimizer"])
        self.step, self.tokens = state["step"], state["tokens"]
        self.seconds = state["seconds"]
        self.next_ordinal, self.waiting = state["next_ordinal"], state["waiting"]
        return True

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        state = {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "next_ordinal": self.next_ordinal,
            "waiting": self.waiting,
        }
        tensors = {"model": self.weights(), "optimizer": self.optimizer.state}
        keep = self.recipe.keep_checkpoints
        checkpoint.save_checkpoint(self.output / CHECKPOINTS, self.step, tensors, state, keep)

    def weights(self) -> dict[str, Tensor]:
        """Every parameter once."""
        return {name: p.detach() for name, p in self.model.named_parameters()}

    def export(self, folder: Path) -> None:
        """Write a model folder that `from_pretrained` loads."""

        def fill(temporary: Path) -> None:
            self.model.save_pretrained(temporary)
            for name in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(self.output / VOCABULARY / name, temporary / name)
            generation = {"eos_token_id": [IM_END], "pad_token_id": PAD, "do_sample": True,
                          "temperature": 0.7, "top_p": 1.0}  # fmt: skip
            (temporary / "generation_config.json").write_text(json.dumps(generation) + "\n")

        checkpoint.write_folder(folder, fill)

    # Loop

    def draw(self) -> PackedRows:
        """Pack the next step's rows."""
        pool = [self.stream.document(ordinal) for ordinal in self.waiting]
        drawn = 0

        def documents() -> Iterator[Any]:
            nonlocal drawn
            for document in self.stream.documents(self.next_ordinal):
                drawn += 1
                yield document

        rows = pack_rows(documents(), pool, self.recipe.data.rows, self.recipe.data.row_length)
        self.next_ordinal += drawn
        self.waiting = [document.ordinal for document in pool]
        return rows

    def loss(self, rows: PackedRows) -> Tensor:
        """Mean cross entropy of the learnt tokens."""
        wanted = torch.from_numpy(rows.loss_mask.nonzero()[0])
        targets = torch.from_numpy(rows.targets)[wanted]
        hidden = self.model.hidden_packed(
            torch.from_numpy(rows.input_ids), torch.from_numpy(rows.cu_seqlens)
        )
        return self.model.token_losses(hidden[wanted], targets).mean()

    def update(self, rows: PackedRows) -> dict[str, float]:
        """One step of the optimizer; a non-finite loss or gradient leaves the weights alone."""
        self.optimizer.zero_grad()
        loss = self.loss(rows)
        loss.backward()  # type: ignore[no-untyped-call]
        rates = self.recipe.optimizer
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), rates.max_grad_norm)
        finite = math.isfinite(loss.item()) and math.isfinite(norm.item())
        if finite:
            self.optimizer.step(rates.scale(self.step), self.step)
        return {"loss": loss.item(), "grad_norm": norm.item(), "lr_scale": rates.scale(self.step)}

    def train(self, stop: threading.Event) -> None:
        """Run until the last step or until `stop`; always ends with a checkpoint."""
        steps = self.recipe.optimizer.steps
        non_finite = 0
        last_save = time.monotonic()
        saved_step = self.step
        progress = Progress(self.report, steps)
        with MetricsLog(self.output, self.step, self.recipe.tensorboard) as metrics:
            while self.step < steps and not stop.is_set():
                began = time.monotonic()
                rows = self.draw()
                line: dict[str, Any] = self.update(rows)
                is_finite = math.isfinite(line["loss"]) and math.isfinite(line["grad_norm"])
                non_finite = 0 if is_finite else non_finite + 1
                if non_finite >= self.recipe.max_non_finite:
                    raise TrainingError(
                        f"{non_finite} steps in a row had a non-finite loss (step {self.step}); "
                        "lower optimizer.muon_lr or adam_lr and resume"
                    )
                self.step += 1
                self.tokens += rows.num_tokens
                spent = time.monotonic() - began
                self.seconds += spent
                line |= {"tokens": self.tokens, "fill": rows.fill, "seconds": self.seconds,
                         "tokens_per_second": rows.num_tokens / spent}  # fmt: skip
                every = self.recipe.evaluate_every
                if every and (self.step % every == 0 or self.step == steps):
                    line["held_out"] = self.evaluate()
                    self.report(f"step {self.step} held-out chains {line['held_out']}")
                metrics.write(self.step - 1, line)
                progress.update(self.step, rows.num_tokens, f"loss {line['loss']:.4f}")
                if time.monotonic() - last_save > self.recipe.checkpoint_seconds:
                    metrics.sync()
                    self.save()
                    saved_step, last_save = self.step, time.monotonic()
            metrics.sync()
        if saved_step != self.step:
            self.save()

    def evaluate(self) -> dict[str, float]:
        """Share of held-out problems a family whose whole chain is the model's first choice."""
        recipe = self.recipe
        return chain_accuracy(
            self.model, self.encoder, count=recipe.evaluate_count, families=recipe.data.families
        )


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
    (a checkpoint is there). Raises ConfigError for a bad recipe, TrainingError for damaged state.
    """
    resolved = load_recipe(SftRecipe, recipe, overrides)
    output = Path(output)
    if fresh:
        for name in (CHECKPOINTS, "final", VOCABULARY):
            shutil.rmtree(output / name, ignore_errors=True)
        (output / METRICS).unlink(missing_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    (output / "recipe.yaml").write_text(recipe_text(resolved))
    run = SftRun(resolved, output, report)
    if run.resume():
        report(f"resumed at step {run.step}")
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(resolved.matmul_precision)
    try:
        with stop_on_interrupt(report) as stop:
            run.train(stop)
    finally:
        torch.set_float32_matmul_precision(precision)
    if run.step < resolved.optimizer.steps:
        return None
    final = output / "final"
    run.export(final)
    if resolved.calibrate:
        chosen = calibrate(final)
        (output / "calibration.json").write_text(json.dumps(chosen, indent=1) + "\n")
        report(f"thinking.json: {chosen['thinking']}")
    return final
