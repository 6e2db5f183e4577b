"""Each term of the reward is taken away alone, once; length alone and correctness alone beside it.

    python benches/ablation_rewards.py --model runs/reference/sft/final --output runs/ablation

Short GRPO runs by `reference_grpo` from the same start. The shipped reward, the same divided by
each group's standard deviation, correctness alone and length alone run with several seeds, each
removal with the first one. Accuracy and tokens are of held-out problems, depth and what was cut off
of the last fifth of the run's own steps. Changes are paired over problems and seeds, with 95 %
intervals.

The same command goes on where it was stopped. Rows go to
benches/results/ablation_rewards-DATE.json.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from falcon_h1r import reference_model_path
from falcon_h1r.evaluate import EvalResult, statistics
from falcon_h1r.evaluate.tables import Table, markdown, number, percent
from falcon_h1r.train.experiment import (
    Board,
    Trained,
    held_out_items,
    mean_tokens,
    measure,
    plain_sampling,
    run_script,
    save_rows,
    settings,
    train_once,
    values,
    weighted_families,
)
from falcon_h1r.train.recipe_mix import levels_of

RESULTS = Path(__file__).parent / "results"
TERMS = ("correctness", "format", "depth", "brevity")
MAX_TOKENS = 512
SHIPPED = "the shipped reward"
CONTRASTS: dict[str, list[str]] = {
    SHIPPED: [],
    "divided by the deviation": ["loss.scale_rewards=group"],
    "correctness alone": ["reward.format=0", "reward.depth=0", "reward.brevity=0"],
    "length alone": [*(f"reward.{term}=0" for term in TERMS), "reward.length=1"],
}
"""What runs with every seed."""
show = partial(print, flush=True)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    add = partial(parser.add_argument, metavar="N", type=int)
    add("--model", default=str(reference_model_path()), type=str, metavar="DIR", help="the start")
    add("--output", default="runs/ablation", type=str, metavar="DIR", help="where runs are kept")
    add("--results", default=str(RESULTS), type=str, metavar="DIR", help="where rows are kept")
    add("--families", default="", type=str, metavar="NAMES", help="of reference_grpo, if not all")
    add("--levels", default="2,3", type=str, metavar="NUMBERS", help="trained and measured")
    add("--steps", default=40, help="of each run")
    add("--seeds", default=3, help="of what runs with several")
    add("--problems", default=20, help="held-out ones a family and level")
    add("--traces", default=4, help="sampled a problem")
    add("--set", default=[], type=str, action="append", metavar="KEY=VALUE",
        help="change a key of every run's recipe; may be repeated")  # fmt: skip
    return parser


def ablate(args: argparse.Namespace) -> None:
    args.families, args.levels = weighted_families(args.families), levels_of(args.levels)
    output = Path(args.output) / "rewards"
    items = held_out_items(args.families, args.levels, args.problems)
    keys = [item.id.key for item in items]
    runs = {name: (changes, range(1, args.seeds + 1)) for name, changes in CONTRASTS.items()}
    runs |= {f"without {term}": ([f"reward.{term}=0"], range(1, 2)) for term in TERMS}
    config = plain_sampling(args.traces, MAX_TOKENS)
    board = Board(1 + sum(len(seeds) for _, seeds in runs.values()), show)
    told = board.start("start")
    start = measure(Path(args.model), items, output / "start", config, told)
    rows = [row("start", [start], keys)]
    shipped: list[EvalResult] = []
    for name, (changes, seeds) in runs.items():
        trained: list[Trained] = []
        results: list[EvalResult] = []
        for seed in seeds:
            told = board.start(f"{name}, seed {seed}")
            folder = output / f"{name.replace(' ', '-')}-{seed}"
            overrides = [
                f"model={args.model}", f"seed={seed}", f"data.levels={args.levels}",
                f"data.families={json.dumps(args.families)}",
                "evaluate_every=0", f"optimizer.steps={args.steps}", *args.set,
                "loss.scale_rewards=none", *changes,
            ]  # fmt: skip
            trained.append(train_once("grpo", "reference_grpo", folder / "grpo", overrides, told))
            results.append(measure(trained[-1].model, items, folder / "eval", config, told))
        shipped = shipped or results
        rows.append(
            row(name, results, keys) | changed(results, start, shipped, keys) | late(trained)
        )
        save_rows(Path(args.results), "ablation_rewards", settings(args), rows)
    show("\n" + markdown(table(rows)))


def row(name: str, results: list[EvalResult], keys: list[str]) -> dict[str, Any]:
    """Accuracy and mean length on the held-out problems."""
    return {
        "reward": name,
        "seeds": len(results),
        "right": statistics.mean_of_runs(values(results, keys)),
        "tokens": sum(mean_tokens(results, keys)) / len(keys),
    }


def changed(
    results: list[EvalResult], start: EvalResult, shipped: list[EvalResult], keys: list[str]
) -> dict[str, Any]:
    """The change of accuracy from the start, and against the shipped reward with the same seeds."""
    ours = values(results, keys)
    made = {"against_start": statistics.difference_of_runs(ours, values([start], keys))}
    if results is not shipped:
        theirs = values(shipped[: len(results)], keys)
        made["against_shipped"] = statistics.difference_of_runs(ours, theirs)
    return made


def late(trained: list[Trained]) -> dict[str, float]:
    """Depth and what was cut off over the last fifth of the runs' own steps."""

    def mean(name: str) -> float:
        return sum(run.late(name) for run in trained) / len(trained)

    depth = mean("rewards/depth/mean")
    return {
        "depth": depth,
        "depth_per_100_tokens": 100 * depth / mean("completions/mean_length"),
        "cut_off": mean("completions/clipped_ratio"),
    }


def table(rows: list[dict[str, Any]]) -> Table:
    head = [
        "reward", "seeds", "right, %", "against the start", "against the shipped", "tokens",
        "depth", "depth per 100 tokens", "cut off, %",
    ]  # fmt: skip
    return head, [
        [
            each["reward"],
            str(each["seeds"]),
            percent(each["right"]),
            *(
                percent(each[name], sign=True) if name in each else "-"
                for name in ("against_start", "against_shipped")
            ),
            number(each["tokens"]),
            *(
                number(each[name]) if name in each else "-"
                for name in ("depth", "depth_per_100_tokens")
            ),
            number(100 * each["cut_off"]) if "cut_off" in each else "-",
        ]
        for each in rows
    ]


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    return run_script(lambda: ablate(args), show)


if __name__ == "__main__":
    sys.exit(main())
