"""How much of a gradient is signal: whether gradients of independent batches agree.

    python benches/gradient_agreement.py --model runs/short/final --levels 3

A batch is as many groups of rollouts as a step of `reference_grpo` learns from, of prompts that
some rollouts answer and some do not. On the same groups every estimator of the policy gradient is
measured, beside the gradient of supervised training on the chains of the same prompts. The cosine
of two batches is the share of a batch's gradient (of its square) that all batches have in common;
the rest belongs to its own problems and to chance. The model is never changed.

Rows go to benches/results/gradient_agreement-DATE.json.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from falcon_h1r import reference_model_path
from falcon_h1r.errors import ConfigError
from falcon_h1r.evaluate.tables import Table, markdown, number
from falcon_h1r.train.config import load_recipe, require
from falcon_h1r.train.experiment import run_script, save_rows, settings, weighted_families
from falcon_h1r.train.grpo import GrpoRun
from falcon_h1r.train.loop import flushed_denormals
from falcon_h1r.train.recipe_mix import levels_of
from falcon_h1r.train.recipe_rl import GrpoRecipe
from falcon_h1r.train.responses import Pairs, response_hidden, token_logprobs
from falcon_h1r.train.rollouts import Group
from falcon_h1r.train.supply import Supply, collect

RESULTS = Path(__file__).parent / "results"
CHAINS = "supervised, the chains"
ESTIMATORS: dict[str, dict[str, Any]] = {
    "GRPO": {"scale_rewards": "group"},
    "GRPO, not divided by the deviation": {},
    "credit at branches": {"credit": "branch", "aggregation": "token"},
    "credit at branches, cross entropy of right ones": {
        "credit": "branch", "aggregation": "token", "positive_ce_coef": 1.0,
    },
}  # fmt: skip
"""Fields of the recipe's `loss`, beside `scale_rewards: none`."""
show = partial(print, flush=True)


class StillRun(GrpoRun):
    """A run that keeps each gradient instead of learning by it."""

    measured: Tensor

    def apply_gradients(self) -> float:
        self.measured = self.gradients.flat.clone()
        return 0.0

    def chains_gradient(self, groups: Sequence[Group]) -> Tensor:
        """Of the mean cross entropy on the chains of the groups' prompts."""
        end = self.tokenizer.eos_token_id
        assert end is not None
        pairs: Pairs = [
            (group.prompt_ids, (*self.tokenizer.encode(self.problem(group.ordinal).response), end))
            for group in groups
        ]
        count = sum(len(response) for _, response in pairs)
        self.gradients.zero()
        for _, _, packed in self.parts(pairs, range(len(pairs))):
            hidden = response_hidden(self.model, packed)
            self.backward(-token_logprobs(self.model, hidden, packed.targets, 1.0).sum() / count)
        return self.gradients.flat.clone()

    def batches(self, count: int) -> Iterator[list[Group]]:
        """Groups in which some rollouts are right and some are not; no prompt comes twice.

        Raises ConfigError where none of `rollout.max_prompts` is such a prompt.
        """
        rollout, first = self.recipe.rollout, 0
        for _ in range(count):
            supply = Supply(next_ordinal=first)
            groups, drawn = collect(
                supply,
                self.sample,
                lambda group: len({rollout.is_right for rollout in group.rollouts}) == 2,
                version=self.step,
                num_prompts=rollout.num_prompts,
                max_prompts=rollout.max_prompts,
                max_kept=0,
                max_staleness=0,
            )
            first = supply.next_ordinal
            if not groups:
                raise ConfigError(
                    f"of {len(drawn)} prompts none has right and wrong rollouts; give other "
                    "--families, --levels or --model"
                )
            yield groups


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    add = partial(parser.add_argument, metavar="N", type=int)
    add("--model", default=str(reference_model_path()), type=str, metavar="DIR", help="the model")
    add("--results", default=str(RESULTS), type=str, metavar="DIR", help="where rows are kept")
    add("--families", default="", type=str, metavar="NAMES", help="of reference_grpo, if not all")
    add("--levels", default="3", type=str, metavar="NUMBERS", help="of the prompts")
    add("--batches", default=8, help="independent ones, two at least")
    add("--set", default=[], type=str, action="append", metavar="KEY=VALUE",
        help="change a key of the recipe; may be repeated")  # fmt: skip
    return parser


def compare(args: argparse.Namespace) -> None:
    require(args.batches >= 2, "batches", args.batches, "at least 2: they are compared")
    args.families, args.levels = weighted_families(args.families), levels_of(args.levels)
    overrides = [
        f"model={args.model}", f"data.families={json.dumps(args.families)}",
        f"data.levels={args.levels}", "loss.scale_rewards=none", *args.set,
    ]  # fmt: skip
    recipe = load_recipe(GrpoRecipe, "reference_grpo", overrides)
    gradients: dict[str, list[Tensor]] = {name: [] for name in (CHAINS, *ESTIMATORS)}
    seconds = dict.fromkeys(gradients, 0.0)
    with tempfile.TemporaryDirectory() as folder, flushed_denormals():
        run = StillRun(recipe, Path(folder), show)
        began = time.process_time()
        for i, groups in enumerate(run.batches(args.batches), 1):
            sampling = time.process_time() - began
            for name in gradients:
                began = time.process_time()
                if name == CHAINS:
                    gradients[name].append(run.chains_gradient(groups))
                    seconds[name] += time.process_time() - began
                    continue
                run.recipe = replace(recipe, loss=replace(recipe.loss, **ESTIMATORS[name]))
                run.update(groups)
                gradients[name].append(run.measured)
                seconds[name] += sampling + time.process_time() - began
            show(f"{i} of {args.batches} batches")
            began = time.process_time()
        run.verdicts.close()
    rows = [row(name, gradients, seconds[name] / args.batches) for name in gradients]
    save_rows(Path(args.results), "gradient_agreement", settings(args), rows)
    show("\n" + markdown(table(rows)))


def row(name: str, gradients: dict[str, list[Tensor]], seconds: float) -> dict[str, Any]:
    """Agreement of one kind's batches, and of each with the chains of the other batches."""
    ours, chains = gradients[name], gradients[CHAINS]
    total = torch.stack(chains).sum(0)
    pairs = [cosine(a, b) for a, b in combinations(ours, 2)]
    others = [cosine(a, total - b) for a, b in zip(ours, chains, strict=True)]
    return {
        "gradient": name,
        "agreement": statistics.mean(pairs),
        "agreement_error": error(pairs),
        "with_chains": statistics.mean(others),
        "with_chains_error": error(others),
        "processor_seconds": seconds,
    }


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def error(values: Sequence[float]) -> float:
    """Standard error of their mean, as if they were independent."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def table(rows: list[dict[str, Any]]) -> Table:
    head = [
        "gradient of", "cosine of two batches", "cosine with the chains of other batches",
        "processor seconds a batch",
    ]  # fmt: skip
    return head, [
        [
            each["gradient"],
            f"{each['agreement']:+.3f} ± {each['agreement_error']:.3f}",
            f"{each['with_chains']:+.3f} ± {each['with_chains_error']:.3f}",
            number(each["processor_seconds"]),
        ]
        for each in rows
    ]


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    return run_script(lambda: compare(args), show)


if __name__ == "__main__":
    sys.exit(main())
