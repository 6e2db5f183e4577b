"""Curation: sources -> filters -> one deduplicated, balanced, tokenised set, with a report.

It goes shard by shard, in three passes over files: read and filter (`read-00000`, ...), plan the
mix from counts alone, write (`write-00000`, ...). Every shard is a folder that is whole or absent,
so the same command goes on after a kill with the shard it was at, to the same bytes. What is held
in memory between shards is hashes.
"""

import json
import os
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from falcon_h1r.errors import ConfigError, TrainingError
from falcon_h1r.evaluate.records import write_whole
from falcon_h1r.hub import model_folder
from falcon_h1r.reference_model import reference_model_path
from falcon_h1r.tokenizer import Tokenizer
from falcon_h1r.train.checkpoint import MANIFEST, remove_folder, verify_folder, write_folder
from falcon_h1r.train.config import RECIPE, load_recipe, recipe_text
from falcon_h1r.train.curation import report as reports
from falcon_h1r.train.curation.dedup import Duplicates
from falcon_h1r.train.curation.drafts import START, Position, Record, Source
from falcon_h1r.train.curation.mix import Cell, Selector, cell_of, plan
from falcon_h1r.train.curation.overlap import EvaluationSets
from falcon_h1r.train.curation.recipe import CurateRecipe
from falcon_h1r.train.curation.rollouts import Roll, Roller
from falcon_h1r.train.curation.shard import Counts, ShardWorker, load_counts
from falcon_h1r.train.curation.sources import open_source
from falcon_h1r.train.loop import Report, named, sole_run, stop_on_interrupt
from falcon_h1r.train.samples import Sample, read_samples, write_samples, write_shard
from falcon_h1r.train.vocabulary import TOKENIZER_FILES, build_vocabulary

RUN, MIX, INPUTS = "run.json", "mix.json", "inputs.json"
SAMPLES, REMEMBERED = "samples.jsonl", "remembered.jsonl"
"""Files of a shard that was read: what it gave, and what was dropped late but counts as seen."""
_SHARD = re.compile(r"(read|write)-\d{5,}|\.(read|write)-\d{5,}\.(partial|removed)")
"""Folders of shards in a folder of work, and what a kill leaves of one."""


class Watch(Protocol):
    """What is told of the progress."""

    def __call__(self, source: str, num_read: int, num_kept: int, share: float | None) -> None:
        """A shard of `source` is done; `share` of the source where its end is known."""


def silent(source: str, num_read: int, num_kept: int, share: float | None) -> None:
    """Tell nobody."""


class Curation:
    """One curation in its folder of work: what is done, and the next shard."""

    def __init__(
        self, recipe: CurateRecipe, work: Path, report: Report, roll: Roll | None = None
    ) -> None:
        """Open every source, the evaluation sets and the model; nothing is written yet."""
        self.recipe, self.work, self.report = recipe, work, report
        self.sources: list[Source] = [
            open_source(name, source, recipe.seed) for name, source in recipe.sources.items()
        ]
        self.evaluation = EvaluationSets(recipe.evaluation) if recipe.evaluation else None
        near = [name for name, source in recipe.sources.items() if source.drops_near_duplicates]
        self.duplicates = Duplicates(recipe.filters, near)
        if roll is None and recipe.difficulty.model is not None:
            roll = Roller(recipe.difficulty, recipe.seed)
        self.roll = roll
        if recipe.vocabulary_size is None:
            self.tokenizer_folder = model_folder(recipe.tokenizer or reference_model_path())
        else:
            self.tokenizer_folder = work / "vocabulary"
        self.counts = Counts()
        self.num_shards = 0
        self.source_index = 0
        self.position: Position = START

    # First pass: read and filter

    def begin(self) -> None:
        """Make the folder of work, or take over its shards up to the first that is not whole."""
        _begin(self.recipe, self.work)
        size = self.recipe.vocabulary_size
        if size is not None and not self.tokenizer_folder.exists():

            def fill(folder: Path) -> None:
                build_vocabulary(folder, size, self.recipe.seed)

            write_folder(self.tokenizer_folder, fill)
        self.tokenizer = Tokenizer.from_pretrained(self.tokenizer_folder)
        self.worker = ShardWorker(
            self.recipe, self.tokenizer, self.duplicates, self.evaluation, self.roll
        )
        self._resume()

    def _resume(self) -> None:
        while (folder := self._read_folder(self.num_shards)).exists():
            damage = verify_folder(folder)
            if damage is not None:
                self.report(f"{folder.name}: {damage}; it is made again")
                break
            counts, state = load_counts(folder)
            for name in (SAMPLES, REMEMBERED):
                for sample in read_samples(folder / name):
                    self.duplicates.add(sample)
            self._advance(counts, state)
        for stale in self.work.glob("read-*"):
            if int(stale.name.rpartition("-")[2]) >= self.num_shards:
                shutil.rmtree(stale)

    def read(self, stop: threading.Event, watch: Watch) -> bool:
        """Read and filter until every source is at its end; False when `stop` came first."""
        while self.source_index < len(self.sources):
            if stop.is_set():
                return False
            source = self.sources[self.source_index]
            records, following = self._next_records(source)
            samples, remembered, counts = self.worker.run(
                records, source.name, f"{self.recipe.seed} {self.num_shards}"
            )
            state = {"source_index": self.source_index, "position": following}
            if following is None:
                state = {"source_index": self.source_index + 1, "position": START}
            before = self.counts.num_broken(source.name)
            self._check_broken(before + counts.num_broken(source.name), source.name, counts)

            def fill(
                folder: Path,
                samples: list[Sample] = samples,
                remembered: list[Sample] = remembered,
                state: Any = state,
                counts: Counts = counts,
            ) -> None:
                write_samples(folder / SAMPLES, samples)
                write_samples(folder / REMEMBERED, remembered)
                text = json.dumps({**state, "counts": counts.to_json()}, ensure_ascii=False)
                (folder / "state.json").write_text(text + "\n", encoding="utf-8")

            write_folder(self._read_folder(self.num_shards), fill)
            self._advance(counts, state)
            share = source.share(following) if following is not None else 1.0
            watch(source.name, self.counts.read[source.name], self.counts.kept[source.name], share)
        return True

    def _next_records(self, source: Source) -> tuple[list[Record], Position | None]:
        """The next records of a source, no more than its count allows."""
        limit, count = self.recipe.shard_size, self.recipe.sources[source.name].count
        if count is not None:
            limit = min(limit, count - self.counts.read[source.name])
        records, following = source.read(self.position, limit)
        if count is not None and self.counts.read[source.name] + len(records) >= count:
            following = None
        return records, following

    def _advance(self, counts: Counts, state: dict[str, Any]) -> None:
        self.counts.add(counts)
        self.source_index = state["source_index"]
        first, second = state["position"]
        self.position = (first, second)
        self.num_shards += 1

    def _check_broken(self, number: int, source: str, counts: Counts) -> None:
        limit = self.recipe.filters.max_broken
        if number > limit:
            named = "; ".join((self.counts.broken + counts.broken)[:3])
            raise TrainingError(
                f"source {source}: {number} records are broken or without an answer ({named}); "
                f"more than filters.max_broken = {limit}: mend them or raise it"
            )

    # Second pass: the mix. Third pass: write

    def available(self) -> dict[Cell, int]:
        """Samples that passed, by cell of the mix. Raises TrainingError when there is none."""
        cells: dict[Cell, int] = {}
        for key, number in sorted(self.counts.cells.items()):
            family, style, source, level, bucket = json.loads(key)
            cells[family, style, source, level, bucket] = number
        if not cells:
            raise TrainingError(self._why_empty())
        return cells

    def _why_empty(self) -> str:
        reasons: dict[str, int] = {}
        for key, number in self.counts.dropped.items():
            reason = key.partition("|")[0]
            reasons[reason] = reasons.get(reason, 0) + number
        if set(reasons) == {"too long"}:
            return (
                f"every sample is longer than max_length = {self.recipe.max_length} tokens (the "
                f"shortest has {self.counts.shortest_too_long}); raise max_length"
            )
        most = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        listed = ", ".join(f"{number} {reason}" for reason, number in most[:5]) or "no record"
        return (
            f"nothing is left of {sum(self.counts.read.values())} records ({listed}); "
            "give other sources or switch off the filter that dropped the most"
        )

    def write(self, stop: threading.Event, wanted: dict[Cell, int]) -> list[Path] | None:
        """Write the chosen samples as shards; None when `stop` came first."""
        folders: list[Path] = []
        for index, samples in enumerate(self._batches(wanted)):
            if stop.is_set():
                return None
            folder = self.work / f"write-{index:05d}"
            folders.append(folder)
            if folder.exists() and verify_folder(folder) is None:
                continue

            def fill(target: Path, index: int = index, samples: list[Sample] = samples) -> None:
                write_shard(target, index, samples, self.tokenizer)

            write_folder(folder, fill)
        return folders

    def _batches(self, wanted: dict[Cell, int]) -> Iterator[list[Sample]]:
        batch: list[Sample] = []
        for sample in self._chosen(wanted):
            batch.append(sample)
            if len(batch) == self.recipe.shard_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _chosen(self, wanted: dict[Cell, int]) -> Iterator[Sample]:
        selector = Selector(self.available(), wanted, self.recipe.seed)
        for number in range(self.num_shards):
            for sample in read_samples(self._read_folder(number) / SAMPLES):
                for _ in range(selector.copies(cell_of(sample, self.recipe))):
                    yield sample

    def finish(self, output: Path, folders: list[Path], wanted: dict[Cell, int]) -> dict[str, Any]:
        """Put the shards, the report, the recipe and the tokenizer together as `output`."""
        report = reports.build_report(
            self.counts,
            self.available(),
            wanted,
            _lengths(folders),
            self.recipe,
            self.evaluation.num_problems if self.evaluation else 0,
        )

        def fill(temporary: Path) -> None:
            for folder in folders:
                for path in folder.iterdir():
                    if path.name != MANIFEST:
                        _link(path, temporary / path.name)
            for name in TOKENIZER_FILES:
                if (self.tokenizer_folder / name).is_file():
                    shutil.copy(self.tokenizer_folder / name, temporary / name)
            (temporary / "report.json").write_text(reports.to_json(report), encoding="utf-8")
            (temporary / "report.md").write_text(reports.to_markdown(report), encoding="utf-8")
            (temporary / RECIPE).write_text(recipe_text(self.recipe), encoding="utf-8")
            begun = json.loads((self.work / RUN).read_text(encoding="utf-8"))
            (temporary / INPUTS).write_text(json.dumps(begun["inputs"]), encoding="utf-8")

        write_folder(output, fill)
        return report

    def _read_folder(self, number: int) -> Path:
        return self.work / f"read-{number:05d}"


def _link(path: Path, target: Path) -> None:
    """A second name for a file that will not change; a copy where that cannot be."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copy(path, target)


def _lengths(folders: list[Path]) -> NDArray[np.int64]:
    lengths = [np.empty(0, np.int64)]
    for folder in folders:
        for path in sorted(folder.glob("tokens-*.safetensors")):
            with safe_open(path, framework="numpy") as file:
                lengths.append(np.diff(file.get_tensor("offsets")))
    return np.concatenate(lengths)


def _inputs(recipe: CurateRecipe) -> dict[str, Any]:
    """What the run depends on beside the recipe: of every file or folder it reads, how many files
    and bytes."""
    paths = [s.path for s in recipe.sources.values() if s.path] + recipe.evaluation
    inputs = {}
    for path in map(Path, paths):
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        inputs[str(path)] = [len(files), sum(p.stat().st_size for p in files)]
    return inputs


def _begun(recipe: CurateRecipe) -> str:
    """What shards that were read depend on: the mix is made of them afterwards."""
    known = asdict(recipe)
    del known["mix"], known["filters"]["max_broken"]
    # Not sorted: the order of sources and families decides what a position means.
    return json.dumps({"recipe": known, "inputs": _inputs(recipe)})


def _is_begun(recipe: CurateRecipe, work: Path) -> bool:
    """Whether a folder of work is of this very run."""
    path = work / RUN
    return path.exists() and path.read_text(encoding="utf-8") == _begun(recipe)


def _begin(recipe: CurateRecipe, work: Path) -> None:
    """Make the folder of work, or see that it belongs to this very run."""
    path, mix = work / RUN, json.dumps(asdict(recipe.mix), sort_keys=True)
    if not path.exists() or not any(work.glob("read-*")):

        def fill(temporary: Path) -> None:
            (temporary / RUN).write_text(_begun(recipe), encoding="utf-8")
            (temporary / MIX).write_text(mix, encoding="utf-8")

        write_folder(work, fill)
    elif not _is_begun(recipe, work):
        raise ConfigError(
            f"{work} was begun by another recipe or its input files have changed; "
            "give --fresh to start over, or another --output"
        )
    elif (work / MIX).read_text(encoding="utf-8") != mix:
        for folder in work.glob("write-*"):
            remove_folder(folder)
        write_whole(work / MIX, mix)


def _refuse_other(folder: Path, *names: str) -> None:
    """Raise ConfigError when a folder that would be replaced is not one of ours."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not all((folder / name).is_file() for name in names):
        raise ConfigError(f"{folder} holds something that is no curated set; name another --output")


def _holds_only_shards(work: Path) -> bool:
    """Whether a folder holds nothing but shards: without run.json nobody can go on with them."""
    return work.is_dir() and all(_SHARD.fullmatch(path.name) for path in work.iterdir())


def _finished(output: Path, recipe: CurateRecipe) -> dict[str, Any] | None:
    """The report of a set that this recipe has already made; None when there is no set yet.

    Raises ConfigError when another recipe made it, or of other inputs, TrainingError when it is
    damaged. Inputs that are gone are not missed.
    """
    path = output / RECIPE
    if not path.exists():
        return None
    if path.read_text(encoding="utf-8") != recipe_text(recipe):
        raise ConfigError(
            f"{output} was made by another recipe; give --fresh to replace it, or another --output"
        )
    if (damage := verify_folder(output)) is not None:
        raise TrainingError(f"{output}: {damage}; make it again by --fresh")
    made_of = output / INPUTS
    then = json.loads(made_of.read_text(encoding="utf-8")) if made_of.exists() else {}
    for name, now in _inputs(recipe).items():
        if now[0] and now != then.get(name, now):
            raise ConfigError(
                f"{output} is finished, and {name} has changed since; give --fresh to make it "
                "again, or another --output"
            )
    report: dict[str, Any] = json.loads((output / "report.json").read_text(encoding="utf-8"))
    return report


def run_curate(
    recipe: str | Path | CurateRecipe,
    output: str | Path,
    overrides: Sequence[str] = (),
    *,
    augment: bool = False,
    fresh: bool = False,
    report: Report = print,
    watch: Watch = silent,
    roll: Roll | None = None,
) -> dict[str, Any] | None:
    """Curate by a recipe (name, path or object) into the folder `output`; the same call resumes.

    What is under way lies in `output`.work until the set is whole. `augment` switches
    `augment.enabled` on. `roll` replaces the recipe's model. Returns the report, or None when it
    was interrupted. Raises ConfigError for a bad recipe or folder, TrainingError when too many
    records are broken, nothing is left, or the disk refuses.
    """
    overrides = [*overrides, *(["augment.enabled=true"] if augment else [])]
    if isinstance(recipe, CurateRecipe):
        resolved = recipe
    else:
        resolved = load_recipe(CurateRecipe, recipe, overrides)
    output = named(output)
    with sole_run(output, output.with_name(f".{output.name}.lock")):
        return _curate(resolved, output, fresh, report, watch, roll)


def _curate(
    resolved: CurateRecipe,
    output: Path,
    fresh: bool,
    report: Report,
    watch: Watch,
    roll: Roll | None,
) -> dict[str, Any] | None:
    work = output.with_name(output.name + ".work")
    _refuse_other(output, RECIPE, MANIFEST, "report.json")
    if not _holds_only_shards(work):
        _refuse_other(work, RUN)
    # Work of this very recipe goes on also where a set stands: it was begun by --fresh.
    goes_on = fresh or _is_begun(resolved, work)
    if not goes_on and (done := _finished(output, resolved)) is not None:
        report(f"{output} is already made by this recipe")
        if not (work / RUN).exists():
            remove_folder(work)  # what a kill left of it
        return done
    curation = Curation(resolved, work, report, roll)
    if fresh:
        remove_folder(work)
    curation.begin()
    if curation.num_shards:
        report(f"resumed after {sum(curation.counts.read.values())} records")
    with stop_on_interrupt(report) as stop:
        if not curation.read(stop, watch):
            return None
        wanted = plan(curation.available(), resolved)
        if not sum(wanted.values()):
            raise TrainingError("the mix leaves no sample; raise mix.total or weights")
        folders = curation.write(stop, wanted)
        if folders is None:
            return None
    made = curation.finish(output, folders, wanted)
    remove_folder(work)
    return made
