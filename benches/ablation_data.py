"""Each filter and each augmentation of the curation is taken away alone, once.

    python benches/ablation_data.py --model runs/reference/sft/final --output runs/ablation

Problems of the generators and, beside them, one file of collected chains for each fault that a
filter is there for (`train/curation/faults.py`). Every variant curates, learns the same number of
steps from the same start, and is measured on the same held-out problems: as they stand, in other
words, and two joined to one. Changes are paired over problems, with 95 % intervals; what another
seed of training does stands beside them.

The same command goes on where it was stopped. Rows go to benches/results/ablation_data-DATE.json.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from falcon_h1r import reference_model_path
from falcon_h1r.evaluate import EvalResult, Item, statistics
from falcon_h1r.evaluate.items import numbered
from falcon_h1r.evaluate.tables import Table, markdown, percent
from falcon_h1r.train.curate import run_curate
from falcon_h1r.train.curation.augment import compose
from falcon_h1r.train.curation.drafts import Draft
from falcon_h1r.train.curation.faults import FAULTS, write_faults
from falcon_h1r.train.curation.frames import FRAMES
from falcon_h1r.train.curation.recipe import (
    BUCKETS,
    AugmentRecipe,
    CurateRecipe,
    DifficultyRecipe,
    SourceRecipe,
)
from falcon_h1r.train.curation.rollouts import Roller, Rollout
from falcon_h1r.train.experiment import (
    Board,
    held_out_items,
    measure,
    plain_sampling,
    run_script,
    save_rows,
    settings,
    train_once,
    values,
    weighted_families,
)
from falcon_h1r.train.tasks import Problem, held_out_problems

RESULTS = Path(__file__).parent / "results"
AUGMENTATIONS: dict[str, Any] = {"rephrase": 0.1, "renumber": 0.1, "compose": 0.1, "distil": 1}
LEVELS = {1: 0.2, 2: 0.5, 3: 0.3}
MAX_TOKENS, MAX_LENGTH = 512, 640
BASE, AGAIN = "all filters and augmentations", "the same, another seed"
show = partial(print, flush=True)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    add = partial(parser.add_argument, metavar="N", type=int)
    add("--model", default=str(reference_model_path()), type=str, metavar="DIR", help="the start")
    add("--output", default="runs/ablation", type=str, metavar="DIR", help="where runs are kept")
    add("--results", default=str(RESULTS), type=str, metavar="DIR", help="where rows are kept")
    add("--families", default="", type=str, metavar="NAMES", help="of reference_grpo, if not all")
    add("--samples", default=6000, help="generated problems before augmentation")
    add("--faulty", default=1500, help="records of each fault")
    add("--rollouts", default=2, help="of each generated problem, for distil")
    add("--steps", default=160, help="of supervised training of each variant")
    add("--problems", default=20, help="held-out ones a family and level")
    add("--traces", default=4, help="sampled a problem")
    add("--set", default=[], type=str, action="append", metavar="KEY=VALUE",
        help="change a key of every variant's recipe of training; may be repeated")  # fmt: skip
    return parser


def ablate(args: argparse.Namespace) -> None:
    output = Path(args.output) / "data"
    problems = [
        problem
        for family in args.families
        for level in LEVELS
        for problem in held_out_problems(family, args.problems, level=level)
    ]
    plain = held_out_items(args.families, LEVELS, args.problems)
    items = {"plain": plain, "framed": framed(plain), "joined": joined(problems)}
    keys = {kind: [item.id.key for item in each] for kind, each in items.items()}
    everything = [item for each in items.values() for item in each]
    recipe = base_recipe(args, output, problems)
    variants: dict[str, CurateRecipe] = {BASE: recipe, AGAIN: recipe}
    for name in FAULTS:
        off: dict[str, Any] = {name: False}
        filters = replace(recipe.filters, **off)
        variants[f"without {name}"] = replace(recipe, filters=filters)
    for name in AUGMENTATIONS:
        none: dict[str, Any] = {name: 0}
        variants[f"without {name}"] = replace(recipe, augment=replace(recipe.augment, **none))
    roll = KeptRollouts(replace(recipe.difficulty, model=args.model), recipe, output)
    config = plain_sampling(args.traces, MAX_TOKENS)
    board = Board(1 + len(variants), show)
    told = board.start("start")
    start = measure(Path(args.model), everything, output / "start", config, told)
    rows = [row("start", start, None, keys)]
    base: EvalResult | None = None
    let_through: dict[str, int] = {}
    for name, variant in variants.items():
        told = board.start(name)
        folder = output / name.replace(",", "").replace(" ", "-")
        curated = (output / BASE.replace(" ", "-") if name == AGAIN else folder) / "set"
        report = run_curate(variant, curated, roll=roll, report=told)
        if report is None:
            raise KeyboardInterrupt
        changes = [
            f"init_from={args.model}", f"data.source={curated}", f"data.row_length={MAX_LENGTH}",
            f"optimizer.steps={args.steps}", f"seed={2 if name == AGAIN else 1}", *args.set,
        ]  # fmt: skip
        trained = train_once("sft", "continue_sft", folder / "sft", changes, told)
        result = measure(trained.model, everything, folder / "eval", config, told)
        base = base or result
        rows.append(row(name, result, base, keys) | {"samples": report["samples"]})
        passed = {each: n["available"] for each, n in report["mix"]["source"].items()}
        let_through = let_through or passed
        fault = name.removeprefix("without ")
        if fault in FAULTS:
            rows[-1]["let_through"] = passed.get(fault, 0) - let_through.get(fault, 0)
        save_rows(Path(args.results), "ablation_data", settings(args), rows)
    show("\n" + markdown(table(rows)))


def base_recipe(args: argparse.Namespace, output: Path, problems: list[Problem]) -> CurateRecipe:
    """The curation with everything on; files of faults and of the evaluation lie in `output`."""
    output.mkdir(parents=True, exist_ok=True)
    held_out = output / "held-out.jsonl"
    held_out.write_text("".join(json.dumps({"problem": p.problem}) + "\n" for p in problems))
    mix: dict[str, Any] = {"families": args.families, "levels": LEVELS}
    clean = SourceRecipe(kind="generator", count=args.samples, **mix)
    faulty = write_faults(output / "faults", args.faulty, seed=1, held_out=problems, **mix)
    difficulty = DifficultyRecipe(
        rollouts=args.rollouts, temperature=1.0, top_p=1.0, max_tokens=MAX_TOKENS,
        weights=dict.fromkeys(BUCKETS, 1.0),
    )  # fmt: skip
    return CurateRecipe(
        sources={"generated": clean, **faulty},
        evaluation=[str(held_out)],
        difficulty=difficulty,
        augment=replace(AugmentRecipe(enabled=True), **AUGMENTATIONS),
        tokenizer=args.model,
        max_length=MAX_LENGTH,
        seed=1,
    )


class KeptRollouts:
    """Rollouts of the start; a problem is asked once over all variants, a faulty record never.

    So a fault is met by its filter alone, not by what the model thinks of its answer.
    """

    def __init__(self, difficulty: DifficultyRecipe, recipe: CurateRecipe, output: Path) -> None:
        self.difficulty, self.path = difficulty, output / "rollouts.jsonl"
        self.roller: Roller | None = None
        self.known: dict[str, list[Rollout]] = {}
        if self.path.exists():
            kept = self.path.read_bytes()
            kept = kept[: kept.rfind(b"\n") + 1]  # a kill may have torn the last line
            self.path.write_bytes(kept)
            for entry in kept.splitlines():
                problem, rollouts = json.loads(entry)
                self.known[problem] = [Rollout(**each) for each in rollouts]
        for path in (Path(source.path) for source in recipe.sources.values() if source.path):
            for line in path.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                self.known[record.get("problem") or record["question"]] = []

    def __call__(self, problems: Sequence[str]) -> list[list[Rollout]]:
        new = [problem for problem in dict.fromkeys(problems) if problem not in self.known]
        if new:
            self.roller = self.roller or Roller(self.difficulty, seed=1)
            self.known |= dict(zip(new, self.roller(new), strict=True))
            with self.path.open("a", encoding="utf-8") as file:
                for problem in new:
                    rollouts = [asdict(rollout) for rollout in self.known[problem]]
                    file.write(json.dumps([problem, rollouts]) + "\n")
        return [self.known[problem] for problem in problems]


def framed(items: list[Item]) -> list[Item]:
    """Every third item, in a frame of words."""
    rng = Random("framed")
    return numbered(
        [
            replace(item, problem=rng.choice(FRAMES).format(item.problem), task="framed")
            for item in items[::3]
        ]
    )


def joined(problems: list[Problem]) -> list[Item]:
    """Pairs of held-out problems whose answers are added or subtracted."""
    rng = Random("joined")
    drafts = [
        Draft(where="", problem=p.problem, thought=p.thought, answer=p.answer, family=p.family,
              level=p.level, source="", style="")
        for p in problems
        if p.level < 3 and p.answer.removeprefix("-").isdecimal()
    ]  # fmt: skip
    pairs = [compose(rng.choice(drafts), rng.choice(drafts), rng) for _ in drafts[::2]]
    return numbered(
        [Item(problem=d.problem, answer=d.answer, task="joined") for d in pairs if d is not None]
    )


def row(
    name: str, result: EvalResult, base: EvalResult | None, keys: dict[str, list[str]]
) -> dict[str, Any]:
    """Accuracy by kind of problem, and its change against the base."""
    made: dict[str, Any] = {"variant": name}
    for kind, names in keys.items():
        if names:
            made[kind] = statistics.mean_of_runs(values([result], names))
            if base is not None and result is not base:
                made[f"{kind}_change"] = statistics.difference_of_runs(
                    values([result], names), values([base], names)
                )
    return made


def table(rows: list[dict[str, Any]]) -> Table:
    head = [
        "variant", "samples", "faulty ones let through", "right, %", "change",
        "change, other words", "change, two joined",
    ]  # fmt: skip
    return head, [
        [
            each["variant"],
            str(each.get("samples", "-")),
            str(each.get("let_through", "-")),
            percent(each["plain"]),
            *(
                percent(each[f"{kind}_change"], sign=True) if f"{kind}_change" in each else "-"
                for kind in ("plain", "framed", "joined")
            ),
        ]
        for each in rows
    ]


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    args.families = weighted_families(args.families)
    return run_script(lambda: ablate(args), show)


if __name__ == "__main__":
    sys.exit(main())
