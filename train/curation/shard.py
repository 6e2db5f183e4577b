"""One shard: records in, samples and counts out."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from falcon_h1r.errors import TrainingError
from falcon_h1r.train.curation.augment import augmented
from falcon_h1r.train.curation.dedup import Duplicates
from falcon_h1r.train.curation.drafts import Broken, Draft, Record
from falcon_h1r.train.curation.filters import judge
from falcon_h1r.train.curation.mix import cell_of
from falcon_h1r.train.curation.overlap import EvaluationSets
from falcon_h1r.train.curation.recipe import CurateRecipe
from falcon_h1r.train.curation.rollouts import Roll, distilled, is_consistent_error, is_right
from falcon_h1r.train.samples import Sample, SampleTokenizer, encode_sample
from falcon_h1r.train.tasks import FAMILIES

MAX_NAMED = 5
"""Broken records of a shard that the report names."""


@dataclass
class Counts:
    """What happened to the records of a shard, or of all shards added up."""

    read: Counter[str] = field(default_factory=Counter)
    """Source -> records."""
    dropped: Counter[str] = field(default_factory=Counter)
    """ "reason|source" -> samples."""
    kept: Counter[str] = field(default_factory=Counter)
    """Source -> samples left before the mix."""
    augmented: Counter[str] = field(default_factory=Counter)
    """ "name|proposed", "name|verified", "name|kept" -> samples."""
    checked_by: Counter[str] = field(default_factory=Counter)
    """What the answer was verified by -> samples kept."""
    overlap: Counter[str] = field(default_factory=Counter)
    """ "ngram|source" and "item|source" -> samples that share one with an evaluation problem."""
    cells: Counter[str] = field(default_factory=Counter)
    """Cell of the mix, as JSON -> samples."""
    rollouts: Counter[str] = field(default_factory=Counter)
    """ "problems", "rollouts", "right" -> how many."""
    broken: list[str] = field(default_factory=list)
    """The first broken records, with where they stand."""
    shortest_too_long: int = 0
    """Tokens of the shortest sample dropped for its length; 0: none was."""

    def add(self, other: "Counts") -> None:
        """Add the counts of another shard."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(value, Counter):
                mine.update(value)
        self.broken += other.broken
        lengths = [n for n in (self.shortest_too_long, other.shortest_too_long) if n]
        self.shortest_too_long = min(lengths, default=0)

    def to_json(self) -> dict[str, Any]:
        """As JSON with sorted keys."""
        return {
            name: dict(sorted(value.items())) if isinstance(value, Counter) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Counts":
        """Read `to_json`."""
        values: dict[str, Any] = {
            k: Counter(v) if isinstance(v, dict) else v for k, v in data.items()
        }
        return cls(**values)

    def num_broken(self, source: str) -> int:
        """Records of a source that were broken or had no answer."""
        return self.dropped[f"broken line|{source}"] + self.dropped[f"no answer|{source}"]


class ShardWorker:
    """Turns records into samples; holds what filters and duplicates need between shards."""

    def __init__(
        self,
        recipe: CurateRecipe,
        tokenizer: SampleTokenizer,
        duplicates: Duplicates,
        evaluation: EvaluationSets | None,
        roll: Roll | None,
    ) -> None:
        self.recipe, self.tokenizer, self.duplicates = recipe, tokenizer, duplicates
        self.evaluation, self.roll = evaluation, roll

    def run(
        self, records: list[Record], source: str, seed: str
    ) -> tuple[list[Sample], list[Sample], Counts]:
        """One shard's samples, those remembered against repetition alone, and what happened.

        The same for the same seed and history.
        """
        counts = Counts()
        counts.read[source] += len(records)
        drafts: list[Draft] = []
        thoughtless: list[Draft] = []
        for record in records:
            if isinstance(record, Broken):
                self._drop(counts, record.reason, source, f"{record.where}: {record.message}")
                continue
            verdict = judge(record, self.recipe.filters)
            if isinstance(verdict, Draft):
                drafts.append(verdict)
            elif verdict == "empty thought" and self._distils:
                thoughtless.append(record)
            else:
                self._drop(counts, verdict, source, record.where)
        kept = [draft for draft in drafts if self._keep(draft, counts)]
        if self.recipe.augment.enabled and kept:
            kept += self._augment(kept, counts, seed)
        remembered: list[Sample] = []
        if self.roll is not None:
            kept, remembered = self._difficulty(kept, thoughtless, counts)
        samples = [draft.sample() for draft in kept]
        for draft, sample in zip(kept, samples, strict=True):
            counts.kept[source] += 1
            counts.checked_by[draft.checked_by] += 1
            counts.cells[json.dumps(cell_of(sample, self.recipe))] += 1
        return samples, remembered, counts

    @property
    def _distils(self) -> bool:
        augment = self.recipe.augment
        return augment.enabled and augment.distil > 0 and self.roll is not None

    def _drop(self, counts: Counts, reason: str, source: str, where: str) -> None:
        counts.dropped[f"{reason}|{source}"] += 1
        if reason in ("broken line", "no answer") and len(counts.broken) < MAX_NAMED:
            counts.broken.append(where if ": " in where else f"{where}: {reason}")

    def _keep(self, draft: Draft, counts: Counts) -> bool:
        """Length, overlap and duplicates; a draft that is kept is remembered."""
        reason = self._reason(draft, counts)
        if reason is not None:
            self._drop(counts, reason, draft.source, draft.where)
            return False
        self.duplicates.add(draft.sample())
        return True

    def _reason(self, draft: Draft, counts: Counts) -> str | None:
        sample, source = draft.sample(), self.recipe.sources[draft.source]
        length = sum(map(len, encode_sample(self.tokenizer, sample)))
        if length > self.recipe.max_length:
            shortest = counts.shortest_too_long
            counts.shortest_too_long = min(shortest or length, length)
            return "too long"
        if self.evaluation is not None:
            shares = self.evaluation.shares_ngram(draft.problem, draft.thought)
            holds = self.evaluation.holds_item(draft.problem)
            counts.overlap[f"ngram|{draft.source}"] += shares
            counts.overlap[f"item|{draft.source}"] += holds
            if self.recipe.filters.overlap and (shares if source.drops_ngrams else holds):
                return "overlap"
        return self.duplicates.reason(sample)

    def _augment(self, drafts: list[Draft], counts: Counts, seed: str) -> list[Draft]:
        augment = self.recipe.augment
        shares = {name: getattr(augment, name) for name in ("rephrase", "renumber", "compose")}
        kept: list[Draft] = []
        for name, draft in augmented(drafts, shares, seed):
            counts.augmented[f"{name}|proposed"] += 1
            if draft is not None and self._is_kept_as(name, draft, counts):
                kept.append(draft.but(checked_by=name))
        return kept

    def _is_kept_as(self, name: str, draft: Draft, counts: Counts) -> bool:
        counts.augmented[f"{name}|verified"] += 1
        is_kept = self._keep(draft, counts)
        counts.augmented[f"{name}|kept"] += is_kept
        return is_kept

    def _difficulty(
        self, kept: list[Draft], thoughtless: list[Draft], counts: Counts
    ) -> tuple[list[Draft], list[Sample]]:
        """Give every draft its pass rate, drop consistent errors, add distilled thoughts.

        Returns (what is kept, what is dropped now and yet remembered as seen).
        """
        assert self.roll is not None
        problems = list(dict.fromkeys(d.problem for d in (*kept, *thoughtless)))
        rollouts = dict(zip(problems, self.roll(problems), strict=True))
        limit = self.recipe.augment.distil if self._distils else 0
        rated: list[Draft] = []
        added: list[Draft] = []
        remembered: list[Sample] = []
        done: set[str] = set()
        for draft in (*kept, *thoughtless):
            tried = rollouts[draft.problem]
            right = sum(is_right(draft, rollout) for rollout in tried)
            draft = draft.but(pass_rate=right / len(tried) if tried else None)
            consistent = self.recipe.difficulty.consistent
            # Of a reference that a verifier has computed nothing is doubtful.
            is_certain = draft.checked_by == "verifier" or (
                draft.family in FAMILIES and self.recipe.filters.wrong_answer
            )
            if tried and not (right or is_certain) and is_consistent_error(tried, consistent):
                self._drop(counts, "consistent error", draft.source, draft.where)
                if draft.thought or not self.recipe.filters.empty_thought:
                    remembered.append(draft.sample())
                continue
            proposals: list[Draft] = []
            if draft.problem not in done:
                done.add(draft.problem)
                counts.rollouts.update(problems=1, rollouts=len(tried), right=right)
                proposals = distilled(draft, tried, limit)
                counts.augmented["distil|proposed"] += right if limit else 0
            if draft.thought or not self.recipe.filters.empty_thought:
                rated.append(draft)
            elif not proposals:
                self._drop(counts, "empty thought", draft.source, draft.where)
            added += proposals
        for draft in added:
            if isinstance(judge(draft, self.recipe.filters), Draft) and self._is_kept_as(
                "distil", draft, counts
            ):
                rated.append(draft.but(checked_by="distil"))
        return rated, remembered


def load_counts(folder: Path) -> tuple[Counts, dict[str, Any]]:
    """Counts and state of a shard on disk. Raises TrainingError naming the file."""
    path = folder / "state.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        return Counts.from_json(state.pop("counts")), state
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} is unreadable ({error}); start over with --fresh") from None
