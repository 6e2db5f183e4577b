"""Which groups a step learns from: those left over from the step before, then fresh ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from falcon_h1r.train.rollouts import Group


@dataclass(slots=True)
class Supply:
    """Where the next groups come from: what was left over, then fresh prompts.

    This is all a checkpoint needs besides the weights; see `collect`.
    """

    next_ordinal: int = 0
    kept: list[Group] = field(default_factory=list)
    kept_rate: float = 0.5
    """Running share of groups that had an advantage: how many prompts to draw at once."""

    def to_state(self) -> dict[str, Any]:
        """A JSON value for a checkpoint."""
        kept = [group.to_state() for group in self.kept]
        return {"next_ordinal": self.next_ordinal, "kept": kept, "kept_rate": self.kept_rate}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Supply":
        """The supply that `to_state` wrote."""
        kept = [Group.from_state(group) for group in state["kept"]]
        return cls(state["next_ordinal"], kept, state["kept_rate"])


def collect(
    supply: Supply,
    sample: Callable[[Sequence[int]], list[Group]],
    has_advantage: Callable[[Group], bool],
    *,
    version: int,
    num_prompts: int,
    max_prompts: int,
    max_kept: int,
    max_staleness: int,
) -> tuple[list[Group], list[Group]]:
    """Return (at most `num_prompts` groups to learn from, all groups sampled for them).

    Groups without an advantage are replaced by further prompts (the published recipe's refill) in
    rounds sized by the share that was of use so far, until `max_prompts` were drawn. What is too
    much is kept for later steps, at most `max_kept` groups and for `max_staleness` versions.
    """
    usable = [g for g in supply.kept if version - g.version <= max_staleness]
    chosen = usable[:num_prompts]
    drawn: list[Group] = []
    useful: list[Group] = []
    while len(chosen) + len(useful) < num_prompts and len(drawn) < max_prompts:
        missing = num_prompts - len(chosen) - len(useful)
        count = min(round(missing / max(supply.kept_rate, 0.25)), max_prompts - len(drawn))
        ordinals = range(supply.next_ordinal, supply.next_ordinal + count)
        supply.next_ordinal = ordinals.stop
        groups = sample(ordinals)
        drawn += groups
        good = [group for group in groups if has_advantage(group)]
        useful += good
        supply.kept_rate += 0.2 * (len(good) / len(groups) - supply.kept_rate)
    fresh = num_prompts - len(chosen)
    supply.kept = [*usable[num_prompts:], *useful[fresh:]][:max_kept]
    return chosen + useful[:fresh], drawn
