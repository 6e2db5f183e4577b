"""Rollouts by the engine over the module that is trained: sample groups, and judge them.

Everything is a function of the weights, the seed and the prompt's ordinal: a step that runs again
after a kill samples the same tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from falcon_h1r.engine.engine import Engine
from falcon_h1r.engine.params import SamplingParams
from falcon_h1r.errors import TrainingError
from falcon_h1r.ops.reference import mix64
from falcon_h1r.thinking.prompts import (
    ChatTokenizer,
    ThoughtTokenizer,
    encode_prompt,
    response_text,
)
from falcon_h1r.train import rewards
from falcon_h1r.train.rewards import RewardRecipe, Terms, Verdicts
from falcon_h1r.train.tasks import Problem

ZERO_SPREAD = 1e-6
"""A group whose rewards differ by no more than this has no advantage to learn from."""
Trace = tuple[tuple[int, ...], tuple[float, ...], float, bool]
"""What sampling gives of a response: (token ids, log-probabilities, mean entropy, ended)."""


class RolloutTokenizer(ChatTokenizer, ThoughtTokenizer, Protocol):
    """What rollouts need of a tokenizer."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled response with what sampling knew and what the verifier said."""

    token_ids: tuple[int, ...]
    old_logprobs: tuple[float, ...]
    """Of each token under the distribution that it was sampled from, by the engine."""
    entropy: float
    """Mean entropy of the plain softmax over the tokens, in nats."""
    text: str
    ended: bool
    """By an end-of-sequence token, not by the limit of length."""
    terms: Terms

    @property
    def is_right(self) -> bool:
        """Whether its answer is right."""
        return self.terms.correctness == 1.0


@dataclass(frozen=True, slots=True)
class Group:
    """All rollouts of one prompt, by the weights of one version."""

    ordinal: int
    version: int
    prompt_ids: tuple[int, ...]
    rollouts: tuple[Rollout, ...]

    def rewards(self, weights: RewardRecipe) -> list[float]:
        """Each rollout's reward."""
        return [rollout.terms.total(weights) for rollout in self.rollouts]

    def has_advantage(self, weights: RewardRecipe) -> bool:
        """Whether its rewards differ."""
        values = self.rewards(weights)
        return max(values) - min(values) > ZERO_SPREAD

    def to_state(self) -> dict[str, Any]:
        """A JSON value for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Group":
        """The group that `to_state` wrote."""
        rollouts = tuple(
            Rollout(
                tuple(r["token_ids"]),
                tuple(r["old_logprobs"]),
                r["entropy"],
                r["text"],
                r["ended"],
                Terms(**r["terms"]),
            )
            for r in state["rollouts"]
        )
        return cls(state["ordinal"], state["version"], tuple(state["prompt_ids"]), rollouts)


def sample_groups(
    engine: Engine,
    tokenizer: RolloutTokenizer,
    problems: Mapping[int, Problem],
    *,
    group_size: int,
    params: SamplingParams,
    seed: int,
    verdicts: Verdicts,
    weights: RewardRecipe,
    system_prompt: str | None = None,
) -> list[Group]:
    """Sample `group_size` responses to each problem (by ordinal) together, and judge them.

    `params` gives temperature, top_p and max_tokens; `system_prompt` is the model's own. Raises
    TrainingError naming the prompt when the model's logits held NaN, after which nothing sampled
    can be trusted.
    """
    prompts = {
        o: tuple(encode_prompt(tokenizer, p.problem, system_prompt)) for o, p in problems.items()
    }
    requests: dict[int, int] = {}
    for ordinal, prompt in prompts.items():
        own = SamplingParams(
            n=group_size,
            temperature=params.temperature,
            top_p=params.top_p,
            max_tokens=params.max_tokens,
            logprobs=0,
            seed=mix64(mix64(seed) ^ ordinal),
        )
        requests[engine.add_request(list(prompt), own, confidence="entropy")] = ordinal
    reasons: dict[tuple[int, int], str | None] = {}
    while engine.has_unfinished():
        for event in engine.step():
            if event.kind == "finished" and event.trace_index is not None:
                reasons[event.request_id, event.trace_index] = event.reason
    groups = []
    for request_id, ordinal in requests.items():
        traces: list[Trace] = []
        for t in range(group_size):
            reason = reasons[request_id, t]
            output = engine.output(request_id, t)
            if reason == "error":
                raise TrainingError(
                    f"sampling prompt {ordinal} met NaN logits after {output.token_ids}; these "
                    "weights cannot be used"
                )
            steps = zip(output.logprobs or (), output.token_ids, strict=True)
            logprobs = tuple(step[token].logprob for step, token in steps)
            entropy = -float(np.mean(output.confidences))
            traces.append((tuple(output.token_ids), logprobs, entropy, reason == "stop"))
        rollouts = judge(
            problems[ordinal], tokenizer, traces, verdicts, weights, params.max_tokens or 1
        )
        groups.append(Group(ordinal, engine.weights_version, prompts[ordinal], tuple(rollouts)))
        engine.release(request_id)
    return groups


def judge(
    problem: Problem,
    tokenizer: RolloutTokenizer,
    traces: Sequence[Trace],
    verdicts: Verdicts,
    weights: RewardRecipe,
    max_tokens: int,
) -> list[Rollout]:
    """Give each trace of one prompt its terms."""
    reference_tokens = len(tokenizer.encode(problem.response))
    lengths = [len(ids) for ids, *_ in traces]
    texts = [response_text(tokenizer, ids) for ids, *_ in traces]
    right = [
        ended
        and rewards.is_right(
            rewards.response_answer(text), problem.answer, problem.family, verdicts
        )
        for text, (*_, ended) in zip(texts, traces, strict=True)
    ]
    brief = rewards.brevity(lengths, right, weights.brevity_from)
    rollouts = []
    for i, (ids, logprobs, entropy, ended) in enumerate(traces):
        thought = texts[i].partition(rewards.END_OF_THOUGHT)[0]
        terms = Terms(
            correctness=float(right[i]),
            format=float(rewards.is_well_formed(texts[i], ended)),
            depth=rewards.depth(thought, lengths[i], problem.thought, reference_tokens),
            brevity=brief[i],
            length=lengths[i] / max_tokens,
        )
        rollouts.append(Rollout(ids, logprobs, entropy, texts[i], ended, terms))
    return rollouts
