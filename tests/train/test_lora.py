"""Adapters: without effect at first, merged exactly, in files that peft reads as we do."""

import json
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from falcon_h1r import FalconH1ForCausalLM
from falcon_h1r.errors import ConfigError, WeightsError
from falcon_h1r.model.config import FalconH1Config
from falcon_h1r.train.config import load_recipe
from falcon_h1r.train.lora import LoraRecipe, add_adapters, merge, save_adapter
from falcon_h1r.train.recipe_sft import SftRecipe

IDS = torch.tensor([[3, 5, 7, 11, 13, 2, 4, 6]])


def tiny(seed: int = 1) -> FalconH1ForCausalLM:
    config = FalconH1Config(
        vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=4, mamba_d_ssm=16, mamba_n_heads=4,
        mamba_n_groups=2, mamba_d_state=4, tie_word_embeddings=True, key_multiplier=0.5,
        ssm_multipliers=(0.7, 0.5, 0.9, 1.1, 0.3), mlp_multipliers=(0.8, 0.6),
        attention_in_multiplier=0.9, attention_out_multiplier=0.7, ssm_in_multiplier=1.2,
        ssm_out_multiplier=0.4, initializer_range=0.3,
    )  # fmt: skip
    model = FalconH1ForCausalLM(config)
    model.reset_parameters(seed)
    return model


def adapted(model: FalconH1ForCausalLM, recipe: LoraRecipe) -> FalconH1ForCausalLM:
    """The model with adapters that do something."""
    add_adapters(model, recipe, seed=2)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0.0, 0.2, generator=generator)
    return model


def test_adapters_start_without_effect_and_are_all_that_learns() -> None:
    model, plain = tiny(), tiny()
    add_adapters(model, LoraRecipe(rank=3), seed=2)
    torch.testing.assert_close(model(IDS), plain(IDS), rtol=1e-5, atol=1e-5)
    learning = [n for n, p in model.named_parameters() if p.requires_grad]
    assert len(learning) == 2 * 2 * 8
    assert all("lora_" in name for name in learning)
    model(IDS).square().sum().backward()
    moved = [n for n, p in model.named_parameters() if p.grad is not None]
    assert sorted(moved) == sorted(learning)


def test_merging_is_exact_and_leaves_the_adapted_model_alone(tmp_path: Path) -> None:
    targets = ("in_proj", "out_proj", "k_proj", "down_proj")
    recipe = LoraRecipe(rank=3, alpha=5.0, allow_out_proj=True, targets=targets)
    model = adapted(tiny(), recipe)
    before = model(IDS)
    plain = merge(model)
    assert not torch.allclose(before, tiny()(IDS), atol=1e-2)
    torch.testing.assert_close(plain(IDS), before, rtol=1e-4, atol=1e-4)
    assert torch.equal(model(IDS), before)
    plain.save_pretrained(tmp_path)
    assert torch.equal(FalconH1ForCausalLM.from_pretrained(tmp_path)(IDS), plain(IDS))


def test_an_adapter_comes_back_from_its_files(tmp_path: Path) -> None:
    model = adapted(tiny(), LoraRecipe(rank=3))
    save_adapter(model, LoraRecipe(rank=3), tmp_path)
    again = tiny()
    add_adapters(again, LoraRecipe(rank=3, adapter=str(tmp_path)), seed=9)
    assert torch.equal(again(IDS), model(IDS))
    names = load_file(tmp_path / "adapter_model.safetensors")
    assert "base_model.model.model.layers.0.mamba.in_proj.lora_A.weight" in names
    for recipe, message in (
        (LoraRecipe(rank=4, adapter=str(tmp_path)), "has r 3; the recipe's lora has 4"),
        (LoraRecipe(rank=3, adapter=str(tmp_path), targets=("q_proj",)), "lora.targets differ"),
        (LoraRecipe(rank=3, adapter=str(tmp_path / "no")), "holds no readable adapter"),
    ):
        with pytest.raises(WeightsError, match=message):
            add_adapters(tiny(), recipe, seed=1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_rslora", True),
        ("use_dora", True),
        ("alpha_pattern", {"q_proj": 4}),
        ("rank_pattern", {"q_proj": 4}),
        ("fan_in_fan_out", True),
        ("bias", "lora_only"),
    ],
)
def test_an_adapter_of_another_scale_is_refused(tmp_path: Path, key: str, value: object) -> None:
    recipe = LoraRecipe(rank=3)
    save_adapter(adapted(tiny(), recipe), recipe, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(WeightsError, match=f"has {key} .* known here; make"):
        add_adapters(tiny(), LoraRecipe(rank=3, adapter=str(tmp_path)), seed=1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lora.targets=[q_proj, conv1d]", "silently dead elsewhere"),
        ("lora.targets=[out_proj]", "set lora.allow_out_proj"),
        ("lora.targets=[q_prj]", "did you mean q_proj"),
        ("lora.rank=0", "lora.rank is 0; it must be at least 1"),
        ("lora.rnk=4", "did you mean rank"),
        ("lora.alpha=8", "lora is given without init_from"),
    ],
)
def test_dead_targets_and_bad_keys_are_refused(
    tiny_recipe: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load_recipe(SftRecipe, tiny_recipe, [override])
    assert message in str(raised.value)


def test_peft_computes_the_same_from_our_files(tmp_path: Path) -> None:
    peft = import_module("peft")
    transformers = import_module("transformers")
    recipe = LoraRecipe(rank=3, alpha=5.0)
    base = tiny()
    base.save_pretrained(tmp_path / "base")
    model = adapted(base, recipe)
    save_adapter(model, recipe, tmp_path / "adapter", str(tmp_path / "base"))
    theirs = transformers.FalconH1ForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(theirs, str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, model(IDS), rtol=1e-3, atol=1e-3)
        merged = theirs.merge_and_unload()
        torch.testing.assert_close(merged(IDS).logits, merge(model)(IDS), rtol=1e-3, atol=1e-3)
    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text())["r"] == 3
