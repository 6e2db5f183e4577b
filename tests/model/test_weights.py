"""Checkpoints: every damaged or wrong file is one typed error that names file and tensor."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from falcon_h1r import FalconH1Config, FalconH1ForCausalLM
from falcon_h1r.errors import ConfigError, WeightsError


def tiny(**changes: object) -> FalconH1ForCausalLM:
    fields = {
        "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "mamba_d_ssm": 16,
        "mamba_n_heads": 2, "mamba_d_state": 8, "max_position_embeddings": 64,
    }  # fmt: skip
    model = FalconH1ForCausalLM(FalconH1Config(**{**fields, **changes}))  # type: ignore[arg-type]
    model.reset_parameters()
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny().save_pretrained(tmp_path)
    return tmp_path


def load(folder: Path) -> FalconH1ForCausalLM:
    return FalconH1ForCausalLM.from_pretrained(folder)


def shard(folder: Path) -> list[str]:
    """Split the single file into two shards with an index; return the names of the second's."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = [names[: len(names) // 2], names[len(names) // 2 :]]
    weight_map = {}
    for i, part in enumerate(parts, start=1):
        file = f"model-0000{i}-of-00002.safetensors"
        save_file({n: tensors[n] for n in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return parts[1]


def test_sharded_equals_single(folder: Path) -> None:
    input_ids = torch.arange(12)[None]
    with torch.no_grad():
        expected = load(folder)(input_ids)
        shard(folder)
        assert torch.equal(load(folder)(input_ids), expected)


def test_a_model_saved_over_shards_is_what_comes_back(folder: Path) -> None:
    shard(folder)
    model = load(folder)
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    model.save_pretrained(folder)
    assert torch.equal(load(folder).lm_head.weight, model.lm_head.weight)


def test_missing_folder_and_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        load(tmp_path)


BROKEN = ["{", "[1]", '{"hidden_size": "wide"}', "\x00", "[" * 100_000, "9" * 5_000]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_broken_config(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        load(folder)


def test_other_architecture(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ConfigError, match="model_type is 'llama'"):
        load(folder)


def test_missing_shard(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match="model-00002-of-00002"):
        load(folder)


@pytest.mark.parametrize(
    "name", ["model.layers.1.mamba.in_proj.weight", "model.layers.0.mamba.in_proj.weight"]
)
def test_an_index_that_names_the_wrong_shard(folder: Path, name: str) -> None:
    in_second = name in shard(folder)
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    wrong = f"model-0000{1 if in_second else 2}-of-00002.safetensors"
    content["weight_map"][name] = wrong
    index.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=f"{wrong}: tensor {name} is missing though the index"):
        load(folder)


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_broken_index(folder: Path, text: str) -> None:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(WeightsError, match=r"index\.json is not a safetensors index"):
        load(folder)


def test_a_config_that_asks_for_a_billion_layers_builds_none(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 10**9}))
    with pytest.raises(WeightsError, match=r"layers\.999999999\..* is missing"):
        load(folder)


def test_a_config_that_asks_for_a_billion_channels_builds_none(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"mamba_d_head": "auto"}
    (folder / "config.json").write_text(json.dumps(config | {"mamba_d_ssm": 12_800_000_000}))
    with pytest.raises(WeightsError, match=r"in_proj\.weight has shape .*asks for \d+ rows"):
        load(folder)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("rope_scaling", "linear", "rope_scaling is 'linear'"),
        ("time_step_limit", [0.0], "want two numbers"),
        ("embedding_multiplier", {"__float__": "x"}, "holds no number"),
        ("mamba_d_ssm", -1024, "mamba_d_ssm is -1024"),
        ("mamba_d_ssm", 16.0, r"mamba_d_ssm is 16\.0"),
        ("head_dim", -64, "head_dim is -64"),
    ],
)
def test_a_field_that_cannot_be_is_named(
    folder: Path, field: str, value: object, said: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.pop("rope_parameters")
    (folder / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(ConfigError, match=said) as raised:
        load(folder)
    assert "\n" not in str(raised.value)


def test_missing_and_extra_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "model.extra": torch.ones(1)}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"model\.extra"):
        load(folder)
    del tensors["model.layers.1.mamba.A_log"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"layers\.1\.mamba\.A_log is missing"):
        load(folder)


def test_wrong_shape_and_dtype(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mamba.in_proj.weight"
    save_file({**tensors, name: tensors[name][:-1].clone()}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"in_proj\.weight has shape"):
        load(folder)
    save_file({**tensors, name: tensors[name].int()}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"in_proj\.weight has dtype I32"):
        load(folder)


@pytest.mark.parametrize("keep", [0, 4, 8, 40, -1, -1000])
def test_truncated(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:keep])
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        load(folder)


@pytest.mark.parametrize("length", [0, 1, 1 << 20, (1 << 63) - 1, (1 << 64) - 1])
def test_header_that_lies_about_its_length(folder: Path, length: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        load(folder)


def test_header_that_lies_about_a_tensor(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    header["lm_head.weight"]["data_offsets"][1] = 1 << 40
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data[8 + length :])
    with pytest.raises(WeightsError, match=r"lm_head\.weight claims bytes"):
        load(folder)


def test_flipped_bytes_are_refused_or_load(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        at = int(torch.randint(0, 4000, (1,), generator=generator))
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
        try:
            load(folder)
        except WeightsError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("step", ["save_file", "_sync"])
def test_save_is_whole_or_absent(step: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "model.safetensors").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"falcon_h1r.model.weights.{step}", full)
    with pytest.raises(WeightsError, match="No space left"):
        tiny().save_pretrained(folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", 0),
        ("num_hidden_layers", -1),
        ("mamba_d_conv", 1),
        ("hidden_act", "gelu"),
        ("ssm_multipliers", (1.0,)),
        ("lm_head_multiplier", float("nan")),
        ("num_key_value_heads", 3),
        ("mamba_d_head", 5),
        ("time_step_limit", (1.0, 0.5)),
        ("mamba_n_groups", 3),
    ],
)
def test_config_refuses(field: str, value: object) -> None:
    with pytest.raises(ConfigError):
        tiny(**{field: value})


def test_config_of_either_age() -> None:
    new = {"rope_parameters": {"rope_theta": 1e11, "rope_type": "default"}, "dtype": "bfloat16",
           "time_step_limit": [0.0, {"__float__": "Infinity"}]}  # fmt: skip
    old = {"rope_theta": 1e11, "torch_dtype": "bfloat16", "time_step_limit": [0.0, float("inf")]}
    assert FalconH1Config.from_dict(new) == FalconH1Config.from_dict(old)
    config = tiny(eos_token_id=(11, 228)).config
    assert FalconH1Config.from_dict(json.loads(json.dumps(config.to_dict()))).eos_token_ids == (
        11,
        228,
    )
