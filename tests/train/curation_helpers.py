"""What the tests of curation share: records of our own, and a recipe over them."""

import json
from pathlib import Path
from random import Random
from typing import Any

RECIPE = """
seed: 5
sources:
  ours: {kind: generator, families: {sums: 1.0, booleans: 1.0}, count: 60}
  chains: {kind: jsonl, path: CHAINS}
  school: {kind: gsm8k, path: SCHOOL}
evaluation: [EVALUATION]
augment: {enabled: true, rephrase: 0.2, renumber: 0.3, compose: 0.2}
mix: {total: 100, caps: {style: 0.6}}
max_length: 700
shard_size: 25
"""
WORDS = ("red", "blue", "tall", "small", "round", "flat", "warm", "cold")
SILENT: dict[str, Any] = {"report": lambda line: None}


def school(i: int) -> dict[str, str]:
    """A word problem of our own in GSM8K's format."""
    boxes, pens, lost = 3 + i, 31 + 2 * i, 90 + i
    total = boxes * pens
    things = ("pens", "nails", "beans", "cards", "shells")[i % 5]
    return {
        "question": f"A shop has {boxes} boxes with {pens} {things} each. A clerk drops {lost} "
        f"{things} on the floor and throws them away. How many {things} can the shop sell?",
        "answer": f"The boxes hold {boxes}*{pens}=<<{boxes}*{pens}={total}>>{total} {things}.\n"
        f"Without the lost ones that is {total}-{lost}=<<{total}-{lost}={total - lost}>>"
        f"{total - lost} {things}.\n#### {total - lost}",
    }


def chain(i: int) -> dict[str, Any]:
    rng = Random(i)
    words = " ".join(rng.choice(WORDS) for _ in "12345")
    return {
        "problem": f"Number {i}: which comes last of {words}?",
        "thought": f"I read them one by one: {words}. {' '.join(words.split()[::-1])} backwards.",
        "answer": words.split()[-1],
    }


def write_lines(path: Path, rows: list[Any]) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(line + "\n" for line in lines))
    return path


def make_recipe(tmp_path: Path) -> Path:
    """A recipe of three sources, with an evaluation set and augmentation."""
    chains = write_lines(tmp_path / "chains.jsonl", [chain(i) for i in range(40)] + [chain(3)])
    lines = write_lines(tmp_path / "school.jsonl", [school(i) for i in range(30)])
    seen = write_lines(tmp_path / "evaluation.jsonl", [{"question": school(7)["question"]}])
    text = RECIPE.replace("CHAINS", str(chains)).replace("SCHOOL", str(lines))
    path = tmp_path / "recipe.yaml"
    path.write_text(text.replace("EVALUATION", str(seen)))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def only_chains(tmp_path: Path, rows: list[Any]) -> list[str]:
    path = write_lines(tmp_path / "rows.jsonl", rows)
    return [
        "evaluation=[]",
        "mix={}",
        "augment={}",
        f"sources={{c: {{kind: jsonl, path: {path}}}}}",
    ]
