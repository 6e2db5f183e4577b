"""What the loops of PPO and GRPO share: the run's state, sampling, forward passes, metrics.

The engine samples with the very module that learns: no copy of the weights, one version a step.

Legend: N response tokens of a batch, D model width, V vocabulary.
"""

import contextlib
import json
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from falcon_h1r import ops
from falcon_h1r.engine.engine import Engine, EngineConfig
from falcon_h1r.engine.params import SamplingParams
from falcon_h1r.errors import ConfigError, TrainingError
from falcon_h1r.hub import model_folder
from falcon_h1r.model.model import FalconH1ForCausalLM
from falcon_h1r.ops.precision import matmul_precision
from falcon_h1r.ops.reference import mix64
from falcon_h1r.reference_model import reference_model_path
from falcon_h1r.tokenizer import Tokenizer
from falcon_h1r.train import checkpoint, losses
from falcon_h1r.train.checkpoint import verify_folder
from falcon_h1r.train.config import RECIPE, load_recipe, recipe_text
from falcon_h1r.train.loop import (
    CHECKPOINTS,
    FINAL,
    METRICS,
    MetricsLog,
    Progress,
    Report,
    disk_errors,
    flushed_denormals,
    stop_on_interrupt,
)
from falcon_h1r.train.optimizer import make_optimizer
from falcon_h1r.train.recipe_rl import RlRecipe
from falcon_h1r.train.rewards import TERMS, Verdicts
from falcon_h1r.train.rollouts import (
    Group,
    Packed,
    Supply,
    by_sequence,
    draw_problem,
    micro_batches,
    pack,
    sample_groups,
)
from falcon_h1r.train.samples import Sample, permuted, read_samples
from falcon_h1r.train.start import load_weights
from falcon_h1r.train.tasks import Problem, held_out_problems

VERDICTS = "verdicts.jsonl"
BAD_SAMPLE = "bad_sample.json"
EVALUATION_SEED = 3
_R = TypeVar("_R", bound=RlRecipe)
Metrics = dict[str, float]


class RlRun:
    """One run in a folder: what is trained, where it stands, how it samples and is saved."""

    def __init__(self, recipe: RlRecipe, output: Path, report: Report) -> None:
        self.recipe, self.output, self.report = recipe, output, report
        self.start = model_folder(recipe.model) if recipe.model else reference_model_path()
        dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[recipe.dtype]
        self.model = FalconH1ForCausalLM.from_pretrained(self.start, dtype=dtype)
        self.tokenizer = Tokenizer.from_pretrained(self.start)
        self.learnt = self.learnt_module()
        self.optimizer = make_optimizer(self.learnt, recipe.optimizer)
        self.engine = self._make_engine()
        self.supply = Supply()
        self.step = self.num_updates = self.num_tokens = self.skipped = 0
        self.seconds = 0.0
        self.verdicts = Verdicts(output / VERDICTS)
        self.samples = read_prompts(Path(recipe.data.source)) if recipe.data.source else []

    def learnt_module(self) -> nn.Module:
        """The module whose parameters are learnt."""
        return self.model

    def _make_engine(self) -> Engine:
        rollout = self.recipe.rollout
        eos = self.tokenizer.eos_token_id
        ends = {*self.model.config.eos_token_ids, *([] if eos is None else [eos])}
        at_once = min(256, rollout.num_prompts * rollout.group_size)
        config = EngineConfig(seed=self.recipe.seed, max_num_seqs=at_once)
        return Engine(self.model, None, config, tuple(sorted(ends)))  # texts are decoded whole

    # State

    def resume(self) -> bool:
        """Take over the newest whole checkpoint; False when there is none."""
        path = checkpoint.latest_checkpoint(self.output / CHECKPOINTS, self.report)
        if path is None:
            return False
        tensors, state = checkpoint.load_checkpoint(path)
        load_weights(self.learnt, tensors["model"], path)
        self.optimizer.load_state(tensors["optimizer"])
        self.step, self.num_updates = state["step"], state["num_updates"]
        self.num_tokens = state["num_tokens"]
        self.skipped = state.get("skipped", 0)  # older checkpoints did not count them
        self.seconds = state["seconds"]
        self.supply = Supply.from_state(state["supply"])
        self.engine.update_weights(self.step)
        return True

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        state = {
            "step": self.step,
            "num_updates": self.num_updates,
            "num_tokens": self.num_tokens,
            "skipped": self.skipped,
            "seconds": self.seconds,
            "supply": self.supply.to_state(),
        }
        parameters = {name: p.detach() for name, p in self.learnt.named_parameters()}
        tensors = {"model": parameters, "optimizer": self.optimizer.state}
        keep = self.recipe.keep_checkpoints
        checkpoint.save_checkpoint(self.output / CHECKPOINTS, self.step, tensors, state, keep)

    def export(self, folder: Path) -> None:
        """Write a model folder that `from_pretrained` loads, with the start's other files."""

        def fill(temporary: Path) -> None:
            self.model.save_pretrained(temporary)
            for path in self.start.glob("*.json"):
                if path.name not in ("config.json", checkpoint.MANIFEST):
                    shutil.copy(path, temporary / path.name)

        checkpoint.write_folder(folder, fill)

    # Sampling

    def problem(self, ordinal: int) -> Problem:
        """Prompt number `ordinal` of this run."""
        data, seed = self.recipe.data, self.recipe.seed
        if self.samples:
            return curated_problem(self.samples, ordinal, seed)
        return draw_problem(ordinal, seed, data.families, data.levels)

    def sample(self, ordinals: Sequence[int]) -> list[Group]:
        """Groups of these prompts with the present weights; a NaN leaves its sample in a file."""
        with self._bad_sample_saved():
            return self._sample({ordinal: self.problem(ordinal) for ordinal in ordinals})

    def _sample(
        self, problems: dict[int, Problem], group_size: int | None = None, seed: int | None = None
    ) -> list[Group]:
        rollout = self.recipe.rollout
        return sample_groups(
            self.engine,
            self.tokenizer,
            problems,
            group_size=rollout.group_size if group_size is None else group_size,
            params=SamplingParams(
                temperature=rollout.temperature,
                top_p=rollout.top_p,
                max_tokens=rollout.max_tokens,
            ),
            seed=self.recipe.seed if seed is None else seed,
            verdicts=self.verdicts,
            weights=self.recipe.reward,
        )

    @contextlib.contextmanager
    def _bad_sample_saved(self) -> Iterator[None]:
        try:
            yield
        except TrainingError as error:
            self.save_bad_sample({"step": self.step, "error": str(error)})
            raise

    def save_bad_sample(self, sample: dict[str, Any]) -> None:
        """Keep what met a NaN, to look at."""
        (self.output / BAD_SAMPLE).write_text(json.dumps(sample) + "\n")

    def evaluate(self) -> Metrics:
        """Pass@1 at the rollouts' temperature on held-out problems, by family and level."""
        shares: Metrics = {}
        for family in self.recipe.data.families:
            for level, weight in self.recipe.data.levels.items():
                if not weight or not self.recipe.data.families[family]:
                    continue
                count = self.recipe.evaluate_count
                asked = held_out_problems(family, count, level=level, seed=EVALUATION_SEED)
                groups = self._sample(dict(enumerate(asked)), group_size=1, seed=EVALUATION_SEED)
                right = sum(group.rollouts[0].is_right for group in groups)
                shares[f"{family}/{level}"] = right / count
        return shares | {"mean": sum(shares.values()) / max(1, len(shares))}

    @contextlib.contextmanager
    def log(self) -> Iterator["StepLog"]:
        """What each step's end needs; leaving it, interrupted or not, ends with a checkpoint."""
        board = self.recipe.tensorboard
        with flushed_denormals(), MetricsLog(self.output, self.step, board) as metrics:
            log = StepLog(self, metrics)
            yield log
            log.save()

    # Learning

    def minibatches(self, count: int) -> Iterator[list[int]]:
        """Indices of each update's sequences: `epochs` passes, shuffled where there are several."""
        recipe = self.recipe
        size = -(-count // recipe.minibatches)
        for epoch in range(recipe.epochs):
            order = list(range(count))
            if recipe.minibatches > 1:
                Random(f"minibatch {recipe.seed} {self.step} {epoch}").shuffle(order)
            for first in range(0, count, size):
                yield sorted(order[first : first + size])  # rollouts of a prompt side by side

    def parts(
        self, sequences: Sequence[tuple[Sequence[int], Sequence[int]]], chosen: Sequence[int]
    ) -> Iterator[tuple[range, list[int], Packed]]:
        """Micro-batches of the chosen: places among them, their indices, and both sides packed."""
        those = [sequences[i] for i in chosen]
        for run in micro_batches(those, self.recipe.micro_batch_tokens):
            yield run, [chosen[i] for i in run], pack(those[run.start : run.stop])

    def checked_logprobs(self, hidden: Tensor, packed: Packed) -> Tensor:
        """The trainer's log-probabilities [N] of the responses; a NaN stops with the sample kept.

        Raises TrainingError.
        """
        temperature = self.recipe.rollout.temperature
        logprobs = token_logprobs(self.model, hidden, packed.targets, temperature)
        if not bool(logprobs.detach().isfinite().all()):
            self.save_bad_sample({"step": self.step, "input_ids": packed.input_ids.tolist(),
                                  "cu_seqlens": packed.batch.cu_seqlens.tolist()})  # fmt: skip
            raise TrainingError(
                f"the trainer's log-probabilities hold NaN at step {self.step}; the sample is in "
                f"{self.output / BAD_SAMPLE}"
            )
        return logprobs

    @torch.no_grad()
    def start_logprobs(
        self, sequences: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> list[Tensor]:
        """Log-probabilities of each response by the present weights."""
        out: list[Tensor] = []
        for _, _, packed in self.parts(sequences, range(len(sequences))):
            logprobs = self.checked_logprobs(response_hidden(self.model, packed), packed)
            out += by_sequence(logprobs, packed.response_lengths)
        return out

    def frozen_start(self) -> FalconH1ForCausalLM:
        """The model that the run started from, to measure the KL to."""
        dtype = self.model.lm_head.weight.dtype
        return FalconH1ForCausalLM.from_pretrained(self.start, dtype=dtype).requires_grad_(False)

    @torch.no_grad()
    def reference_logprobs(self, reference: FalconH1ForCausalLM, packed: Packed) -> Tensor:
        """Log-probabilities [N] of the responses by the frozen start."""
        hidden = response_hidden(reference, packed)
        return token_logprobs(reference, hidden, packed.targets, self.recipe.rollout.temperature)

    def entropy(self, hidden: Tensor) -> Tensor:
        """Entropy [N] of the distribution sampled from, with gradients."""
        return losses.entropy(self.model.logits(hidden) / self.recipe.rollout.temperature)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, their products in `gradient_precision`."""
        wanted = self.recipe.gradient_precision
        now = torch.get_float32_matmul_precision()
        with matmul_precision(now if wanted == "same" else wanted):
            loss.backward()  # type: ignore[no-untyped-call]

    def rate(self) -> float:
        """The learning rate of this step."""
        return self.recipe.optimizer.adam_lr * self.recipe.optimizer.scale(self.step)

    def apply_gradients(self) -> float:
        """Clip the gradients, apply them unless they hold a NaN, and return their norm.

        An update that is left out is counted and reported.
        """
        rates = self.recipe.optimizer
        norm = nn.utils.clip_grad_norm_(self.learnt.parameters(), rates.max_grad_norm).item()
        if math.isfinite(norm):
            self.optimizer.step(rates.scale(self.step), self.num_updates)
            self.num_updates += 1
        else:
            self.skipped += 1
            self.report(f"step {self.step + 1}: an update was skipped, gradient norm {norm}")
        return norm


NOTHING_LEARNT: Metrics = {"loss": 0.0, "grad_norm": 0.0}
"""The metrics of a step for which no group had an advantage."""


class StepLog:
    """Writes each step's line, reports progress, and saves when it is time."""

    def __init__(self, run: RlRun, metrics: MetricsLog) -> None:
        self.run, self.metrics = run, metrics
        self.progress = Progress(run.report, run.recipe.optimizer.steps)
        self.last_save, self.saved_step = time.monotonic(), run.step
        self.non_finite = 0

    def end_step(self, line: Metrics, drawn: Sequence[Group], began: float, sampled: float) -> None:
        """Log the step that has just ended; `began` and `sampled` are its times.

        Raises TrainingError after `max_non_finite` steps in a row whose loss was not finite.
        """
        run, recipe = self.run, self.run.recipe
        finite = math.isfinite(line["loss"]) and math.isfinite(line["grad_norm"])
        self.non_finite = 0 if finite else self.non_finite + 1
        if self.non_finite >= recipe.max_non_finite:
            raise TrainingError(
                f"{self.non_finite} steps in a row had a non-finite loss (step {run.step - 1}); "
                "lower optimizer.adam_lr and resume"
            )
        now = time.monotonic()
        run.seconds += now - began
        count = sum(len(r.token_ids) for g in drawn for r in g.rollouts)
        run.num_tokens += count
        line = line | {"num_tokens": float(run.num_tokens), "skipped": float(run.skipped),
                       "step_time": now - began, "rollout_time": sampled - began,
                       "train_time": now - sampled, "seconds": run.seconds}  # fmt: skip
        every = recipe.evaluate_every
        if every and (run.step % every == 0 or run.step == recipe.optimizer.steps):
            line |= {f"eval/{name}": share for name, share in run.evaluate().items()}
        self.metrics.write(run.step - 1, line)
        right = line["rewards/correctness/mean"]
        self.progress.update(run.step, count, f"reward {line['reward']:.3f} right {right:.3f}")
        if now - self.last_save > recipe.checkpoint_seconds:
            self.save()

    def save(self) -> None:
        """Write a checkpoint of this moment unless there is one."""
        if self.saved_step != self.run.step:
            self.metrics.sync()
            self.run.save()
            self.last_save, self.saved_step = time.monotonic(), self.run.step


class Tally:
    """Sums of a step's metrics: means over tokens, and plain sums over the parts of updates."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}
        self.norms: list[float] = []

    def add(self, name: str, value: float, weight: float) -> None:
        """Add a mean over `weight` things."""
        entry = self.sums.setdefault(name, [0.0, 0.0])
        entry[0] += value * weight
        entry[1] += weight

    def add_tokens(self, name: str, values: Tensor) -> None:
        """Add one value a token [N]."""
        self.add(name, values.detach().mean().item(), values.numel())

    def add_sum(self, name: str, value: float) -> None:
        """Add a part of an update's sum; `means` gives the mean over the updates."""
        self.sums.setdefault(name, [0.0, 0.0])[0] += value

    def norm(self) -> float:
        """The largest gradient norm of the step's updates; NaN if one was."""
        return torch.tensor([0.0, *self.norms]).max().item()

    def means(self) -> Metrics:
        """Every metric."""
        updates = max(1, len(self.norms))
        return {name: total / (count or updates) for name, (total, count) in self.sums.items()}


def read_prompts(folder: Path) -> list[Sample]:
    """The samples of a curated set; ConfigError when the folder is damaged or holds none."""
    wrong = verify_folder(folder) if folder.is_dir() else "there is no such folder"
    if wrong is not None:
        raise ConfigError(f"data.source {folder}: {wrong}; give the folder of a curated set")
    files = sorted(folder.glob("samples-*.jsonl"))
    samples = [sample for path in files for sample in read_samples(path)]
    if not samples:
        raise ConfigError(f"data.source {folder} holds no sample; loosen its filters")
    return samples


def curated_problem(samples: Sequence[Sample], ordinal: int, seed: int) -> Problem:
    """Prompt number `ordinal` of a curated set: all samples once an epoch, shuffled anew."""
    epoch, index = divmod(ordinal, len(samples))
    sample = samples[permuted(index, len(samples), mix64(mix64(seed) ^ epoch))]
    return Problem(
        problem=sample.problem,
        thought=sample.thought,
        answer=sample.answer,
        family=sample.family,
        level=sample.level,
        keys=(),
    )


def response_hidden(model: FalconH1ForCausalLM, packed: Packed) -> Tensor:
    """Hidden states [N, D] that predict the response tokens."""
    hidden: Tensor = model.model(packed.input_ids, packed.batch)
    return hidden[packed.predictors]


def token_logprobs(
    model: FalconH1ForCausalLM, hidden: Tensor, targets: Tensor, temperature: float
) -> Tensor:
    """Log-probabilities [N] of targets under softmax(logits / temperature), without all logits."""
    scale = model.config.lm_head_multiplier / temperature
    return -ops.linear_cross_entropy(hidden, model.lm_head.weight, targets, scale)


def mismatch(logprobs: Tensor, old_logprobs: Tensor) -> Metrics:
    """How far the trainer's log-probabilities [N] are from those of the engine, same weights.

    `mismatch_kl` is the k3 estimate of KL(engine || trainer); the others have TRL's names.
    """
    difference = (logprobs - old_logprobs).double()
    ratio = difference.exp()
    return {
        "mismatch_kl": (torch.expm1(difference) - difference).mean().item(),
        "sampling/sampling_logp_difference/mean": difference.abs().mean().item(),
        "sampling/sampling_logp_difference/max": difference.abs().max().item(),
        "sampling/importance_sampling_ratio/min": ratio.min().item(),
        "sampling/importance_sampling_ratio/mean": ratio.mean().item(),
        "sampling/importance_sampling_ratio/max": ratio.max().item(),
    }


def rollout_metrics(chosen: Sequence[Group], drawn: Sequence[Group], run: RlRun) -> Metrics:
    """What TRL logs of a step's rollouts, under its names; rewards of all that were drawn."""
    weights = run.recipe.reward
    groups = drawn or chosen
    rollouts = [r for group in groups for r in group.rollouts]
    lengths = torch.tensor([len(r.token_ids) for r in rollouts], dtype=torch.float64)
    ended = torch.tensor([r.ended for r in rollouts])
    rewards = torch.tensor([group.rewards(weights) for group in groups], dtype=torch.float64)
    metrics = {
        "completions/mean_length": lengths.mean().item(),
        "completions/min_length": lengths.min().item(),
        "completions/max_length": lengths.max().item(),
        "completions/clipped_ratio": 1.0 - ended.double().mean().item(),
        "reward": rewards.mean().item(),
        "reward_std": rewards.std(1).mean().item() if rewards.shape[1] > 1 else 0.0,
        "frac_reward_zero_std": sum(not g.has_advantage(weights) for g in groups) / len(groups),
        "entropy": sum(r.entropy for r in rollouts) / len(rollouts),
        "prompts_drawn": float(len(drawn)),
        "groups_kept": float(len(run.supply.kept)),
    }
    if ended.any():
        metrics["completions/mean_terminated_length"] = lengths[ended].mean().item()
    for name in TERMS:
        values = torch.tensor([getattr(r.terms, name) for r in rollouts], dtype=torch.float64)
        metrics[f"rewards/{name}/mean"] = values.mean().item()
        metrics[f"rewards/{name}/std"] = values.std().item() if len(values) > 1 else 0.0
    return metrics


def prepare(
    recipe_class: type[_R], recipe: str | Path, output: Path, overrides: Sequence[str], fresh: bool
) -> _R:
    """Load the recipe and make the folder; with `fresh` what an earlier run left is removed."""
    resolved = load_recipe(recipe_class, recipe, overrides)
    if fresh:
        for name in (CHECKPOINTS, FINAL):
            shutil.rmtree(output / name, ignore_errors=True)
        for name in (METRICS, VERDICTS, BAD_SAMPLE):
            (output / name).unlink(missing_ok=True)
    with disk_errors(output / RECIPE):
        output.mkdir(parents=True, exist_ok=True)
        (output / RECIPE).write_text(recipe_text(resolved))
    return resolved


def run_to_the_end(run: RlRun, train: Callable[[threading.Event], None]) -> Path | None:
    """Resume, train, and export `final/`; None when it was interrupted."""
    if run.resume():
        run.report(f"resumed at step {run.step}")
    try:
        with matmul_precision(run.recipe.matmul_precision), stop_on_interrupt(run.report) as stop:
            train(stop)
    finally:
        run.verdicts.close()
    if run.step < run.recipe.optimizer.steps:
        return None
    run.export(run.output / FINAL)
    return run.output / FINAL
