"""What a run begins with: refused before anything is removed, or taken over whole."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from falcon_h1r import FalconH1Config, FalconH1ForCausalLM, Tokenizer
from falcon_h1r.errors import ConfigError, FalconH1RError, TrainingError, WeightsError
from falcon_h1r.train import sft
from falcon_h1r.train.checkpoint import write_folder
from falcon_h1r.train.config import load_recipe
from falcon_h1r.train.grpo import GrpoRun, run_grpo
from falcon_h1r.train.ppo import run_ppo
from falcon_h1r.train.prompts import has_room
from falcon_h1r.train.recipe_rl import GrpoRecipe, PpoRecipe
from falcon_h1r.train.samples import Sample, write_samples
from falcon_h1r.train.sft import run_sft
from falcon_h1r.train.start import build_model
from falcon_h1r.train.vocabulary import build_vocabulary


def quiet(text: str) -> None:
    pass


def files(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def trained(tiny_recipe: Path, tmp_path: Path) -> Path:
    run_sft(tiny_recipe, tmp_path / "run", ["optimizer.steps=1"], report=quiet)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["init_from=OUT/final"], "--fresh would remove .*final, which this run begins with"),
        (["data.tokenizer=OUT/vocabulary"], "--fresh would remove"),
        (["init_from=TINY", "model.hidden_size=32"], "has hidden_size 16"),
        (["init_from=nowhere"], "nowhere holds no tokenizer.json"),
        (["data.source=TINY"], "."),
        (["init_from=TINY", "lora={adapter: nowhere}"], "nowhere holds no readable adapter"),
        (["model.mamba_n_heads=3"], "mamba"),
        (["device=cuda"], "device is 'cuda' and torch sees 0 GPUs"),
    ],
)
def test_fresh_removes_nothing_for_a_run_that_cannot_begin(
    words: list[str], message: str, trained: Path, tiny_recipe: Path, tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if "init_from=TINY" in words:
        text = tiny_recipe.read_text()
        tiny_recipe.write_text(text[: text.index("model:")] + text[text.index("data:") :])
    before = files(trained)
    given = [w.replace("OUT", str(trained)).replace("TINY", str(tiny_model)) for w in words]
    with pytest.raises(FalconH1RError, match=message) as raised:
        run_sft(tiny_recipe, trained, given, fresh=True, report=quiet)
    assert "\n" not in str(raised.value)
    assert files(trained) == before


@pytest.mark.parametrize("train", [run_grpo, run_ppo])
def test_fresh_keeps_the_model_that_the_run_begins_with(
    train: Any, rl_recipe: Path, tmp_path: Path
) -> None:
    train(rl_recipe, tmp_path / "run", ["optimizer.steps=1"], report=quiet)
    before = files(tmp_path / "run")
    for model, message in ((tmp_path / "run/final", "--fresh would remove"), (tmp_path, ".")):
        with pytest.raises(FalconH1RError, match=message):
            train(rl_recipe, tmp_path / "run", [f"model={model}"], fresh=True, report=quiet)
    assert files(tmp_path / "run") == before


def test_a_folder_of_another_method_is_refused_by_name(
    trained: Path, tiny_recipe: Path, rl_recipe: Path, tmp_path: Path
) -> None:
    before = files(trained)
    with pytest.raises(TrainingError, match="is of sft, this run of grpo; name another --output"):
        run_grpo(rl_recipe, trained, report=quiet)
    run_grpo(rl_recipe, tmp_path / "rl", ["optimizer.steps=1"], report=quiet)
    with pytest.raises(TrainingError, match="is of grpo, this run of sft"):
        run_sft(tiny_recipe, tmp_path / "rl", report=quiet)
    kept = files(trained)
    kept.pop(trained / "verdicts.jsonl", None)
    assert kept == before


def test_a_refused_resume_leaves_the_recipe_of_its_checkpoints(
    trained: Path, tiny_recipe: Path
) -> None:
    before = (trained / "recipe.yaml").read_bytes()
    with pytest.raises(TrainingError, match=r"momentum|mean"):
        run_sft(tiny_recipe, trained, ["optimizer.kind=adamw"], report=quiet)
    assert (trained / "recipe.yaml").read_bytes() == before


def test_another_alpha_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "lora.yaml"
    recipe.write_text(
        f"init_from: {tiny_model}\nlora: {{rank: 2}}\nevaluate_every: 0\n"
        "data: {rows: 2, row_length: 192, families: {sums: 1.0}}\noptimizer: {steps: 2}\n"
    )
    run_sft(recipe, tmp_path / "run", ["optimizer.steps=1"], report=quiet)
    with pytest.raises(TrainingError, match=r"lora.alpha 16.0, the recipe has 4.0"):
        run_sft(recipe, tmp_path / "run", ["lora.alpha=4"], report=quiet)
    adapter = tmp_path / "run/adapter/adapter_model.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:40])
    words = [f"lora.adapter={tmp_path / 'run/adapter'}"]
    with pytest.raises(WeightsError, match="holds no readable adapter"):
        run_sft(recipe, tmp_path / "other", words, report=quiet)


def test_masters_are_not_dropped_silently(tiny_recipe: Path, tmp_path: Path) -> None:
    run_sft(tiny_recipe, tmp_path / "run", ["optimizer.steps=1", "precision=bf16"], report=quiet)
    with pytest.raises(TrainingError, match=r"optimizer tensor .*\.master, which this recipe"):
        run_sft(tiny_recipe, tmp_path / "run", report=quiet)


def test_a_run_of_several_processes_keeps_the_model_until_there_is_another(
    trained: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(trained / "final")
    monkeypatch.setattr(sft.distributed, "launch", lambda *args: None)  # stopped before its end
    assert run_sft(tiny_recipe, trained, ["parallel.processes=2"], report=quiet) is None
    assert files(trained / "final") == before


def test_groups_of_another_size_are_left_out(rl_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    run = GrpoRun(load_recipe(GrpoRecipe, rl_recipe), tmp_path / "run", quiet)
    run.supply.kept = run.sample([0, 1])
    run.save()
    said: list[str] = []
    words = ["rollout.group_size=3", "optimizer.steps=1"]
    assert run_grpo(rl_recipe, tmp_path / "run", words, report=said.append)
    assert "2 kept groups are of another rollout.group_size and are left out" in said


def test_the_context_bounds_rollouts_and_prompts(rl_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rollout.max_tokens is 1024; .* context of 1024"):
        run_grpo(rl_recipe, tmp_path / "run", ["rollout.max_tokens=1024"], report=quiet)
    samples = [
        Sample(problem=text, thought="t", answer="7", family="f", level=0, source="s", style="t")
        for text in ("What is 7? " * 200, "What is 7?")
    ]

    def make_set(name: str, chosen: list[Sample]) -> str:
        write_folder(tmp_path / name, lambda p: write_samples(p / "samples-00000.jsonl", chosen))
        return f"data.source={tmp_path / name}"

    said: list[str] = []
    words = [make_set("both", samples), "optimizer.steps=1"]
    assert run_grpo(rl_recipe, tmp_path / "run", words, report=said.append)
    assert "1 prompts fill the context of 1024 and are left out" in said
    with pytest.raises(ConfigError, match=r"no prompt of data.source .* leaves room"):
        run_grpo(rl_recipe, tmp_path / "none", [make_set("long", samples[:1])], report=quiet)


def test_room_is_counted_in_tokens(vocabulary: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(vocabulary)
    assert has_room(tokenizer, "x", 1024)
    length = next(n for n in range(1, 4000) if not has_room(tokenizer, "7 " * n, 1024))
    assert has_room(tokenizer, "7 " * (length - 1), 1024)


def test_ppo_is_not_bound_by_the_refill_of_grpo(rl_recipe: Path) -> None:
    assert load_recipe(PpoRecipe, rl_recipe, ["rollout.num_prompts=128"]).rollout.max_prompts == 9


def test_a_fresh_model_takes_the_ids_and_the_template_of_its_tokenizer(
    tiny_recipe: Path, vocabulary: Path, tmp_path: Path
) -> None:
    """Another tokenizer ends its texts with another token, and may keep its template apart."""
    other = tmp_path / "other"
    shutil.copytree(vocabulary, other)
    config = json.loads((other / "tokenizer_config.json").read_text())
    template = config.pop("chat_template")
    config["eos_token"] = config["pad_token"]
    (other / "tokenizer_config.json").write_text(json.dumps(config))
    (other / "chat_template.jinja").write_text(template)
    words = [f"data.tokenizer={other}", "optimizer.steps=1"]
    final = run_sft(tiny_recipe, tmp_path / "run", words, report=quiet)
    assert final is not None
    assert FalconH1Config.from_pretrained(final).eos_token_id == 0
    assert (final / "chat_template.jinja").read_text() == template
    del config["eos_token"]
    (other / "tokenizer_config.json").write_text(json.dumps(config))
    recipe = load_recipe(sft.SftRecipe, tiny_recipe)
    with pytest.raises(ConfigError, match="names no eos_token"):
        build_model(recipe, Tokenizer.from_pretrained(other), torch.device("cpu"))


def test_a_broken_tokenizer_of_the_start_leaves_nothing_behind(
    tiny_recipe: Path, vocabulary: Path, tmp_path: Path
) -> None:
    """What was copied would be refused again after the source was mended."""
    other = tmp_path / "other"
    shutil.copytree(vocabulary, other)
    whole = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(whole[:100])
    words = [f"data.tokenizer={other}", "optimizer.steps=1"]
    with pytest.raises(ConfigError, match=r"broken JSON in .*tokenizer\.json"):
        run_sft(tiny_recipe, tmp_path / "run", words, report=quiet)
    (other / "tokenizer.json").write_text(whole)
    assert run_sft(tiny_recipe, tmp_path / "run", words, report=quiet) is not None


@pytest.mark.parametrize(
    ("name", "text"),
    [("tokenizer.json", "{"), ("tokenizer.json", "[]"), ("tokenizer_config.json", "{")],
)
@pytest.mark.parametrize("fresh", [False, True])
def test_a_broken_tokenizer_is_refused_before_anything_is_changed(
    name: str, text: str, fresh: bool, trained: Path, tiny_recipe: Path, vocabulary: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Its copy would be refused after it was mended, and --fresh would have removed a run."""
    other = tmp_path / "other"
    shutil.copytree(vocabulary, other)
    (other / name).write_text(text)
    output = trained if fresh else tmp_path / "new"
    before = files(output)
    with pytest.raises(ConfigError, match=f"other/{name}") as raised:
        run_sft(tiny_recipe, output, [f"data.tokenizer={other}"], fresh=fresh, report=quiet)
    assert "\n" not in str(raised.value)
    assert files(output) == before


def test_a_vocabulary_without_its_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"pip install 'falcon-h1r\[train\]'"):
        build_vocabulary(tmp_path / "v", 512)
    assert not (tmp_path / "v").exists()


def test_a_save_that_fails_in_any_way_leaves_nothing(tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "target", broken)
    assert list(tmp_path.iterdir()) == []


def test_only_a_model_that_cannot_be_written_asks_for_room(
    tiny_model: Path, tmp_path: Path
) -> None:
    model = FalconH1ForCausalLM.from_pretrained(tiny_model)

    def read(folder: Path) -> None:
        FalconH1ForCausalLM.from_pretrained(broken)

    def write(folder: Path) -> None:
        (folder / "sub").write_text("no folder")
        model.save_pretrained(folder / "sub")

    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (broken / "model.safetensors").write_bytes(b"0123456789")
    with pytest.raises(WeightsError, match="truncated or not a safetensors file"):
        write_folder(tmp_path / "target", read)
    with pytest.raises(TrainingError, match=r"cannot write the model.*make room and resume"):
        write_folder(tmp_path / "target", write)
