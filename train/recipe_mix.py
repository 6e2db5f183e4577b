"""What recipes that draw from the generators have in common: weights of families and levels."""

import math
from collections.abc import Mapping
from typing import Any

from falcon_h1r.errors import ConfigError
from falcon_h1r.train.config import known_name, require
from falcon_h1r.train.tasks import FAMILIES


def levels_of(numbers: str) -> dict[int, float]:
    """Levels by number ("1,2"), all of one weight. Raises ConfigError for another number."""
    for text in numbers.split(","):
        if text not in ("1", "2", "3"):
            raise ConfigError(f"levels has {text!r}; levels are 1, 2 and 3")
    return {int(text): 1.0 for text in numbers.split(",")}


def check_weights(name: str, weights: Mapping[Any, float]) -> None:
    """Raise ConfigError unless a draw by these weights is possible."""
    holds = all(w >= 0 for w in weights.values()) and 0 < sum(weights.values()) < math.inf
    require(holds, name, weights, "finite weights >= 0, one of them positive")


def check_mix(families: Mapping[str, float], levels: Mapping[int, float]) -> None:
    """Raise ConfigError unless `data.families` and `data.levels` are weights of what there is."""
    for family in families:
        known_name(family, FAMILIES, f"data.families.{family}", "a family of tasks")
    if not set(levels) <= {1, 2, 3}:
        raise ConfigError(f"data.levels has {sorted(levels)}; levels are 1, 2 and 3")
    mix: dict[str, Mapping[str, float] | Mapping[int, float]]
    mix = {"families": families, "levels": levels}
    for name, weights in mix.items():
        check_weights(f"data.{name}", weights)
