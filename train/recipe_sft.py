"""What a supervised run is told: model, data, optimizer."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from falcon_h1r.errors import ConfigError
from falcon_h1r.model.config import FalconH1Config
from falcon_h1r.train.config import known_name, require
from falcon_h1r.train.optimizer import OptimizerRecipe
from falcon_h1r.train.tasks import FAMILIES


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRecipe:
    """What is drawn, and how it is packed."""

    families: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FAMILIES, 1.0))
    """Weight of each family."""
    levels: dict[int, float] = field(default_factory=lambda: {1: 0.2, 2: 0.75, 3: 0.05})
    """Weight of each level of difficulty."""
    rows: int = 11
    """Rows a step."""
    row_length: int = 384
    """Tokens a row; longer documents are not drawn."""
    vocabulary_size: int = 3072

    def __post_init__(self) -> None:
        for family in self.families:
            known_name(family, FAMILIES, f"data.families.{family}", "a family of tasks")
        if not set(self.levels) <= {1, 2, 3}:
            raise ConfigError(f"data.levels has {sorted(self.levels)}; levels are 1, 2 and 3")
        for name, weights in (("families", self.families), ("levels", self.levels)):
            positive = all(w >= 0 for w in weights.values()) and sum(weights.values()) > 0
            require(positive, f"data.{name}", weights, "weights >= 0, one of them positive")
        require(self.rows > 0, "data.rows", self.rows, "at least 1")
        require(self.row_length >= 64, "data.row_length", self.row_length, "at least 64")
        require(self.vocabulary_size >= 512, "data.vocabulary_size", self.vocabulary_size,
                "at least 512")  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class SftRecipe:
    """One supervised run, from a seed to a model folder."""

    model: dict[str, Any]
    """Fields of FalconH1Config; vocab_size and token ids come from the vocabulary."""
    data: DataRecipe = field(default_factory=DataRecipe)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    seed: int = 0
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
    calibrate: bool = False
    """At the end choose confidence and window on sampled traces and write `thinking.json`."""

    def __post_init__(self) -> None:
        known = {f.name for f in fields(FalconH1Config)}
        for name in self.model:
            known_name(name, known, f"model.{name}", "a field of FalconH1Config")
        for name in ("keep_checkpoints", "max_non_finite"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.evaluate_every >= 0, "evaluate_every", self.evaluate_every, "0 or more")
        require(self.evaluate_count >= 1, "evaluate_count", self.evaluate_count, "at least 1")
