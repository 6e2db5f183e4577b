"""GRPO in plain lines: no engine, no cache, no packing, no micro-batches, no kernels of our own.

`grpo.py` must equal this step for step (tests/train/test_minimal.py). Read this one first.

Legend: S responses of a step, L tokens of a response, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from falcon_h1r.model.model import FalconH1ForCausalLM
from falcon_h1r.ops.reference import mix64, noise_key, philox_uniform
from falcon_h1r.thinking.prompts import encode_prompt, response_text
from falcon_h1r.train import rewards
from falcon_h1r.train.prompts import draw_problem
from falcon_h1r.train.recipe_rl import GrpoRecipe
from falcon_h1r.train.rewards import Terms, Verdicts
from falcon_h1r.train.rollouts import RolloutTokenizer
from falcon_h1r.train.tasks import Problem


@dataclass
class Response:
    """One sampled answer to one prompt."""

    prompt: list[int]
    token_ids: list[int]
    old_logprobs: list[float]
    ended: bool
    reward: float = 0.0
    advantages: Tensor | float = 0.0


def sample(
    model: FalconH1ForCausalLM,
    prompt: list[int],
    seed: int,
    trace: int,
    recipe: GrpoRecipe,
    end_ids: set[int],
) -> Response:
    """Draw tokens one by one, running the whole sequence through the model for each."""
    response = Response(prompt, [], [], ended=False)
    key = noise_key(seed, trace)
    while len(response.token_ids) < recipe.rollout.max_tokens and not response.ended:
        ids = prompt + response.token_ids
        with torch.no_grad():
            logits = model(torch.tensor([ids]))[0, -1].double() / recipe.rollout.temperature
        logprobs = logits.log_softmax(-1)  # [V]
        uniform = philox_uniform(key, len(ids))
        token = int((logprobs.exp().cumsum(0) > uniform).nonzero()[0])  # inverse CDF
        response.token_ids.append(token)
        response.old_logprobs.append(float(logprobs[token]))
        response.ended = token in end_ids
    return response


def give_rewards(
    group: list[Response],
    problem: Problem,
    tokenizer: RolloutTokenizer,
    recipe: GrpoRecipe,
    verdicts: Verdicts,
) -> None:
    """Judge the responses to one prompt."""
    texts = [response_text(tokenizer, r.token_ids) for r in group]
    right = [
        r.ended
        and rewards.is_right(
            rewards.response_answer(text), problem.answer, problem.family, verdicts
        )
        for r, text in zip(group, texts, strict=True)
    ]
    lengths = [len(r.token_ids) for r in group]
    brief = rewards.brevity(lengths, right, recipe.reward.brevity_from)
    reference_tokens = len(tokenizer.encode(problem.response))
    for i, response in enumerate(group):
        thought = texts[i].partition(rewards.END_OF_THOUGHT)[0]
        terms = Terms(
            correctness=float(right[i]),
            format=float(rewards.is_well_formed(texts[i], response.ended)),
            depth=rewards.depth(thought, lengths[i], problem.thought, reference_tokens),
            brevity=brief[i],
            length=lengths[i] / recipe.rollout.max_tokens,
        )
        response.reward = terms.total(recipe.reward)


def give_advantages(group: list[Response], recipe: GrpoRecipe) -> bool:
    """(R - mean) / (std + 1e-4) inside the group, for the whole response or the tokens [L] at which
    it parts from others; False when all rewards are the same.
    """
    values = torch.tensor([r.reward for r in group])
    scaled = (values - values.mean()) / (values.std() + 1e-4)

    def worth(prefix: list[int]) -> Tensor:  # what begins alike is worth its mean
        return scaled[[r.token_ids[: len(prefix)] == prefix for r in group]].mean()

    for response, advantage in zip(group, scaled.tolist(), strict=True):
        response.advantages = advantage
        if recipe.loss.credit == "branch":
            ids = response.token_ids
            values_along = torch.stack([worth(ids[:t]) for t in range(len(ids) + 1)])
            response.advantages = values_along.diff()
    return float(values.max() - values.min()) > 1e-6


def token_logprobs(model: FalconH1ForCausalLM, response: Response, temperature: float) -> Tensor:
    """Log-probabilities [L] of a response's tokens, with gradients."""
    ids = torch.tensor([response.prompt + response.token_ids])
    first = len(response.prompt)
    logprobs = (model(ids)[0, first - 1 : -1] / temperature).log_softmax(-1)
    chosen: Tensor = logprobs.gather(1, ids[0, first:, None])[:, 0]
    return chosen


def sequence_loss(logprobs: Tensor, response: Response, recipe: GrpoRecipe) -> Tensor:
    """Clipped surrogate with truncated importance sampling, averaged over the tokens [L]."""
    start, old = logprobs.detach(), torch.tensor(response.old_logprobs)
    ratio = torch.exp(logprobs - start)
    clipped = ratio.clamp(1 - recipe.loss.clip_low, 1 + recipe.loss.clip_high)
    surrogate = torch.minimum(ratio * response.advantages, clipped * response.advantages)
    correction = torch.exp(start - old).clamp(max=recipe.loss.tis_cap)
    return -(surrogate * correction).mean()


def train(
    model: FalconH1ForCausalLM, tokenizer: RolloutTokenizer, recipe: GrpoRecipe, end_ids: set[int]
) -> list[dict[str, float]]:
    """Run every step of a recipe on `model`, in place; return a line of metrics a step.

    One update a step on the prompts that had an advantage; none is refilled or kept.
    """
    rates, verdicts = recipe.optimizer, Verdicts()
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": rates.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=rates.adam_lr,
        betas=(rates.beta1, rates.beta2),
        eps=1e-10,
    )
    lines = []
    for step in range(rates.steps):
        # 1. Sample a group of responses to each prompt, and judge them.
        groups, responses = [], []
        for ordinal in range(
            step * recipe.rollout.num_prompts, (step + 1) * recipe.rollout.num_prompts
        ):
            problem = draw_problem(ordinal, recipe.seed, recipe.data.families, recipe.data.levels)
            prompt = encode_prompt(tokenizer, problem.problem)
            seed = mix64(mix64(recipe.seed) ^ ordinal)
            group = [
                sample(model, prompt, seed, trace, recipe, end_ids)
                for trace in range(recipe.rollout.group_size)
            ]
            give_rewards(group, problem, tokenizer, recipe, verdicts)
            responses += group
            # 2. Advantages inside the group; a group without one is left out.
            if give_advantages(group, recipe):
                groups.append(group)
        # 3. One clipped update.
        chosen = [response for group in groups for response in group]
        optimizer.zero_grad()
        losses = [
            sequence_loss(
                token_logprobs(model, response, recipe.rollout.temperature), response, recipe
            )
            for response in chosen
        ]
        line = {"loss": 0.0, "grad_norm": 0.0}
        if losses:
            loss = torch.stack(losses).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), rates.max_grad_norm)
            for parameters in optimizer.param_groups:
                parameters["lr"] = rates.adam_lr * rates.scale(step)
            optimizer.step()
            line = {"loss": loss.item(), "grad_norm": norm.item()}
        lengths = [float(len(r.token_ids)) for r in responses]
        line["reward"] = sum(r.reward for r in responses) / len(responses)
        line["completions/mean_length"] = sum(lengths) / len(lengths)
        lines.append(line)
    verdicts.close()
    return lines
