"""The recipe of a training run: a YAML file, checked key by key before anything is made."""

import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from falcon_h1r.errors import ConfigError
from falcon_h1r.model.config import FalconH1Config
from falcon_h1r.train.tasks import FAMILIES

RECIPES = Path(__file__).parent / "recipes"
MATMUL_PRECISIONS = ("highest", "high", "medium")
_T = TypeVar("_T")


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is {value!r}; it must be {allowed}")


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
        unknown = sorted(set(self.families) - set(FAMILIES))
        if unknown:
            raise ConfigError(f"data.families names {unknown}; known are {sorted(FAMILIES)}")
        if not set(self.levels) <= {1, 2, 3}:
            raise ConfigError(f"data.levels has {sorted(self.levels)}; levels are 1, 2 and 3")
        for name, weights in (("families", self.families), ("levels", self.levels)):
            positive = all(w >= 0 for w in weights.values()) and sum(weights.values()) > 0
            _require(positive, f"data.{name}", weights, "weights >= 0, one of them positive")
        _require(self.rows > 0, "data.rows", self.rows, "at least 1")
        _require(self.row_length >= 64, "data.row_length", self.row_length, "at least 64")
        _require(self.vocabulary_size >= 512, "data.vocabulary_size", self.vocabulary_size,
                 "at least 512")  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerRecipe:
    """Muon on the matrices, AdamW on embedding, norms, convolution and state parameters."""

    steps: int = 6000
    muon_lr: float = 0.02
    adam_lr: float = 3e-3
    warmup_steps: int = 50
    decay_start: float = 0.5
    """Share of the steps after which the learning rate falls linearly."""
    final_lr: float = 0.02
    """Share of the learning rate at the last step."""
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        _require(self.steps > 0, "optimizer.steps", self.steps, "at least 1")
        _require(0 <= self.decay_start <= 1, "optimizer.decay_start", self.decay_start, "in [0, 1]")
        _require(0 <= self.final_lr <= 1, "optimizer.final_lr", self.final_lr, "in [0, 1]")
        for name in ("muon_lr", "adam_lr", "max_grad_norm"):
            value = getattr(self, name)
            _require(value > 0, f"optimizer.{name}", value, "positive")

    def scale(self, step: int) -> float:
        """Share of the learning rate at a step counted from 0."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        first = self.decay_start * self.steps
        if step < first:
            return warm
        left = (self.steps - step) / max(1.0, self.steps - first)
        return warm * (self.final_lr + (1 - self.final_lr) * left)


@dataclass(frozen=True, kw_only=True, slots=True)
class SftRecipe:
    """One supervised run, from a seed to a model folder."""

    model: dict[str, Any]
    """Fields of FalconH1Config; vocab_size and token ids come from the vocabulary."""
    data: DataRecipe = field(default_factory=DataRecipe)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    seed: int = 0
    matmul_precision: str = "highest"
    """Of float32 products, as torch names it; "medium" rounds their inputs to bfloat16, which is
    half again as fast where the processor has AMX. Weights and sums stay float32."""
    checkpoint_seconds: float = 180.0
    keep_checkpoints: int = 3
    evaluate_every: int = 250
    """Steps between measurements on held-out problems; 0 is never."""
    evaluate_count: int = 24
    """Held-out problems a family."""
    calibrate: bool = False
    """At the end choose confidence and window on sampled traces and write `thinking.json`."""

    def __post_init__(self) -> None:
        known = {f.name for f in fields(FalconH1Config)}
        unknown = sorted(set(self.model) - known)
        if unknown:
            raise ConfigError(f"model.{unknown[0]} is not a field of FalconH1Config")
        _require(self.matmul_precision in MATMUL_PRECISIONS, "matmul_precision",
                 self.matmul_precision, f"one of {', '.join(MATMUL_PRECISIONS)}")  # fmt: skip
        _require(self.keep_checkpoints >= 1, "keep_checkpoints", self.keep_checkpoints,
                 "at least 1")  # fmt: skip


def _build(cls: type[_T], data: object, where: str) -> _T:
    """Make a dataclass of nested mappings; an unknown key or a wrong type names its path."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where or 'the recipe'} is {data!r}; it must be a mapping")
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in data.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in hints:
            raise ConfigError(f"{path} is not a key of a recipe; known here are {sorted(hints)}")
        hint = hints[key]
        if isinstance(hint, type) and is_dataclass(hint):
            value = _build(hint, value, path)
        elif hint is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        plain = typing.get_origin(hint) or hint
        wrong_bool = isinstance(value, bool) and plain is not bool
        if isinstance(plain, type) and (wrong_bool or not isinstance(value, plain)):
            raise ConfigError(f"{path} is {value!r}; it must be of type {plain.__name__}")
        values[str(key)] = value
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"{where or 'the recipe'}: {error}") from None


def find_recipe(name_or_path: str | Path) -> Path:
    """The file of a recipe: a path, or a name in `train/recipes`."""
    path = Path(name_or_path)
    for candidate in (path, RECIPES / f"{name_or_path}.yaml"):
        if candidate.is_file():
            return candidate
    known = sorted(p.stem for p in RECIPES.glob("*.yaml"))
    raise ConfigError(f"no recipe {str(name_or_path)!r}; give a YAML file or one of {known}")


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> SftRecipe:
    """Read a recipe and apply overrides of the form "a.b=c" (c is YAML).

    Raises ConfigError naming the key, before anything is made.
    """
    path = find_recipe(name_or_path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds no mapping; see the files in {RECIPES.name}/")
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"override {override!r} is not of the form a.b=c")
        node = data
        *parents, last = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"override {override!r}: {parent} has no keys below it")
        node[last] = yaml.safe_load(text)
    try:
        return _build(SftRecipe, data, "")
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from None


def recipe_text(recipe: SftRecipe) -> str:
    """The resolved recipe as YAML."""
    return yaml.safe_dump(asdict(recipe), sort_keys=False)
