"""Rollouts by the engine over the module that is trained: draw prompts, sample groups, keep those
that teach something, and lay them end to end for the trainer.

Everything is a function of (seed, step, prompt's ordinal): a step that runs again after a kill
samples the same tokens.

Legend: N response tokens of a batch laid end to end, T tokens with prompts, S sequences.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from falcon_h1r.engine.engine import Engine
from falcon_h1r.engine.params import SamplingParams
from falcon_h1r.errors import TrainingError
from falcon_h1r.model.cache import PackedBatch
from falcon_h1r.ops.reference import mix64
from falcon_h1r.thinking.prompts import ChatTokenizer, encode_prompt
from falcon_h1r.train import rewards
from falcon_h1r.train.rewards import RewardRecipe, Terms, Verdicts
from falcon_h1r.train.tasks import FAMILIES, Problem, may_train

ZERO_SPREAD = 1e-6
"""A group whose rewards differ by no more than this has no advantage to learn from."""
TOKEN_MULTIPLE = 128
"""Packed batches are padded to a multiple: every new shape costs memory for ever in oneDNN."""


class RolloutTokenizer(ChatTokenizer, Protocol):
    """What rollouts need of a tokenizer."""

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        """Text of token ids."""


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


def draw_problem(
    ordinal: int, seed: int, families: Mapping[str, float], levels: Mapping[int, float]
) -> Problem:
    """Problem number `ordinal` of the endless stream; never one of the evaluation's operands."""
    rng = Random(f"rollout {seed} {ordinal}")
    while True:
        family = rng.choices(list(families), list(families.values()))[0]
        level = rng.choices(list(levels), list(levels.values()))[0]
        problem = FAMILIES[family].generate(rng, level)
        if may_train(problem):
            return problem


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
) -> list[Group]:
    """Sample `group_size` responses to each problem (by ordinal) together, and judge them.

    `params` gives temperature, top_p and max_tokens. Raises TrainingError naming the prompt when
    the model's logits held NaN, after which nothing sampled can be trusted.
    """
    prompts = {o: tuple(encode_prompt(tokenizer, p.problem)) for o, p in problems.items()}
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
        traces = []
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
            traces.append((output, logprobs, reason == "stop"))
        rollouts = judge(
            problems[ordinal],
            tokenizer,
            [
                (tuple(o.token_ids), lp, -float(np.mean(o.confidences)), ended)
                for o, lp, ended in traces
            ],
            verdicts,
            weights,
            params.max_tokens or 1,
        )
        groups.append(Group(ordinal, engine.weights_version, prompts[ordinal], tuple(rollouts)))
        engine.release(request_id)
    return groups


def judge(
    problem: Problem,
    tokenizer: RolloutTokenizer,
    traces: Sequence[tuple[tuple[int, ...], tuple[float, ...], float, bool]],
    verdicts: Verdicts,
    weights: RewardRecipe,
    max_tokens: int,
) -> list[Rollout]:
    """Give each (token ids, log-probabilities, entropy, ended) of one prompt its terms."""
    reference_tokens = len(tokenizer.encode(problem.response))
    lengths = [len(ids) for ids, *_ in traces]
    texts = [tokenizer.decode(list(ids)) for ids, *_ in traces]
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


@dataclass(slots=True)
class Supply:
    """Where the next groups come from: what was left over, then fresh prompts.

    This is all a checkpoint needs besides the weights; see `collect`.
    """

    next_ordinal: int = 0
    kept: list[Group] = None  # type: ignore[assignment]
    kept_rate: float = 0.5
    """Running share of groups that had an advantage: how many prompts to draw at once."""

    def __post_init__(self) -> None:
        self.kept = [] if self.kept is None else self.kept

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
    """Return (`num_prompts` groups to learn from, all groups sampled for them).

    Groups without an advantage are replaced by further prompts (the published recipe's refill) in
    rounds sized by the share that was of use so far, until `max_prompts` were drawn; what is then
    too much is kept for later steps, at most `max_kept` groups and `max_staleness` versions.
    """
    chosen = [g for g in supply.kept if version - g.version <= max_staleness][:num_prompts]
    drawn: list[Group] = []
    useful: list[Group] = []
    while len(chosen) + len(useful) < num_prompts and len(drawn) < max_prompts:
        missing = num_prompts - len(chosen) - len(useful)
        count = min(round(missing / max(supply.kept_rate, 0.25)), max_prompts - len(drawn))
        ordinals = range(supply.next_ordinal, supply.next_ordinal + max(count, 1))
        supply.next_ordinal = ordinals.stop
        groups = sample(ordinals)
        drawn += groups
        useful += [group for group in groups if has_advantage(group)]
        rate = sum(map(has_advantage, groups)) / len(groups)
        supply.kept_rate += 0.2 * (rate - supply.kept_rate)
    fresh = num_prompts - len(chosen)
    supply.kept = useful[fresh : fresh + max_kept]
    return chosen + useful[:fresh], drawn


@dataclass(frozen=True, slots=True)
class Packed:
    """Prompts, padding, and the responses that go on from the prompts, laid end to end.

    A prompt stands once, whatever number of responses it has; a response's last token predicts
    nothing and is left out.
    """

    input_ids: Tensor
    """int64 [T]"""
    batch: PackedBatch
    """Where they start, and which goes on from which; padding is a prompt without response."""
    fill: float
    """Share of the slots that are not padding."""
    predictors: Tensor
    """int64 [N]: the position whose output predicts each response token."""
    targets: Tensor
    """int64 [N]: the response tokens."""
    response_lengths: Tensor
    """int64 [S]"""

    def per_token(self, values: Tensor) -> Tensor:
        """Repeat one value a sequence [S] for each of its response tokens [N]."""
        return torch.repeat_interleave(values, self.response_lengths)


def by_sequence(values: Tensor, lengths: Tensor) -> list[Tensor]:
    """Cut [N] into one tensor a sequence of `lengths` [S]."""
    return list(torch.split(values, lengths.tolist()))


def pack(sequences: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Packed:
    """Lay (prompt, response) pairs end to end, equal prompts once."""
    places: dict[tuple[int, ...], int] = {}
    prompt_of = [places.setdefault(tuple(prompt), len(places)) for prompt, _ in sequences]
    ids = [token for prompt in places for token in prompt]
    prompts, ends = [len(prompt) for prompt in places], np.cumsum([len(p) for p in places])
    lengths = [len(response) for _, response in sequences]
    padding = -(len(ids) + sum(lengths) - len(lengths)) % TOKEN_MULTIPLE
    if padding:
        ids += [0] * padding
        prompts.append(padding)
    predictors: list[NDArray[np.int64] | list[int]] = []
    for place, (_, response) in zip(prompt_of, sequences, strict=True):
        predictors += [[ends[place] - 1], np.arange(len(ids), len(ids) + len(response) - 1)]
        ids += response[:-1]
    return Packed(
        input_ids=torch.tensor(ids),
        batch=PackedBatch.from_prompts(prompts, [n - 1 for n in lengths], prompt_of),
        fill=1.0 - padding / len(ids),
        predictors=torch.from_numpy(np.concatenate(predictors)),
        targets=torch.tensor([token for _, response in sequences for token in response]),
        response_lengths=torch.tensor(lengths),
    )


def micro_batches(
    sequences: Sequence[tuple[Sequence[int], Sequence[int]]], max_tokens: int
) -> list[range]:
    """Cut (prompt, response) pairs, in order, into runs of few tokens; a run packs a prompt once.

    Each run has at most `max_tokens` unless a single sequence is longer.
    """
    runs: list[range] = []
    start = used = 0
    seen: set[tuple[int, ...]] = set()
    for i, (prompt, response) in enumerate(sequences):
        key, length = tuple(prompt), len(response) - 1
        if used and used + length + len(prompt) * (key not in seen) > max_tokens:
            runs.append(range(start, i))
            start, used, seen = i, 0, set()
        used += length + len(prompt) * (key not in seen)
        seen.add(key)
    return [*runs, range(start, len(sequences))]
