"""How far a model is with the generators' chains: nats a chain and whole chains, by level.

    python benches/chains.py --model runs/reference/sft/final
    python benches/chains.py --model runs/reference/sft/final --families lies --levels 3 --show 2

A chain counts as whole when every one of its tokens is the model's first choice. The losses say
more than accuracy does while little is learnt yet, and `--show` says where they sit: the chains of
some problems, token by token, each of more than 0.2 nats with its loss behind it.

Legend: T tokens of a problem with its chain.
"""

import argparse

import torch
from torch.nn import functional

from falcon_h1r import FalconH1ForCausalLM, Tokenizer, reference_model_path
from falcon_h1r.hub import model_folder
from falcon_h1r.train.chain_accuracy import measure
from falcon_h1r.train.config import load_recipe
from falcon_h1r.train.loop import flushed_denormals
from falcon_h1r.train.recipe_sft import SftRecipe
from falcon_h1r.train.stream import encode_document
from falcon_h1r.train.tasks import EVALUATED, Problem, held_out_problems


@torch.no_grad()
def show(model: FalconH1ForCausalLM, tokenizer: Tokenizer, problem: Problem) -> None:
    """Print a problem and its chain, the tokens of more than 0.2 nats as `[text|nats]`."""
    learnt = encode_document(tokenizer, problem)
    ids = torch.tensor(learnt.token_ids)  # [T]
    hidden = model.hidden_packed(ids, torch.tensor([0, len(ids)], dtype=torch.int32))
    first = learnt.prompt_length
    losses = functional.cross_entropy(
        model.logits(hidden[first - 1 : -1]), ids[first:], reduction="none"
    )
    print(f"\n{problem.problem}\n")
    for token, loss in zip(ids[first:].tolist(), losses.tolist(), strict=True):
        text = tokenizer.decode([token])
        print(f"[{text}|{loss:.1f}]" if loss > 0.2 else text, end="")
    print()


def main() -> None:
    """Print a row a family."""
    taught = load_recipe(SftRecipe, "reference_sft").data.families
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=reference_model_path(), metavar="FOLDER_OR_HUB_ID")
    parser.add_argument("--families", default=",".join(f for f in EVALUATED if f in taught))
    parser.add_argument("--levels", default="1,2,3")
    parser.add_argument("--count", type=int, default=40, help="problems of a family and level (40)")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="problems to print")
    args = parser.parse_args()
    folder = model_folder(args.model)
    tokenizer = Tokenizer.from_pretrained(folder)
    model = FalconH1ForCausalLM.from_pretrained(folder)
    levels = [int(level) for level in args.levels.split(",")]
    cells: dict[int, list[tuple[float, float]]] = {level: [] for level in levels}

    def text(level: int, family: str) -> str:
        problems = held_out_problems(family, args.count, level=level, seed=1)
        if not problems:
            return "-"
        whole, nats = measure(model, [encode_document(tokenizer, problem) for problem in problems])
        cells[level].append((nats / len(problems), whole / len(problems)))
        return "{:.2f}, {:.2f}".format(*cells[level][-1])

    print("| nats a chain, whole chains |" + "".join(f" level {level} |" for level in levels))
    print("|---|" + "---|" * len(levels))
    with flushed_denormals():
        for family in args.families.split(","):
            row = " | ".join(text(level, family) for level in levels)
            print(f"| {family} | {row} |", flush=True)
        means = [[sum(c) / len(c) for c in zip(*cells[level], strict=True)] for level in levels]
        print("| mean | " + " | ".join(f"{n:.2f}, {w:.2f}" for n, w in means) + " |")
        for level in levels if args.show else []:
            for family in args.families.split(","):
                for problem in held_out_problems(family, args.show, level=level, seed=3):
                    show(model, tokenizer, problem)


if __name__ == "__main__":
    main()
