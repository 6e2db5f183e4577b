"""What DeepConf accepts and refuses, and how thinking.json fills in the rest."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from falcon_h1r.engine.params import SamplingParams
from falcon_h1r.errors import ConfigError, RequestError
from falcon_h1r.thinking.deepconf import DeepConf, ThinkingDefaults

REFUSED: list[dict[str, Any]] = [
    {"mode": "offlin"},
    {"budget": 0},
    {"budget": -1},
    {"budget": 10**9},
    {"budget": 2.0},
    {"budget": True},
    {"budget": "8"},
    {"warmup": 0},
    {"warmup": 65},
    {"budget": 4, "warmup": 5},
    {"mode": "offline", "budget": 4, "warmup": 5},
    {"warmup": 1.5},
    {"keep": 0.0},
    {"keep": 1.01},
    {"keep": -0.1},
    {"keep": math.nan},
    {"keep": math.inf},
    {"keep": "0.9"},
    {"window": 0},
    {"window": -5},
    {"window": 1 << 40},
    {"window": 10.0},
    {"confidence": "entropie"},
    {"top_logprobs": 0},
    {"top_logprobs": 10**6},
    {"vote": "best"},
    {"vote": None},
    {"power": -1},
    {"power": 1001},
    {"power": math.nan},
    {"power": "2"},
    {"consensus": 0.0},
    {"consensus": 1.5},
    {"consensus": math.nan},
    {"total_tokens": 0},
    {"total_tokens": -3},
]


@pytest.mark.parametrize("options", REFUSED, ids=str)
def test_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        DeepConf(**options)
    message = str(caught.value)
    name = list(options)[-1]
    assert name in message and "\n" not in message
    assert any(word in message for word in ("must", "raise budget"))


def test_accepted_edges() -> None:
    DeepConf(budget=1, keep=1.0, window=1, consensus=1.0, total_tokens=1, warmup=1)
    DeepConf(budget=16384, keep=1e-9, consensus=None)
    with pytest.raises(TypeError):
        DeepConf(budgt=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("budget", "model", "warmup"),
    [(64, None, 16), (16, None, 8), (3, None, 1), (1, None, 1), (64, 8, 8), (10, 8, 5)],
)
def test_the_default_warmup_adapts(budget: int, model: int | None, warmup: int) -> None:
    assert DeepConf(budget=budget).resolved(ThinkingDefaults(warmup=model)).warmup == warmup


def test_what_is_given_wins_over_the_model_and_the_model_over_the_defaults() -> None:
    def of(config: DeepConf) -> tuple[Any, ...]:
        return config.confidence, config.window, config.warmup, config.keep, config.power

    model = ThinkingDefaults(confidence="logprob", window=16, warmup=8, keep=0.5, power=4)
    assert of(DeepConf().resolved(ThinkingDefaults())) == ("top_logprobs", 2048, 16, 0.9, 1)
    assert of(DeepConf().resolved(model)) == ("logprob", 16, 8, 0.5, 4)
    given = DeepConf(confidence="entropy", window=5, warmup=20, keep=0.7, power=0)
    given = given.resolved(model)
    assert of(given) == ("entropy", 5, 20, 0.7, 0)
    assert given.resolved(ThinkingDefaults()) == given


def test_the_policy_says_the_same() -> None:
    config = DeepConf(keep=0.5, vote="tail", consensus=None, total_tokens=99, power=3.0)
    policy = config.resolved(ThinkingDefaults(confidence="logprob", window=7)).policy()
    for name in ("mode", "keep", "vote", "consensus", "total_tokens", "power"):
        assert getattr(policy, name) == getattr(config, name)
    assert (policy.window, policy.warmup, policy.exp_weights) == (7, 16, True)
    assert (
        DeepConf(window=7, warmup=2, keep=1.0).policy().exp_weights is True
    )  # not resolved: unknown
    assert DeepConf().resolved(ThinkingDefaults()).policy().exp_weights is False
    with pytest.raises(ConfigError, match="resolved"):
        DeepConf().policy()


def write(folder: Path, text: str) -> Path:
    (folder / "thinking.json").write_text(text)
    return folder


def test_thinking_json(tmp_path: Path) -> None:
    assert ThinkingDefaults.load(None) == ThinkingDefaults.load(tmp_path) == ThinkingDefaults()
    data = {
        "confidence": "entropy",
        "window": 24,
        "warmup": 8,
        "keep": 0.5,
        "max_tokens": 256,
        "temperature": 0.7,
        "top_p": 1.0,
        "system_prompt": "Think.",
    }
    read = ThinkingDefaults.load(write(tmp_path, json.dumps(data)))
    assert read == ThinkingDefaults(**data)
    params = read.sampling_params()
    assert (params.temperature, params.top_p, params.max_tokens) == (0.7, 1.0, 256)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"windw": 3}',
        '{"window": 0}',
        '{"window": "3"}',
        '{"confidence": "x"}',
        '{"warmup": 0}',
        '{"keep": 0}',
        '{"power": -1}',
        '{"keep": "0.5"}',
        '{"temperature": -1}',
        '{"top_p": 0}',
        '{"max_tokens": 0}',
        '{"temperature": NaN}',
        '{"system_prompt": 3}',
    ],
)
def test_a_broken_thinking_json_names_the_file(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"thinking\.json"):
        ThinkingDefaults.load(write(tmp_path, text))


def test_sampling_as_given_but_never_a_short_max_tokens() -> None:
    model = ThinkingDefaults(max_tokens=300, temperature=0.5)
    assert ThinkingDefaults().sampling_params().max_tokens is None
    given = SamplingParams(temperature=1.2, seed=4)
    assert model.sampling_params(given) == SamplingParams(temperature=1.2, seed=4, max_tokens=300)
    assert model.sampling_params(SamplingParams(max_tokens=9)).max_tokens == 9
    with pytest.raises(RequestError, match="budget"):
        model.sampling_params(SamplingParams(n=4))
