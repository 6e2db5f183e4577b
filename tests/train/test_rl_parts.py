"""The parts of the loops of GRPO and PPO by themselves: prompts, supply, gradients, log, export."""

import json
import math
import shutil
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from falcon_h1r import FalconH1ForCausalLM, Tokenizer
from falcon_h1r.errors import TrainingError
from falcon_h1r.thinking.prompts import encode_prompt
from falcon_h1r.train.config import load_recipe
from falcon_h1r.train.grpo import GrpoRun
from falcon_h1r.train.prompts import draw_problem
from falcon_h1r.train.recipe_rl import GrpoRecipe
from falcon_h1r.train.rewards import Verdicts
from falcon_h1r.train.rl import BAD_SAMPLE
from falcon_h1r.train.rl_log import Tally
from falcon_h1r.train.rollouts import Group, judge
from falcon_h1r.train.supply import Supply, collect


def make_run(recipe: Path, output: Path, *overrides: str) -> GrpoRun:
    output.mkdir()
    return GrpoRun(load_recipe(GrpoRecipe, recipe, overrides), output, lambda text: None)


def test_a_held_out_problem_is_replaced_by_one_of_its_family() -> None:
    families, levels = {"booleans": 1.0, "sums": 1.0}, {1: 1.0}
    for ordinal in range(300):
        first = Random(f"rollout 5 {ordinal}").choices(list(families), [1.0, 1.0])[0]
        assert draw_problem(ordinal, 5, families, levels).family == first


@pytest.mark.parametrize(("max_staleness", "kept"), [(1, [3, 4]), (0, [])])
def test_groups_left_over_wait_until_they_are_too_old(max_staleness: int, kept: list[int]) -> None:
    supply = Supply(next_ordinal=5, kept=[Group(i, 6, (), ()) for i in range(5)])

    def sample(ordinals: Any) -> list[Group]:
        return [Group(i, 7, (), ()) for i in ordinals]

    chosen, drawn = collect(
        supply, sample, lambda group: True, version=7, num_prompts=3, max_prompts=3, max_kept=4,
        max_staleness=max_staleness,
    )  # fmt: skip
    assert [group.ordinal for group in chosen] == ([0, 1, 2] if kept else [5, 6, 7])
    assert len(drawn) == (0 if kept else 3)
    assert [group.ordinal for group in supply.kept] == kept


def test_every_line_says_how_far_engine_and_trainer_are_apart(
    rl_recipe: Path, tmp_path: Path
) -> None:
    """Or that it was not measured: groups of other weights, or none, have nothing to measure."""
    run = make_run(rl_recipe, tmp_path / "run")
    groups = run.sample(range(2))
    fresh = run.update(groups)
    run.step = 1
    mixed = run.update([groups[0], Group(9, 1, groups[1].prompt_ids, groups[1].rollouts)])
    left_over, nothing = run.update(groups), run.nothing_learnt()
    names = {name for name in fresh if "mismatch" in name or "sampling" in name}
    assert len(names) == 6
    assert all(math.isfinite(line[name]) for line in (fresh, mixed) for name in names)
    assert all(math.isnan(line[name]) for line in (left_over, nothing) for name in names)


def test_sums_are_means_over_the_minibatches_begun() -> None:
    tally = Tally()
    for part in (1.0, 3.0):
        tally.num_minibatches += 1
        tally.add_sum("loss", part)
    tally.norms.append(1.0)  # the second was given up before its update
    assert tally.means() == {"loss": 2.0}


def test_gradients_of_half_precision_are_summed_in_float32(rl_recipe: Path, tmp_path: Path) -> None:
    run = make_run(rl_recipe, tmp_path / "run", "dtype=bfloat16", "micro_batch_tokens=1")
    names = [name for name, _ in run.learnt.named_parameters()]
    parts: list[tuple[Tensor, ...]] = []

    def backward(loss: Tensor) -> None:
        parts.append(torch.autograd.grad(loss, list(run.learnt.parameters()), retain_graph=True))
        loss.backward()  # type: ignore[no-untyped-call]

    run.backward = backward  # type: ignore[method-assign]
    run.apply_gradients = lambda: 1.0  # type: ignore[method-assign]
    run.update(run.sample(range(3)))
    assert len(parts) == 12
    rounded = 0
    for name, *each in zip(names, *parts, strict=True):
        total = torch.zeros_like(each[0], dtype=torch.float32)
        for part in each:
            total += part
        assert torch.equal(run.gradients.by_name[name], total), name
        rounded += not torch.equal(total, sum(each[1:], each[0]).float())
    assert rounded > len(names) / 2


def test_held_out_problems_are_counted_as_they_are(
    rl_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One level is a drill without any, another has fewer than were asked for."""
    found = {"products": [], "sums": [object()] * 2}
    monkeypatch.setattr(
        "falcon_h1r.train.rl.held_out_problems", lambda family, count, **ways: found[family]
    )
    families = "data.families={products: 1, sums: 1, lies: 0}"
    run = make_run(rl_recipe, tmp_path / "run", families, "evaluate_count=4")
    right = SimpleNamespace(rollouts=[SimpleNamespace(is_right=True)])
    monkeypatch.setattr(run, "_sample", lambda problems, **ways: [right for _ in problems])
    assert run.evaluate() == {"sums/1": 1.0, "mean": 1.0}


def test_a_bad_sample_that_cannot_be_kept_does_not_hide_the_error(
    rl_recipe: Path, tmp_path: Path
) -> None:
    run = make_run(rl_recipe, tmp_path / "run")
    (run.output / BAD_SAMPLE).mkdir()  # no file can take its place
    with torch.no_grad():
        run.model.model.final_layernorm.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="NaN"):
        run.sample(range(1))


def test_export_of_a_start_in_shards(rl_recipe: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Its index and what was chosen for its weights stay behind, its chat template does not."""
    start = tmp_path / "start"
    shutil.copytree(tiny_model, start)
    shard = (start / "model.safetensors").rename(start / "model-00001-of-00001.safetensors")
    with safe_open(shard, framework="pt") as tensors:
        index = {"weight_map": dict.fromkeys(tensors.keys(), shard.name)}
    (start / "model.safetensors.index.json").write_text(json.dumps(index))
    (start / "chat_template.jinja").write_text("{{ messages[0]['content'] }}!")
    (start / "calibration.json").write_text("{}")
    run = make_run(rl_recipe, tmp_path / "run", f"model={start}")
    run.export(tmp_path / "final")
    model = FalconH1ForCausalLM.from_pretrained(tmp_path / "final")
    assert all(map(torch.equal, model.parameters(), run.model.parameters()))
    messages = [{"role": "user", "content": "hi"}]
    assert Tokenizer.from_pretrained(tmp_path / "final").apply_chat_template(messages) == "hi!"
    assert not (tmp_path / "final" / "calibration.json").exists()


def test_a_thought_that_control_tokens_close_is_right_too(vocabulary: Path, tmp_path: Path) -> None:
    """A tokenizer may mark <think> and </think> as special: decoding then leaves them out."""
    raw = json.loads((vocabulary / "tokenizer.json").read_text())
    for token in raw["added_tokens"]:
        token["special"] |= token["content"] in ("<think>", "</think>")
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    shutil.copy(vocabulary / "tokenizer_config.json", tmp_path)
    problem = draw_problem(0, 5, {"sums": 1.0}, {1: 1.0})
    verdicts, weights = Verdicts(tmp_path / "verdicts.jsonl"), GrpoRecipe().reward
    judged = []
    for folder in (vocabulary, tmp_path):
        tokenizer = Tokenizer.from_pretrained(folder)
        ids = [*tokenizer.encode(problem.response), tokenizer.token_to_id("<|im_end|>") or 0]
        [rollout] = judge(
            problem, tokenizer, [(tuple(ids), (0.0,) * len(ids), 0.0, True)], verdicts, weights, 99
        )
        judged.append((rollout.text, rollout.terms))
    assert "</think>" not in tokenizer.decode(ids)
    assert judged[0] == judged[1]
    assert (judged[1][1].correctness, judged[1][1].format) == (1.0, 1.0)


def test_rollouts_are_asked_with_the_models_own_system_prompt(
    rl_recipe: Path, tiny_model: Path, tmp_path: Path
) -> None:
    start = tmp_path / "start"
    shutil.copytree(tiny_model, start)
    (start / "thinking.json").write_text('{"system_prompt": "Think."}')
    run = make_run(rl_recipe, tmp_path / "run", f"model={start}")
    [group] = run.sample(range(1))
    prompt = encode_prompt(run.tokenizer, run.problem(0).problem, "Think.")
    assert list(group.prompt_ids) == prompt
    assert "Think." in run.tokenizer.decode(prompt)
