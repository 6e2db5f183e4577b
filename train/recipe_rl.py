"""What a reinforcement learning run is told: prompts, rollouts, rewards, loss, optimizer."""

from dataclasses import dataclass, field
from typing import Literal

from falcon_h1r.train.config import require
from falcon_h1r.train.optimizer import OptimizerRecipe
from falcon_h1r.train.recipe_mix import check_mix
from falcon_h1r.train.rewards import RewardRecipe
from falcon_h1r.train.tasks import FAMILIES

Precision = Literal["highest", "high", "medium"]
Estimator = Literal["k1", "k2", "k3"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptRecipe:
    """Where prompts come from."""

    source: str = ""
    """Folder of a curated set; empty: the generators draw, by `families` and `levels`."""
    families: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FAMILIES, 1.0))
    """Weight of each family of generators."""
    levels: dict[int, float] = field(default_factory=lambda: {2: 0.3, 3: 0.7})
    """Weight of each level of difficulty."""

    def __post_init__(self) -> None:
        check_mix(self.families, self.levels)


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutRecipe:
    """What a step samples."""

    num_prompts: int = 32
    """Groups a step learns from."""
    group_size: int = 8
    """Rollouts a prompt."""
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 400
    """Tokens a rollout may have; one that reaches it is not right."""
    max_prompts: int = 96
    """Most prompts a step may draw to refill those without an advantage."""
    max_kept: int = 32
    """Groups too many that later steps may use."""
    max_staleness: int = 1
    """Versions a kept group may be behind."""

    def __post_init__(self) -> None:
        for name in ("num_prompts", "group_size", "max_tokens"):
            value = getattr(self, name)
            require(value >= 1, f"rollout.{name}", value, "at least 1")
        for name in ("max_kept", "max_staleness"):
            value = getattr(self, name)
            require(value >= 0, f"rollout.{name}", value, "0 or more")
        require(0 < self.temperature <= 100, "rollout.temperature", self.temperature, "in (0, 100]")
        require(0 < self.top_p <= 1, "rollout.top_p", self.top_p, "in (0, 1]")


@dataclass(frozen=True, kw_only=True, slots=True)
class GrpoLossRecipe:
    """The terms of GRPO's loss."""

    clip_low: float = 0.2
    clip_high: float = 0.28
    kl_coef: float = 0.0
    kl_estimator: Estimator = "k3"
    entropy_coef: float = 0.0
    tis_cap: float = 2.0
    """Cap of the importance weight between the engine's distribution and the trainer's."""
    positive_ce_coef: float = 0.0
    """Of the cross entropy on right rollouts."""
    aggregation: Literal["sequence", "token", "constant"] = "sequence"
    scale_rewards: Literal["group", "none"] = "group"
    """"group" divides by the group's standard deviation; "none" does not (Dr. GRPO)."""
    credit: Literal["sequence", "branch"] = "sequence"
    """"sequence": every token has its response's advantage; "branch": those tokens share it at
    which responses of the group part (`advantages.branch_advantages`)."""

    def __post_init__(self) -> None:
        _check_coefficients(self, ("kl_coef", "entropy_coef", "positive_ce_coef"))
        require(0 < self.clip_low < 1, "loss.clip_low", self.clip_low, "in (0, 1)")
        require(self.clip_high > 0, "loss.clip_high", self.clip_high, "positive")
        require(self.tis_cap >= 1, "loss.tis_cap", self.tis_cap, "at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class PpoLossRecipe:
    """The terms of PPO's loss and of its per-token reward."""

    clip_low: float = 0.2
    clip_high: float = 0.2
    value_clip: float = 0.2
    value_coef: float = 0.1
    kl_coef: float = 0.05
    """Of the KL to the model the run started from, taken off the reward token by token."""
    kl_estimator: Estimator = "k1"
    entropy_coef: float = 0.0
    gamma: float = 1.0
    lam: float = 0.95
    target_kl: float = 0.1
    """The step's remaining minibatches are left out once the KL to its start exceeds this."""
    tis_cap: float = 2.0

    def __post_init__(self) -> None:
        _check_coefficients(self, ("kl_coef", "entropy_coef", "value_coef"))
        require(0 < self.clip_low < 1, "loss.clip_low", self.clip_low, "in (0, 1)")
        for name in ("clip_high", "value_clip", "target_kl"):
            value = getattr(self, name)
            require(value > 0, f"loss.{name}", value, "positive")
        for name in ("gamma", "lam"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"loss.{name}", value, "in [0, 1]")
        require(self.tis_cap >= 1, "loss.tis_cap", self.tis_cap, "at least 1")


def _check_coefficients(recipe: object, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(recipe, name)
        require(0 <= value < float("inf"), f"loss.{name}", value, "0 or more and finite")


def _optimizer() -> OptimizerRecipe:
    return OptimizerRecipe(kind="adamw", steps=200, adam_lr=1e-4, warmup_steps=10, final_lr=1.0,
                           weight_decay=0.0, beta2=0.99)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class RlRecipe:
    """What PPO and GRPO share."""

    model: str = ""
    """Folder or hub id of the model to start from; empty is the model in the wheel."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the one copy of the weights that samples and learns; masters are float32."""
    data: PromptRecipe = field(default_factory=PromptRecipe)
    rollout: RolloutRecipe = field(default_factory=RolloutRecipe)
    reward: RewardRecipe = field(default_factory=RewardRecipe)
    optimizer: OptimizerRecipe = field(default_factory=_optimizer)
    epochs: int = 1
    """Passes over a step's rollouts."""
    minibatches: int = 1
    """Updates a pass."""
    micro_batch_tokens: int = 8192
    """Tokens of one forward and backward."""
    seed: int = 0
    matmul_precision: Precision = "highest"
    """Of the trainer's float32 products; anything below "highest" shows in `mismatch_kl`."""
    gradient_precision: Literal["same", "highest", "high", "medium"] = "same"
    """Of the products of gradients alone; "medium" leaves log-probabilities and ratios exact."""
    tensorboard: bool = False
    checkpoint_seconds: float = 180.0
    keep_checkpoints: int = 3
    max_non_finite: int = 5
    """Steps in a row with a non-finite loss or gradient after which training gives up."""
    evaluate_every: int = 0
    """Steps between measurements on held-out problems of the recipe's levels; 0 is never."""
    evaluate_count: int = 16
    """Held-out problems a family and level."""

    def __post_init__(self) -> None:
        for name in ("epochs", "minibatches", "micro_batch_tokens", "keep_checkpoints",
                     "max_non_finite", "evaluate_count"):  # fmt: skip
            value = getattr(self, name)
            require(value >= 1, name, value, "at least 1")
        require(self.evaluate_every >= 0, "evaluate_every", self.evaluate_every, "0 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class GrpoRecipe(RlRecipe):
    """One GRPO run."""

    loss: GrpoLossRecipe = field(default_factory=GrpoLossRecipe)

    def __post_init__(self) -> None:
        RlRecipe.__post_init__(self)
        rollout = self.rollout
        require(rollout.group_size >= 2, "rollout.group_size", rollout.group_size,
                "at least 2: an advantage is relative to a group")  # fmt: skip
        require(rollout.max_prompts >= rollout.num_prompts, "rollout.max_prompts",
                rollout.max_prompts, f"at least num_prompts, {rollout.num_prompts}")  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class PpoRecipe(RlRecipe):
    """One PPO run."""

    loss: PpoLossRecipe = field(default_factory=PpoLossRecipe)
