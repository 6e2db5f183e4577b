"""DeepConf's configuration: what a user may choose, checked at once; None is up to the model.

Source of the method: "Deep Think with Confidence", arXiv 2508.15260.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from falcon_h1r._rust import DeepConfPolicy
from falcon_h1r.engine.params import MAX_TRACES, SamplingParams
from falcon_h1r.errors import ConfigError, RequestError

Mode = Literal["online", "offline"]
Confidence = Literal["top_logprobs", "logprob", "entropy"]
Vote = Literal["majority", "mean", "tail", "bottom_groups", "lowest_group"]

DEFAULT_WARMUP = 16
DEFAULT_KEEP = 0.9
DEFAULT_WINDOW = 2048
DEFAULT_POWER = 1.0
DEFAULT_TEMPERATURE = 0.6
DEFAULT_TOP_P = 0.95
MAX_WINDOW = 1 << 20
MAX_TOP_LOGPROBS = 1000
MAX_POWER = 1000
MAX_TOTAL_TOKENS = 1 << 40


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepConf:
    """How to think in parallel. Raises RequestError on construction for a value not allowed."""

    mode: Mode = "online"
    """"online" stops weak traces while they run; "offline" runs all and filters afterwards."""
    budget: int = 64
    """Traces of a prompt."""
    warmup: int | None = None
    """First traces, which run in full and fix the threshold. None: the model's, or 16; never more
    than half the budget."""
    keep: float | None = None
    """Share of traces to keep: 0.9 is the paper's DeepConf-high (safe), 0.1 its DeepConf-low. None:
    the model's, or 0.9."""
    window: int | None = None
    """Tokens of a confidence group. None: the model's, or 2048."""
    confidence: Confidence | None = None
    """Confidence of a token: "top_logprobs" (the paper's), "logprob" of the sampled token, or
    "entropy" (negative). None: the model's, or the paper's."""
    top_logprobs: int = 20
    """How many of the highest log-probabilities the paper's measure averages."""
    vote: Vote = "lowest_group"
    """What weighs a trace's vote; "majority": every vote counts one."""
    power: float | None = None
    """What the weight of a vote is raised to: above 1 the surer traces count for more, 0 is one
    vote each. None: the model's, or 1, the paper's."""
    consensus: float | None = 0.95
    """Share of the vote at which the rest is stopped. None: never."""
    total_tokens: int | None = None
    """Tokens all traces of a prompt may spend, in trace order; what runs side by side may spend
    more until it is certain which traces count (bound: docs/deepconf.md). None: no limit."""

    def __post_init__(self) -> None:
        _one_of("mode", self.mode, get_args(Mode))
        _one_of("vote", self.vote, get_args(Vote))
        if self.confidence is not None:
            _one_of("confidence", self.confidence, get_args(Confidence))
        _whole("budget", self.budget, MAX_TRACES)
        if self.keep is not None:
            _share("keep", self.keep)
        _whole("top_logprobs", self.top_logprobs, MAX_TOP_LOGPROBS)
        if self.window is not None:
            _whole("window", self.window, MAX_WINDOW)
        if self.power is not None:
            _number("power", self.power)
            if not 0 <= self.power <= MAX_POWER:
                raise RequestError(f"power is {self.power}; it must lie in [0, {MAX_POWER}]")
        if self.consensus is not None:
            _share("consensus", self.consensus)
        if self.total_tokens is not None:
            _whole("total_tokens", self.total_tokens, MAX_TOTAL_TOKENS)
        if self.warmup is not None:
            _whole("warmup", self.warmup, MAX_TRACES)
            if self.warmup > self.budget:
                raise RequestError(
                    f"budget is {self.budget} but warmup is {self.warmup}: raise budget to at "
                    f"least {self.warmup}, lower warmup, or leave warmup out"
                )

    def resolved(self, defaults: "ThinkingDefaults") -> "DeepConf":
        """Return the same with every None but those of consensus and total_tokens filled in."""
        warmup = self.warmup
        if warmup is None:
            warmup = max(1, min(defaults.warmup or DEFAULT_WARMUP, self.budget // 2))
        return dataclasses.replace(
            self,
            warmup=warmup,
            keep=self.keep or defaults.keep or DEFAULT_KEEP,
            window=self.window or defaults.window or DEFAULT_WINDOW,
            confidence=self.confidence or defaults.confidence or "top_logprobs",
            power=_first(self.power, defaults.power, DEFAULT_POWER),
        )

    def policy(self) -> DeepConfPolicy:
        """Return what the scheduler needs to know. Call it on a resolved configuration.

        Weights must be positive, so measures that may be negative are exponentiated.
        """
        if self.warmup is None or self.window is None or self.keep is None:
            raise ConfigError("warmup, window or keep is None: call resolved() first")
        return DeepConfPolicy(
            mode=self.mode,
            warmup=self.warmup,
            keep=self.keep,
            window=self.window,
            vote=self.vote,
            consensus=self.consensus,
            exp_weights=self.confidence != "top_logprobs",
            power=DEFAULT_POWER if self.power is None else self.power,
            total_tokens=self.total_tokens,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ThinkingDefaults:
    """What a model's folder says in `thinking.json` about how it thinks best; None: not said."""

    confidence: Confidence | None = None
    window: int | None = None
    warmup: int | None = None
    keep: float | None = None
    power: float | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    system_prompt: str | None = None

    def __post_init__(self) -> None:
        DeepConf(confidence=self.confidence, window=self.window, keep=self.keep,
                 power=self.power)  # fmt: skip
        if self.warmup is not None:
            _whole("warmup", self.warmup, MAX_TRACES)
        if self.system_prompt is not None and not isinstance(self.system_prompt, str):
            raise RequestError(f"system_prompt is {self.system_prompt!r}; it must be a string")
        self.sampling_params()

    @classmethod
    def load(cls, folder: Path | None) -> "ThinkingDefaults":
        """Read `thinking.json` of a model folder; without the file nothing is said.

        Raises ConfigError naming the file when it is broken, or has a key or value not allowed.
        """
        path = None if folder is None else Path(folder) / "thinking.json"
        if path is None or not path.exists():
            return cls()
        try:
            data: Any = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{path} is not JSON ({error}); mend or remove it") from error
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(data, dict) or not data.keys() <= names:
            unknown = sorted(data.keys() - names) if isinstance(data, dict) else type(data).__name__
            raise ConfigError(f"{path} holds {unknown}; allowed is an object of {sorted(names)}")
        try:
            return cls(**data)
        except RequestError as error:
            raise ConfigError(f"{path}: {error}") from error

    def sampling_params(self, given: SamplingParams | None = None) -> SamplingParams:
        """Return how to sample: as given, with the model's max_tokens if none is given; else all
        from here. Raises RequestError when `n` is given: the budget decides.
        """
        if given is None:
            return SamplingParams(
                temperature=DEFAULT_TEMPERATURE if self.temperature is None else self.temperature,
                top_p=DEFAULT_TOP_P if self.top_p is None else self.top_p,
                max_tokens=self.max_tokens,
            )
        if given.n != 1:
            raise RequestError(
                f"n is {given.n}; thinking takes its number of traces from DeepConf(budget=...)"
            )
        if given.max_tokens is None:
            return dataclasses.replace(given, max_tokens=self.max_tokens)
        return given


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise RequestError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")


def _whole(name: str, value: Any, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"{name} is {value!r}; it must be an integer")
    if not 1 <= value <= high:
        raise RequestError(f"{name} is {value}; it must lie in [1, {high}]")


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RequestError(f"{name} is {value!r}; it must be a number")


def _share(name: str, value: Any) -> None:
    _number(name, value)
    if not (math.isfinite(value) and 0 < value <= 1):
        raise RequestError(f"{name} is {value}; it must lie in (0, 1]")
