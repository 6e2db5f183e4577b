"""The recipe of a curation: what is read, what is dropped, what is added, and the wanted mix."""

from dataclasses import dataclass, field
from typing import Any, Literal

from falcon_h1r.errors import ConfigError
from falcon_h1r.train.config import require
from falcon_h1r.train.recipe_mix import check_weights
from falcon_h1r.train.tasks import FAMILIES

AXES = ("family", "style", "source", "level")
FROM_FILES = ("jsonl", "gsm8k", "math", "parquet")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRecipe:
    """One source of problems with chains of thought."""

    kind: Literal["generator", "jsonl", "gsm8k", "math", "parquet", "reasoning_gym"]
    """generator, jsonl, gsm8k, math, parquet or reasoning_gym."""
    path: str | None = None
    """File, or folder of MATH's own format."""
    count: int | None = None
    """Records to read; None is all of a file."""
    families: dict[str, float] = field(default_factory=dict)
    """generator: weight of each family; empty is all alike."""
    levels: dict[int, float] = field(default_factory=lambda: {1: 0.2, 2: 0.6, 3: 0.2})
    """generator: weight of each level."""
    task: str | None = None
    """reasoning_gym: name of the task."""
    options: dict[str, Any] = field(default_factory=dict)
    """reasoning_gym: options of the task, such as `max_terms`."""
    fields: dict[str, str] = field(default_factory=dict)
    """jsonl, parquet: names of the columns for problem, thought, answer, response, level, family
    and style, where they are not found by themselves."""
    family: str | None = None
    """Family of records that name none; None is the source's name."""
    style: str | None = None
    """Style of records that name none; None is the kind."""
    near_duplicates: bool | None = None
    """Look for near-duplicates; None: not among generated problems, which differ in few words."""
    overlap: Literal["ngram", "item"] | None = None
    """ "ngram": one n-gram shared with an evaluation problem drops a sample; "item": only a whole
    problem does. None: "item" for generated problems, whose wording is a template."""

    def __post_init__(self) -> None:
        if self.kind in FROM_FILES and not self.path:
            raise ConfigError(f"a source of kind {self.kind} needs a path")
        if self.kind == "reasoning_gym" and not self.task:
            raise ConfigError("a source of kind reasoning_gym needs a task, such as chain_sum")
        if self.kind in ("generator", "reasoning_gym") and self.count is None:
            raise ConfigError(f"a source of kind {self.kind} has no end: give it a count")
        require(self.count is None or self.count >= 1, "count", self.count, "at least 1")
        unknown = sorted(set(self.families) - set(FAMILIES))
        require(not unknown, "families", unknown, f"among {', '.join(sorted(FAMILIES))}")
        require(set(self.levels) <= {1, 2, 3}, "levels", sorted(self.levels), "among 1, 2, 3")
        for name, weights in (("families", self.families), ("levels", self.levels)):
            if weights:
                check_weights(name, weights)

    @property
    def is_generated(self) -> bool:
        """Whether problems are written by a program from templates."""
        return self.kind in ("generator", "reasoning_gym")

    @property
    def drops_near_duplicates(self) -> bool:
        """Whether near-duplicates are looked for among its samples as they were read."""
        return not self.is_generated if self.near_duplicates is None else self.near_duplicates

    @property
    def drops_ngrams(self) -> bool:
        """Whether one shared n-gram is enough to drop a sample."""
        return not self.is_generated if self.overlap is None else self.overlap == "ngram"


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterRecipe:
    """What is dropped. Each filter can be switched off alone."""

    broken_format: bool = True
    """Markers inside the text, control characters, replacement characters."""
    truncated: bool = True
    """A thought that never closes, or that its record says was cut."""
    empty_thought: bool = True
    wrong_answer: bool = True
    """The text arrives at another answer than the reference, or the family's verifier objects."""
    wrong_step: bool = True
    """A calculator mark `<<3*4=12>>` that does not hold."""
    looping: bool = True
    """The text repeats itself at length."""
    exact_duplicates: bool = True
    near_duplicates: bool = True
    overlap: bool = True
    """Overlap with the evaluation sets."""
    similarity: float = 0.8
    """Estimated Jaccard similarity of word 5-grams from which two samples are near-duplicates."""
    max_solutions: int = 4
    """Samples that share one problem."""
    max_broken: int = 100
    """Broken lines, or lines without an answer, of one source after which curation stops."""

    def __post_init__(self) -> None:
        require(0.5 <= self.similarity <= 1, "filters.similarity", self.similarity, "in [0.5, 1]")
        require(self.max_solutions >= 1, "filters.max_solutions", self.max_solutions, "at least 1")
        require(self.max_broken >= 0, "filters.max_broken", self.max_broken, "at least 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class DifficultyRecipe:
    """Difficulty by the pass rate of a model: n rollouts a problem. Off without a model."""

    model: str | None = None
    """A model folder, a hub id, or "reference" for the model in the wheel."""
    rollouts: int = 8
    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 512
    easy: float = 0.75
    """Pass rate from which a problem is easy; 1.0 is solved."""
    hard: float = 0.375
    """Pass rate up to which a problem is hard; 0.0 is unsolved."""
    consistent: float = 0.5
    """An unsolved problem is dropped when this share of its rollouts agrees on one answer: then
    the reference is more likely wrong than the model, unless a verifier has computed it."""
    weights: dict[str, float] = field(
        default_factory=lambda: {
            "solved": 0.25, "easy": 0.5, "medium": 1.0, "hard": 1.5, "unsolved": 0.25,
            "unknown": 1.0,
        }
    )  # fmt: skip
    """How often a sample of each difficulty is taken: 0.5 is every second one, 1.5 every second
    one twice."""

    def __post_init__(self) -> None:
        require(self.rollouts >= 1, "difficulty.rollouts", self.rollouts, "at least 1")
        require(self.temperature >= 0, "difficulty.temperature", self.temperature, "at least 0")
        require(0 < self.top_p <= 1, "difficulty.top_p", self.top_p, "in (0, 1]")
        require(self.max_tokens >= 1, "difficulty.max_tokens", self.max_tokens, "at least 1")
        require(0 <= self.hard < self.easy <= 1, "difficulty.hard", self.hard, "below easy")
        unknown = sorted(set(self.weights) - set(BUCKETS))
        require(not unknown, "difficulty.weights", unknown, f"among {', '.join(BUCKETS)}")
        holds = all(0 <= weight <= 8 for weight in self.weights.values())
        require(holds, "difficulty.weights", self.weights, "weights in [0, 8]")

    def bucket(self, pass_rate: float | None) -> str:
        """The difficulty that a pass rate means."""
        if pass_rate is None:
            return "unknown"
        if pass_rate in (0.0, 1.0):
            return "solved" if pass_rate else "unsolved"
        if pass_rate >= self.easy:
            return "easy"
        return "hard" if pass_rate <= self.hard else "medium"


BUCKETS = ("solved", "easy", "medium", "hard", "unsolved", "unknown")


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentRecipe:
    """What is added to each shard, as shares of its samples; all off unless `enabled`."""

    enabled: bool = False
    rephrase: float = 0.1
    """Share of the samples that are asked again in another frame of words."""
    renumber: float = 0.1
    """Share that come back with other numbers: by their generator, or by running the marks of a
    GSM8K solution again."""
    compose: float = 0.05
    """Share that are joined with another one: both must be solved, and their answers combined."""
    distil: int = 1
    """Right rollouts a problem that become samples of their own; needs `difficulty.model`."""

    def __post_init__(self) -> None:
        for name in ("rephrase", "renumber", "compose"):
            value = getattr(self, name)
            require(0 <= value <= 4, f"augment.{name}", value, "in [0, 4]")
        require(self.distil >= 0, "augment.distil", self.distil, "at least 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class MixRecipe:
    """The wanted make-up of the set."""

    total: int | None = None
    """Samples wanted; None is as many as the rest allows."""
    by: Literal["family", "style", "source", "level"] = "family"
    """Axis that `shares` names: family, style, source or level."""
    shares: dict[str | int, float] = field(default_factory=dict)
    """Wanted weight of each value of that axis; values not named are left out. Empty: as found."""
    caps: dict[str, float] = field(default_factory=dict)
    """Axis -> largest share one value of it may take."""

    def __post_init__(self) -> None:
        require(self.total is None or self.total >= 1, "mix.total", self.total, "at least 1")
        if self.shares:
            check_weights("mix.shares", self.shares)
        require(set(self.caps) <= set(AXES), "mix.caps", sorted(self.caps), f"among {AXES}")
        holds = all(0 < cap <= 1 for cap in self.caps.values())
        require(holds, "mix.caps", self.caps, "shares in (0, 1]")


@dataclass(frozen=True, kw_only=True, slots=True)
class CurateRecipe:
    """One curation, from sources to a tokenised set."""

    sources: dict[str, SourceRecipe]
    """By name; the name stands in every sample and in the report."""
    evaluation: list[str] = field(default_factory=list)
    """Files or folders of evaluation problems no sample may overlap with."""
    filters: FilterRecipe = field(default_factory=FilterRecipe)
    difficulty: DifficultyRecipe = field(default_factory=DifficultyRecipe)
    augment: AugmentRecipe = field(default_factory=AugmentRecipe)
    mix: MixRecipe = field(default_factory=MixRecipe)
    tokenizer: str | None = None
    """A model folder or hub id; None is the model in the wheel."""
    vocabulary_size: int | None = None
    """Build a vocabulary of this size from the generators instead, as `train sft` does."""
    max_length: int = 1024
    """Tokens of the longest document."""
    shard_size: int = 2000
    """Records read between two saves, and samples of an output shard."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("sources is empty; name at least one")
        bad = [name for name in self.sources if not name or len(name) > 100 or "\n" in name]
        require(not bad, "sources", bad, "named in 1 to 100 characters of one line")
        require(self.max_length >= 32, "max_length", self.max_length, "at least 32")
        require(self.shard_size >= 1, "shard_size", self.shard_size, "at least 1")
        size = self.vocabulary_size
        require(size is None or size >= 512, "vocabulary_size", size, "at least 512")
        if self.tokenizer is not None and size is not None:
            raise ConfigError("both tokenizer and vocabulary_size are given; keep one of them")
