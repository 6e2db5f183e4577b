"""Rollouts of a model on problems: difficulty by pass rate, and right thoughts to learn from.

The rules for problems without a right rollout follow the Falcon-H1R report (arXiv 2601.02346):
where half of the rollouts or more agree on one wrong answer the problem is dropped (unless a
verifier has computed the reference), of the others a small part stays.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from falcon_h1r.engine.params import SamplingParams
from falcon_h1r.errors import RequestError
from falcon_h1r.llm import LLM
from falcon_h1r.reference_model import reference_model_path
from falcon_h1r.thinking.answers import AnswerClasses, equal, extract
from falcon_h1r.thinking.prompts import END_OF_THOUGHT, encode_prompt
from falcon_h1r.train.curation.dedup import text_hash
from falcon_h1r.train.curation.drafts import Draft
from falcon_h1r.train.curation.filters import verified_by_family
from falcon_h1r.train.curation.recipe import DifficultyRecipe
from falcon_h1r.train.tasks import FAMILIES

BATCH = 256
"""Problems in the engine's queue at once."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One attempt at a problem."""

    thought: str
    answer: str | None
    is_finished: bool
    """Whether it ended by itself."""


Roll = Callable[[Sequence[str]], list[list[Rollout]]]
"""Problems in, the rollouts of each out."""


class Roller:
    """Asks a model. The rollouts of a problem depend on its text and the seed alone."""

    def __init__(self, recipe: DifficultyRecipe, seed: int) -> None:
        """Load the model. Raises ConfigError or WeightsError when it is not usable."""
        name = recipe.model or "reference"
        self.llm = LLM(reference_model_path() if name == "reference" else name)
        self.recipe, self.seed = recipe, seed

    def __call__(self, problems: Sequence[str]) -> list[list[Rollout]]:
        """The rollouts of each problem; none for one whose prompt does not fit the context."""
        results: list[list[Rollout]] = []
        for start in range(0, len(problems), BATCH):
            results += self._batch(problems[start : start + BATCH])
        return results

    def _batch(self, problems: Sequence[str]) -> list[list[Rollout]]:
        ids = [self._add(problem) for problem in problems]
        reasons: dict[tuple[int, int | None], str | None] = {}
        engine = self.llm.engine
        while engine.has_unfinished():
            for event in engine.step():
                if event.kind == "finished":
                    reasons[event.request_id, event.trace_index] = event.reason
        results: list[list[Rollout]] = []
        for request_id in ids:
            if request_id is None:
                results.append([])
                continue
            results.append(
                [
                    self._rollout(request_id, index, reasons.get((request_id, index)))
                    for index in range(self.recipe.rollouts)
                ]
            )
            engine.release(request_id)
        return results

    def _add(self, problem: str) -> int | None:
        params = SamplingParams(
            n=self.recipe.rollouts,
            temperature=self.recipe.temperature,
            top_p=self.recipe.top_p,
            max_tokens=self.recipe.max_tokens,
            seed=(text_hash(problem) ^ self.seed) & ((1 << 63) - 1),
        )
        prompt = encode_prompt(
            self.llm.tokenizer, problem, self.llm.thinking_defaults.system_prompt
        )
        try:
            return self.llm.engine.add_request(prompt, params)
        except RequestError:
            return None

    def _rollout(self, request_id: int, index: int, reason: str | None) -> Rollout:
        ids = self.llm.engine.output(request_id, index, reason).token_ids
        while ids and ids[-1] in self.llm.engine.eos_token_ids:
            ids = ids[:-1]
        assert self.llm.tokenizer is not None  # encode_prompt has seen to it
        text = self.llm.tokenizer.decode(ids, skip_special_tokens=False)
        finished = reason == "stop"
        thought, closed, _ = text.partition(END_OF_THOUGHT)
        answer = extract(text, final_line=finished) if closed else None
        return Rollout(thought.strip() if closed else "", answer, finished)


def is_right(draft: Draft, rollout: Rollout) -> bool:
    """Whether a rollout's answer is the reference, or one the source's own verdict accepts."""
    if rollout.answer is None:
        return False
    return equal(rollout.answer, draft.answer) or (
        draft.judge is not None and draft.judge(rollout.answer)
    )


def is_consistent_error(rollouts: Sequence[Rollout], share: float) -> bool:
    """Whether at least `share` of the rollouts agree on one answer."""
    classes = AnswerClasses()
    found = [classes.class_of(r.answer) for r in rollouts if r.answer is not None]
    most = max((found.count(c) for c in set(found)), default=0)
    return most >= max(2, share * len(rollouts))


def distilled(draft: Draft, rollouts: Sequence[Rollout], limit: int) -> list[Draft]:
    """Up to `limit` samples of right rollouts whose thoughts differ; steps are verified too."""
    thoughts = {" ".join(draft.thought.split())}
    found: list[Draft] = []
    for index, rollout in enumerate(rollouts):
        if len(found) >= limit:
            break
        plain = " ".join(rollout.thought.split())
        if not plain or plain in thoughts or not rollout.is_finished:
            continue
        if not is_right(draft, rollout):
            continue
        sample = draft.but(
            where=f"rollout {index} of {draft.where}",
            thought=rollout.thought,
            answer=draft.answer if equal(rollout.answer or "", draft.answer) else rollout.answer,
            final=rollout.answer,
            style="distilled",
            steps=(),
        )
        if draft.family in FAMILIES and not verified_by_family(sample):
            continue
        thoughts.add(plain)
        found.append(sample)
    return found
