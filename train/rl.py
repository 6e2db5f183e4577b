"""What the loops of PPO and GRPO share: the run's state, sampling, forward passes, gradients.

The engine samples with the very module that learns: no copy of the weights, one version a step.

Legend: N response tokens of a batch, D model width.
"""

import contextlib
import json
import math
import shutil
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from falcon_h1r.engine.engine import Engine, EngineConfig
from falcon_h1r.engine.params import SamplingParams
from falcon_h1r.errors import ConfigError, TrainingError
from falcon_h1r.hub import model_folder
from falcon_h1r.model.config import FalconH1Config
from falcon_h1r.model.model import FalconH1ForCausalLM
from falcon_h1r.model.weights import INDEX
from falcon_h1r.ops.precision import matmul_precision
from falcon_h1r.reference_model import reference_model_path
from falcon_h1r.thinking.deepconf import ThinkingDefaults
from falcon_h1r.tokenizer import Tokenizer
from falcon_h1r.train import checkpoint, distributed, losses
from falcon_h1r.train.config import RECIPE, load_recipe, require
from falcon_h1r.train.gradients import FlatGradients
from falcon_h1r.train.loop import (
    CHECKPOINTS,
    FINAL,
    METRICS,
    TENSORBOARD,
    MetricsLog,
    Report,
    flushed_denormals,
    keep_recipe,
    make_folder,
    sole_run,
    stop_on_interrupt,
    summary_writer,
)
from falcon_h1r.train.optimizer import make_optimizer
from falcon_h1r.train.prompts import curated_problem, draw_problem, has_room, read_prompts
from falcon_h1r.train.recipe_rl import RlRecipe
from falcon_h1r.train.responses import (
    Packed,
    Pairs,
    by_sequence,
    micro_batches,
    pack,
    response_hidden,
    token_logprobs,
)
from falcon_h1r.train.rewards import Verdicts
from falcon_h1r.train.rl_log import Metrics, StepLog
from falcon_h1r.train.rollouts import Group, sample_groups
from falcon_h1r.train.samples import Sample
from falcon_h1r.train.start import load_weights, pick_device
from falcon_h1r.train.supply import Supply
from falcon_h1r.train.tasks import Problem, held_out_problems

VERDICTS = "verdicts.jsonl"
BAD_SAMPLE = "bad_sample.json"
EVALUATION_SEED = 3
_NOT_OF_THE_RUN = ("config.json", "calibration.json", checkpoint.MANIFEST, INDEX)
"""Files of the start that say nothing of what was trained: `export` leaves them behind."""
_R = TypeVar("_R", bound=RlRecipe)


class RlRun(ABC):
    """One run in a folder: what is trained, where it stands, how it samples and is saved."""

    method: str
    """Its name: a checkpoint is of one method."""

    def __init__(self, recipe: RlRecipe, output: Path, report: Report) -> None:
        self.recipe, self.output, self.report = recipe, output, report
        self.start = model_folder(recipe.model) if recipe.model else reference_model_path()
        dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[recipe.dtype]
        self.device = pick_device(recipe.device)
        self.model = FalconH1ForCausalLM.from_pretrained(
            self.start, dtype=dtype, device=self.device
        )
        self.tokenizer = Tokenizer.from_pretrained(self.start)
        context = self.model.config.max_position_embeddings
        require(recipe.rollout.max_tokens < context, "rollout.max_tokens",
                recipe.rollout.max_tokens, f"below the model's context of {context}")  # fmt: skip
        self.system_prompt = ThinkingDefaults.load(self.start).system_prompt
        self.samples = self._fitting_samples(context)
        self.learnt = self.learnt_module()
        self.optimizer = make_optimizer(self.learnt, recipe.optimizer)
        self.gradients = FlatGradients(self.optimizer)
        self.engine = self._make_engine()
        self.supply = Supply()
        self.step = self.num_updates = self.num_tokens = self.skipped = 0
        self.seconds = 0.0
        self.verdicts = Verdicts(output / VERDICTS)

    def _fitting_samples(self, context: int) -> list[Sample]:
        """The curated samples whose prompts leave room for an answer."""
        if not self.recipe.data.source:
            return []
        samples = read_prompts(Path(self.recipe.data.source))
        fitting = [
            s for s in samples if has_room(self.tokenizer, s.problem, context, self.system_prompt)
        ]
        if not fitting:
            raise ConfigError(
                f"no prompt of data.source {self.recipe.data.source} leaves room for an answer in "
                f"the model's context of {context}; give shorter problems"
            )
        if len(fitting) < len(samples):
            left_out = len(samples) - len(fitting)
            self.report(f"{left_out} prompts fill the context of {context} and are left out")
        return fitting

    @abstractmethod
    def train(self, stop: threading.Event) -> None:
        """Run until the last step or until `stop`; always ends with a checkpoint."""

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
        checkpoint.check_method(state, self.method, path)
        load_weights(self.learnt, tensors["model"], path)
        self.optimizer.load_state(tensors["optimizer"])
        self.step, self.num_updates = state["step"], state["num_updates"]
        self.num_tokens = state["num_tokens"]
        self.skipped = state["skipped"]
        self.seconds = state["seconds"]
        self.supply = Supply.from_state(state["supply"])
        size = self.recipe.rollout.group_size
        kept = [group for group in self.supply.kept if len(group.rollouts) == size]
        if len(kept) < len(self.supply.kept):
            self.report(f"{len(self.supply.kept) - len(kept)} kept groups are of another "
                        "rollout.group_size and are left out")  # fmt: skip
            self.supply.kept = kept
        self.engine.update_weights(self.step)
        return True

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        state = {
            "method": self.method,
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
        """Write a model folder that `from_pretrained` loads, with the start's tokenizer."""

        def fill(temporary: Path) -> None:
            self.model.save_pretrained(temporary)
            for path in (*self.start.glob("*.json"), *self.start.glob("*.jinja")):
                if path.name not in _NOT_OF_THE_RUN:
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
        """Groups of these prompts with the present weights."""
        problems = {ordinal: self.problem(ordinal) for ordinal in ordinals}
        return self._sample(problems, self.recipe.rollout.group_size, self.recipe.seed)

    def _sample(self, problems: dict[int, Problem], group_size: int, seed: int) -> list[Group]:
        """Sample and judge; a NaN leaves its sample in a file."""
        rollout = self.recipe.rollout
        try:
            return sample_groups(
                self.engine,
                self.tokenizer,
                problems,
                group_size=group_size,
                params=SamplingParams(
                    temperature=rollout.temperature,
                    top_p=rollout.top_p,
                    max_tokens=rollout.max_tokens,
                ),
                seed=seed,
                verdicts=self.verdicts,
                weights=self.recipe.reward,
                system_prompt=self.system_prompt,
            )
        except TrainingError as error:
            self.save_bad_sample({"step": self.step, "error": str(error)})
            raise

    def save_bad_sample(self, sample: dict[str, Any]) -> None:
        """Keep what met a NaN, to look at; a disk that refuses must not hide the error behind."""
        with contextlib.suppress(OSError):
            (self.output / BAD_SAMPLE).write_text(json.dumps(sample) + "\n")

    def evaluate(self) -> Metrics:
        """Pass@1 at the rollouts' temperature on held-out problems, by family and level.

        A level that is only a drill has no such problem, and is left out.
        """
        data = self.recipe.data
        shares: Metrics = {}
        for family in (name for name, weight in data.families.items() if weight):
            for level in (level for level, weight in data.levels.items() if weight):
                count = self.recipe.evaluate_count
                asked = held_out_problems(family, count, level=level, seed=EVALUATION_SEED)
                groups = self._sample(dict(enumerate(asked)), group_size=1, seed=EVALUATION_SEED)
                if groups:  # an easy level may have fewer than `count`
                    right = sum(group.rollouts[0].is_right for group in groups)
                    shares[f"{family}/{level}"] = right / len(groups)
        return shares | {"mean": sum(shares.values()) / max(1, len(shares))}

    @contextlib.contextmanager
    def log(self) -> Iterator[StepLog]:
        """What each step's end needs; at the last step, or a stop, a checkpoint is written."""
        board = self.recipe.tensorboard
        with flushed_denormals(), MetricsLog(self.output, self.step, board) as metrics:
            log = StepLog(self, metrics)
            yield log
            log.save()

    # Learning

    def minibatches(self, count: int) -> Iterator[list[int]]:
        """Indices of each update's sequences: `epochs` passes, shuffled where there are several."""
        recipe = self.recipe
        parts = min(recipe.minibatches, count)
        bounds = [count * i // parts for i in range(parts + 1)]  # sizes differ by one at most
        for epoch in range(recipe.epochs):
            order = list(range(count))
            if recipe.minibatches > 1:
                Random(f"minibatch {recipe.seed} {self.step} {epoch}").shuffle(order)
            for first, end in pairwise(bounds):
                yield sorted(order[first:end])  # rollouts of a prompt side by side

    def parts(
        self, sequences: Pairs, chosen: Sequence[int]
    ) -> Iterator[tuple[range, list[int], Packed]]:
        """Micro-batches of the chosen: places among them, their indices, and both sides packed.

        What is packed lies on the run's device; everything else of a step is kept on the CPU.
        """
        those = [sequences[i] for i in chosen]
        for run in micro_batches(those, self.recipe.micro_batch_tokens):
            packed = pack(those[run.start : run.stop])
            yield run, [chosen[i] for i in run], packed.to(self.device)

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
    def start_logprobs(self, sequences: Pairs) -> list[Tensor]:
        """Log-probabilities of each response by the present weights."""
        out: list[Tensor] = []
        for _, _, packed in self.parts(sequences, range(len(sequences))):
            logprobs = self.checked_logprobs(response_hidden(self.model, packed), packed)
            out += by_sequence(logprobs.cpu(), packed.response_lengths)
        return out

    def frozen_start(self) -> FalconH1ForCausalLM:
        """The model that the run started from, to measure the KL to."""
        dtype = self.model.lm_head.weight.dtype
        model = FalconH1ForCausalLM.from_pretrained(self.start, dtype=dtype, device=self.device)
        return model.requires_grad_(False)

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
        """The learning rate of this step: Muon's where there is one."""
        rates = self.recipe.optimizer
        return (rates.muon_lr if rates.kind == "muon" else rates.adam_lr) * rates.scale(self.step)

    def apply_gradients(self) -> float:
        """Clip the gradients, apply them unless they hold a NaN, and return their norm.

        An update that is left out is counted and reported.
        """
        rates = self.recipe.optimizer
        norm = self.gradients.clip(rates.max_grad_norm)
        if math.isfinite(norm):
            scale = rates.scale(self.step)
            self.optimizer.step(scale, self.num_updates, self.gradients.by_name)
            self.num_updates += 1
        else:
            self.skipped += 1
            self.report(f"step {self.step + 1}: an update was skipped, gradient norm {norm}")
        return norm


def prepare(
    recipe_class: type[_R], recipe: str | Path, output: Path, overrides: Sequence[str], fresh: bool
) -> _R:
    """Load the recipe and make the folder; with `fresh` what an earlier run left is removed.

    Not before the start and the prompts of the new run are known to be of use.
    """
    resolved = load_recipe(recipe_class, recipe, overrides)
    if distributed.is_rank():
        raise ConfigError(
            "reinforcement learning runs in one process and torchrun started several; start it "
            "without torchrun"
        )
    pick_device(resolved.device)
    if resolved.tensorboard:
        summary_writer()
    if not fresh:
        make_folder(output)
        return resolved
    start = model_folder(resolved.model) if resolved.model else reference_model_path()
    FalconH1Config.from_pretrained(start)
    Tokenizer.from_pretrained(start)
    if resolved.data.source:
        read_prompts(Path(resolved.data.source))
    forget = (CHECKPOINTS, FINAL, TENSORBOARD, METRICS, VERDICTS, BAD_SAMPLE)
    make_folder(output, forget, [p for p in (start, resolved.data.source) if p])
    return resolved


def run_to_the_end(
    make: Callable[[_R, Path, Report], RlRun], recipe: _R, output: Path, report: Report
) -> Path | None:
    """Make the run in its folder, resume, train, and export `final/`; None when interrupted."""
    with sole_run(output):
        return _to_the_end(make(recipe, output, report))


def _to_the_end(run: RlRun) -> Path | None:
    if run.resume():
        run.report(f"resumed at step {run.step}")
    keep_recipe(run.output / RECIPE, run.recipe)  # not before its checkpoints were accepted
    try:
        with matmul_precision(run.recipe.matmul_precision), stop_on_interrupt(run.report) as stop:
            run.train(stop)
    finally:
        run.verdicts.close()
    if run.step < run.recipe.optimizer.steps:
        return None
    run.export(run.output / FINAL)
    return run.output / FINAL
