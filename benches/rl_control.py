"""Reinforcement learning beside supervised training of the same processor time, from one start.

    python benches/rl_control.py --model runs/reference/sft/final --output runs/rl-control

GRPO (`reference_grpo`) runs first; then supervised training goes on from the same start on the same
families and levels (`continue_sft`), for as many steps as take the same processor time: a step is
timed by two short runs, and five in a hundred are added, so that an error favours the control. With
several `--rates` the control's learning rate is chosen first, on held-out problems of another seed.
That control learns from chains of thought of the hard level, which a generator can write and a
collected set seldom has. `--taught 1,2` adds a control that learns from these levels instead: what
supervised training does where hard problems have answers but no chains, as GRPO sees them.

All are measured on the same held-out problems, pass@1 at temperature 1. Then DeepConf stands beside
the majority of the same budget, with the measure and window that `calibrate` chose before on
problems of another seed.

The same command goes on where it was stopped. Rows go to benches/results/rl_control-DATE.json.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from falcon_h1r import DeepConf, reference_model_path
from falcon_h1r.evaluate import EvalConfig, EvalResult, Item, statistics
from falcon_h1r.evaluate.tables import Table, markdown, number, percent
from falcon_h1r.train.calibrate import calibrate
from falcon_h1r.train.config import load_recipe
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
from falcon_h1r.train.loop import Report
from falcon_h1r.train.recipe_mix import levels_of
from falcon_h1r.train.recipe_sft import SftRecipe

RESULTS = Path(__file__).parent / "results"
MAX_TOKENS = 512
CHOICE_SEED = 4
"""Of the held-out problems the control's rate is chosen on; the measurement (0), calibration (2)
and training's own (1, 3) use others."""
MARGIN = 1.05
show = partial(print, flush=True)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    add = partial(parser.add_argument, metavar="N", type=int)
    add("--model", default=str(reference_model_path()), type=str, metavar="DIR", help="the start")
    add("--output", default="runs/rl-control", type=str, metavar="DIR", help="where runs are kept")
    add("--results", default=str(RESULTS), type=str, metavar="DIR", help="where rows are kept")
    add("--families", default="", type=str, metavar="NAMES", help="of reference_grpo, if not all")
    add("--levels", default="3", type=str, metavar="NUMBERS", help="trained and measured")
    add("--taught", default="", type=str, metavar="NUMBERS",
        help="levels of a second control, without chains of --levels (default: none)")  # fmt: skip
    add("--steps", default=80, help="of GRPO")
    add("--seeds", default=3, help="of both")
    add("--rates", default="0.5,1,2", type=str, metavar="NUMBERS", help="times the recipe's rates")
    add(
        "--timed-steps",
        default=20,
        help="by which the two runs differ that time the control's step",
    )
    add("--problems", default=60, help="held-out ones a family and level")
    add("--budget", default=32, help="traces of the vote")
    add("--voted", default=15, help="problems a family and level that are voted on")
    add("--set-rl", default=[], type=str, action="append", metavar="KEY=VALUE",
        help="change a key of GRPO's recipe; may be repeated")  # fmt: skip
    add("--set-sft", default=[], type=str, action="append", metavar="KEY=VALUE",
        help="change a key of the control's recipe; may be repeated")  # fmt: skip
    return parser


class Control:
    """Supervised runs from the chains of some levels: how they are told of data, time and rate."""

    def __init__(
        self, name: str, levels: Mapping[int, float], args: argparse.Namespace, output: Path
    ) -> None:
        self.name, self.levels, self.args, self.output = name, levels, args, output
        self.rates = load_recipe(SftRecipe, "continue_sft", args.set_sft).optimizer

    def run(self, seed: int, steps: int, rate: float, told: Report) -> Trained:
        folder = self.output / f"{seed}-{steps}-steps-rate-{rate:g}"
        changes = [
            f"init_from={self.args.model}", f"seed={seed}", f"optimizer.steps={steps}",
            f"data.families={json.dumps(self.args.families)}", f"data.levels={dict(self.levels)}",
            *self.args.set_sft,
            f"optimizer.muon_lr={rate * self.rates.muon_lr}",
            f"optimizer.adam_lr={rate * self.rates.adam_lr}",
        ]  # fmt: skip
        return train_once("sft", "continue_sft", folder, changes, told)

    def seconds_a_step(self, told: Report) -> float:
        """By two runs that differ in their steps alone: what starting costs falls out."""
        one, more = (self.run(1, steps, 1.0, told) for steps in (1, 1 + self.args.timed_steps))
        return (more.processor_seconds - one.processor_seconds) / (len(more.metrics) - 1)

    def best_rate(self, steps: int, items: Sequence[Item], board: Board) -> float:
        """The rate whose run with the first seed is best on problems of another seed."""
        rates = [float(rate) for rate in self.args.rates.split(",")]
        if len(rates) == 1:
            return rates[0]
        keys = [item.id.key for item in items]
        right: dict[float, float] = {}
        for rate in rates:
            told = board.start(f"{self.name} at {rate:g} times the rate")
            trained = self.run(1, steps, rate, told)
            folder = self.output / f"rate-{rate:g}-eval"
            result = measure(trained.model, items, folder, plain_sampling(1, MAX_TOKENS), told)
            right[rate] = statistics.mean(values([result], keys)[0]).value
            told(f"{100 * right[rate]:.1f} % right on the problems it is chosen on")
        return max(right, key=lambda rate: right[rate])

    def runs(
        self, steps: Sequence[int], rate: float, items: Sequence[Item], board: Board
    ) -> tuple[list[Trained], list[EvalResult]]:
        """A run a seed, each for its own number of steps, and what each has learnt."""
        trained, results = [], []
        for seed, num_steps in enumerate(steps, 1):
            told = board.start(f"{self.name}, seed {seed}")
            trained.append(self.run(seed, num_steps, rate, told))
            folder = self.output / f"{seed}-eval"
            config = plain_sampling(1, MAX_TOKENS)
            results.append(measure(trained[-1].model, items, folder, config, told))
        return trained, results


def compare(args: argparse.Namespace) -> None:
    args.families, args.levels = weighted_families(args.families), levels_of(args.levels)
    output, start = Path(args.output), Path(args.model)
    items = held_out_items(args.families, args.levels, args.problems)
    measured = {item.problem for item in items}
    others = held_out_items(args.families, args.levels, args.problems // 3 or 1, CHOICE_SEED)
    others = [item for item in others if item.problem not in measured]
    keys = [item.id.key for item in items]
    seeds = range(1, args.seeds + 1)
    controls = [Control("control", args.levels, args, output / "control")]
    if args.taught:
        name = f"control, levels {args.taught}"
        controls.append(Control(name, levels_of(args.taught), args, output / "taught"))
    num_rates = len(args.rates.split(","))
    runs_a_control = args.seeds + 1 + (num_rates if num_rates > 1 else 0)
    board = Board(3 + args.seeds + runs_a_control * len(controls), show)
    config = plain_sampling(1, MAX_TOKENS)
    before = measure(start, items, output / "start-eval", config, board.start("start"))
    grpo: list[Trained] = []
    learnt: list[EvalResult] = []
    for seed in seeds:
        told = board.start(f"GRPO, seed {seed}")
        changes = [
            f"model={args.model}", f"seed={seed}", f"optimizer.steps={args.steps}",
            f"data.families={json.dumps(args.families)}", f"data.levels={args.levels}",
            "evaluate_every=0", *args.set_rl,
        ]  # fmt: skip
        grpo.append(train_once("grpo", "reference_grpo", output / f"grpo-{seed}", changes, told))
        folder = output / f"grpo-{seed}-eval"
        learnt.append(measure(grpo[-1].model, items, folder, config, told))
    rows = [learnt_row("start", [before], before, keys)]
    rows.append(learnt_row("GRPO", learnt, before, keys) | spent(grpo))
    chosen: dict[str, Any] = {}
    for control in controls:
        told = board.start(f"time of a step of the {control.name}")
        step = control.seconds_a_step(told)
        steps = [round(MARGIN * run.processor_seconds / step) for run in grpo]
        told(f"{step:.2f} s; as long as GRPO are {', '.join(map(str, steps))} steps")
        rate = control.best_rate(steps[0], others, board)
        supervised, results = control.runs(steps, rate, items, board)
        rows.append(learnt_row(control.name, results, before, keys) | spent(supervised))
        rows.append(between(control.name, learnt, results, keys))
        chosen[control.name] = {"rate": rate, "steps": steps}
    kept = settings(args) | {"controls": chosen}
    save_rows(Path(args.results), "rl_control", kept, rows)
    votes = [
        voted(name, model, args, output, board.start(f"votes of {name}"))
        for name, model in (("start", start), ("GRPO, seed 1", grpo[0].model))
    ]
    save_rows(Path(args.results), "rl_control", kept, [*rows, *votes])
    rates = ", ".join(f"{one['rate']:g} ({name})" for name, one in chosen.items())
    show(f"\nrates, times the recipe's: {rates}\n\n{markdown(table(rows))}\n")
    show(markdown(vote_table(votes, args.budget)))


def learnt_row(
    name: str, results: list[EvalResult], before: EvalResult, keys: list[str]
) -> dict[str, Any]:
    """Accuracy, its change from the start, and mean length."""
    ours = values(results, keys)
    row = {
        "model": name,
        "seeds": len(results),
        "problems": len(keys),
        "right": statistics.mean_of_runs(ours),
        "tokens": sum(mean_tokens(results, keys)) / len(keys),
    }
    if results != [before]:
        row["against_start"] = statistics.difference_of_runs(ours, values([before], keys))
    return row


def spent(runs: list[Trained]) -> dict[str, Any]:
    """The processor time of each."""
    return {"seconds": [run.processor_seconds for run in runs]}


def between(
    control: str, ours: list[EvalResult], theirs: list[EvalResult], keys: list[str]
) -> dict[str, Any]:
    """GRPO against a control, seed by seed; lengths over what both answer right."""
    pairs = [
        (mine.records[key, "full"].num_tokens, other.records[key, "full"].num_tokens)
        for mine, other in zip(ours, theirs, strict=True)
        for key in keys
        if mine.records[key, "full"].is_right and other.records[key, "full"].is_right
    ]
    shorter = statistics.share_saved([a for a, _ in pairs], [b for _, b in pairs])
    return {
        "model": f"GRPO - {control}",
        "seeds": len(ours),
        "problems": len(keys),
        "difference": statistics.difference_of_runs(values(ours, keys), values(theirs, keys)),
        "both_right": len(pairs),
        "shorter_where_both_are_right": shorter,
    }


def voted(
    name: str, model: Path, args: argparse.Namespace, output: Path, told: Report
) -> dict[str, Any]:
    """Majority and DeepConf of the same budget; measure and window are chosen on other problems."""
    folder = output / name.replace(", ", "-").replace(" ", "-")
    calibrated = folder.with_name(f"{folder.name}-calibrated")
    if not calibrated.exists():
        told("choosing measure and window")
        calibrate(model, calibrated, families=list(args.families), levels=list(args.levels))
    items = held_out_items(args.families, args.levels, args.voted)
    config = EvalConfig(
        modes=("pass@1", "majority", "deepconf"),
        deepconf=DeepConf(budget=args.budget),
        max_tokens=MAX_TOKENS,
    )
    total = measure(
        calibrated, items, folder.with_name(f"{folder.name}-votes"), config, told
    ).total()
    assert total.difference is not None
    assert total.saved is not None
    return {
        "model": name,
        "problems": total.num_problems,
        "budget": args.budget,
        "thinking": json.loads((calibrated / "thinking.json").read_text()),
        **{mode: total.accuracy[mode] for mode in config.modes},
        "deepconf_minus_majority": total.difference,
        "tokens_saved": total.saved,
    }


def table(rows: list[dict[str, Any]]) -> Table:
    head = [
        "model", "seeds", "problems", "right, %", "against the start",
        "tokens", "processor seconds a run",
    ]  # fmt: skip
    return head, [between_line(row) if "difference" in row else model_line(row) for row in rows]


def model_line(row: dict[str, Any]) -> list[str]:
    """A row of `learnt_row` as the table shows it."""
    return [
        row["model"],
        str(row["seeds"]),
        str(row["problems"]),
        percent(row["right"]),
        percent(row["against_start"], sign=True) if "against_start" in row else "-",
        number(row["tokens"]),
        number(sum(row["seconds"]) / len(row["seconds"])) if "seconds" in row else "-",
    ]


def between_line(row: dict[str, Any]) -> list[str]:
    """A row of `between` as the table shows it."""
    shorter = percent(row["shorter_where_both_are_right"])
    return [
        row["model"],
        str(row["seeds"]),
        str(row["problems"]),
        percent(row["difference"], sign=True),
        "-",
        f"{shorter} % shorter where both are right ({row['both_right']})",
        "-",
    ]


def vote_table(rows: list[dict[str, Any]], budget: int) -> Table:
    head = [
        "model", "problems", "pass@1", f"majority of {budget}", f"DeepConf, budget {budget}",
        "DeepConf - majority", "tokens saved, %",
    ]  # fmt: skip
    return head, [
        [
            row["model"],
            str(row["problems"]),
            *(percent(row[mode]) for mode in ("pass@1", "majority", "deepconf")),
            percent(row["deepconf_minus_majority"], sign=True),
            percent(row["tokens_saved"]),
        ]
        for row in rows
    ]


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    return run_script(lambda: compare(args), show)


if __name__ == "__main__":
    sys.exit(main())
