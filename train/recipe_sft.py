"""What a supervised run is told: model, data, optimizer."""

import os
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from falcon_h1r.errors import ConfigError
from falcon_h1r.model.config import FalconH1Config
from falcon_h1r.train.config import known_name, require
from falcon_h1r.train.lora import LoraRecipe
from falcon_h1r.train.optimizer import OptimizerRecipe
from falcon_h1r.train.recipe_mix import check_mix
from falcon_h1r.train.tasks import FAMILIES


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRecipe:
    """What is drawn, and how it is packed."""

    source: str | None = None
    """Folder of a curated set; None: the generators, by `families` and `levels`."""
    tokenizer: str | None = None
    """Folder whose tokenizer is taken, such as the curated set that a later run learns from; None:
    that of `init_from`, `source` or `held_out`, else one of `vocabulary_size` is built."""
    held_out: str | None = None
    """Folder of a curated set to measure on while training, beside the families' problems."""
    families: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FAMILIES, 1.0))
    """Weight of each family."""
    levels: dict[int, float] = field(default_factory=lambda: {1: 0.2, 2: 0.75, 3: 0.05})
    """Weight of each level of difficulty."""
    rows: int = 11
    """Rows a step, over all processes and micro-batches."""
    row_length: int = 384
    """Tokens a row; longer documents are not drawn."""
    vocabulary_size: int = 3072
    """Of the tokenizer that is built where no folder brings one."""

    def __post_init__(self) -> None:
        check_mix(self.families, self.levels)
        require(self.rows > 0, "data.rows", self.rows, "at least 1")
        require(self.row_length >= 64, "data.row_length", self.row_length, "at least 64")
        require(self.vocabulary_size >= 512, "data.vocabulary_size", self.vocabulary_size,
                "at least 512")  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelRecipe:
    """Over how many processes and micro-batches a step's rows are spread."""

    processes: int = 1
    """Processes that share a step's rows; they are started by this one, or by torchrun."""
    accumulation: int = 1
    """Micro-batches that each process works through, one after another, before an update."""
    threads: int | None = None
    """Threads of a process; None: the cores shared out, or torch's own choice for one process."""
    timeout_seconds: float = 30.0
    """How long a process may be silent before the others give up; longer than its slowest step."""

    def __post_init__(self) -> None:
        for name in ("processes", "accumulation"):
            require(getattr(self, name) >= 1, f"parallel.{name}", getattr(self, name), "at least 1")
        enough = self.threads is None or self.threads >= 1
        require(enough, "parallel.threads", self.threads, "at least 1, or null")
        require(self.timeout_seconds > 0, "parallel.timeout_seconds", self.timeout_seconds,
                "positive")  # fmt: skip

    @property
    def lanes(self) -> int:
        """Micro-batches of a step over all processes."""
        return self.processes * self.accumulation

    def num_threads(self) -> int | None:
        """Threads of each process; None: as torch chooses."""
        if self.threads is not None or self.processes == 1:
            return self.threads
        return max(1, len(os.sched_getaffinity(0)) // self.processes)


@dataclass(frozen=True, kw_only=True, slots=True)
class SftRecipe:
    """One supervised run, from a seed to a model folder."""

    model: dict[str, Any] = field(default_factory=dict)
    """Fields of FalconH1Config; vocab_size and token ids come from the vocabulary."""
    init_from: str | None = None
    """Folder of a model to start from, with its tokenizer; `model` may then be left out."""
    lora: LoraRecipe | None = None
    """Train adapters on `init_from` instead of all weights; `final` holds the merged model."""
    data: DataRecipe = field(default_factory=DataRecipe)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    parallel: ParallelRecipe = field(default_factory=ParallelRecipe)
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """"auto": a GPU where there is one."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the weights that compute; in "bf16" the optimizer holds float32 masters of them."""
    activation_checkpointing: bool = False
    """Keep only the layers' inputs and compute each layer again in the backward pass."""
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    """Of float32 products, as torch names it; "medium" rounds their inputs to bfloat16, which is
    half again as fast where the processor has AMX. Weights and sums stay float32."""
    tensorboard: bool = False
    """Also write event files for TensorBoard; needs the extra `train`."""
    checkpoint_seconds: float = 180.0
    keep_checkpoints: int = 3
    max_non_finite: int = 5
    """Steps in a row with a non-finite loss or gradient after which training gives up."""
    evaluate_every: int = 250
    """Steps between measurements on held-out problems; 0 is never."""
    evaluate_count: int = 24
    """Held-out problems a family."""

    def __post_init__(self) -> None:
        if not self.model and self.init_from is None:
            raise ConfigError("neither model nor init_from is given; one must say what to train")
        if self.lora is not None and self.init_from is None:
            raise ConfigError("lora is given without init_from; adapters need a model to adapt")
        lanes = self.parallel.lanes
        require(self.data.rows % lanes == 0, "data.rows", self.data.rows,
                f"a multiple of parallel.processes * parallel.accumulation = {lanes}")  # fmt: skip
        if "vocab_size" in self.model:
            raise ConfigError("model.vocab_size is given; the tokenizer decides, leave it out")
        known = {f.name for f in fields(FalconH1Config)}
        for name in self.model:
            known_name(name, known, f"model.{name}", "a field of FalconH1Config")
        for name in ("keep_checkpoints", "max_non_finite"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.evaluate_every >= 0, "evaluate_every", self.evaluate_every, "0 or more")
        require(self.evaluate_count >= 1, "evaluate_count", self.evaluate_count, "at least 1")
