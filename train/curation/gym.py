"""Tasks of the package reasoning-gym; needs the extra "curate".

Its problems come with an answer and a verifier, seldom with a thought: those without one need
`augment.distil`, which lets the model find it. The verifiers see what a model wrote, so they run
in a process that is killed when it hangs.
"""

import json
from pathlib import Path
from random import Random

from falcon_h1r.errors import ConfigError
from falcon_h1r.thinking.line_worker import LineWorker
from falcon_h1r.train.curation.drafts import Broken, Draft, Position, Record, missing
from falcon_h1r.train.curation.recipe import SourceRecipe

SECONDS = 5.0
"""Longest verdict; after it the answer is wrong and the process is replaced."""
MAX_ANSWER = 2000
"""Longest answer that is asked about, in characters."""


class GymJudge(LineWorker):
    """Asks a task's own verifier in another process, started at the first question."""

    def __init__(self, *arguments: str, seconds: float = SECONDS) -> None:
        super().__init__(Path(__file__).with_name("gym_worker.py"), *arguments)
        self._seconds = seconds

    def is_right(self, index: int, answer: str) -> bool:
        """Whether the answer to problem `index` is right; no when the verifier hangs or dies."""
        if len(answer) > MAX_ANSWER:
            return False
        try:
            return self._ask([index, answer], self._seconds) == b"right"
        except BrokenPipeError:  # the package cannot be imported there
            return False

    def close(self) -> None:
        """End the process."""
        self._kill()


class ReasoningGymSource:
    """A task, problem by problem."""

    def __init__(self, name: str, recipe: SourceRecipe, seed: int) -> None:
        try:
            import reasoning_gym
        except ImportError:
            raise missing("reasoning-gym", f"the source {name}") from None
        self.name, self.recipe, self.count = name, recipe, recipe.count or 0
        task, number = recipe.task or "", Random(f"{seed} {name}").getrandbits(31)
        try:
            self.data = reasoning_gym.create_dataset(
                task, seed=number, size=self.count, **recipe.options
            )
        except (ValueError, TypeError, AssertionError) as error:
            raise ConfigError(f"sources.{name}: reasoning-gym refused {task}: {error}") from None
        options = json.dumps(recipe.options)
        self.judge = GymJudge(task, str(number), str(self.count), options)

    def read(self, position: Position, limit: int) -> tuple[list[Record], Position | None]:
        """Draw the next problems."""
        first, end = position[0], min(self.count, position[0] + limit)
        records: list[Record] = [self.draw(ordinal) for ordinal in range(first, end)]
        return records, (end, 0) if end < self.count else None

    def share(self, position: Position) -> float:
        """Of the problems."""
        return position[0] / self.count

    def draw(self, ordinal: int) -> Record:
        """The problem with this number."""
        where = f"problem {ordinal} of {self.name}"
        entry = self.data[ordinal]
        if not isinstance(entry.get("answer"), str):
            return Broken(where=where, reason="no answer", message="no answer")
        thought = entry["metadata"].get("answer_cot", "")
        return Draft(
            where=where,
            problem=entry["question"].strip(),
            thought=thought.partition("\n####")[0].strip() if isinstance(thought, str) else "",
            answer=entry["answer"].strip(),
            family=self.recipe.family or self.recipe.task or self.name,
            level=0,
            source=self.name,
            style=self.recipe.style or "reasoning_gym",
            judge=lambda answer: self.judge.is_right(ordinal, answer),
        )
