"""LLM: which tokens end a sequence, and which folders and hub ids it takes."""

import json
from pathlib import Path
from typing import Any

import pytest

from falcon_h1r import LLM, FalconH1ForCausalLM, SamplingParams
from falcon_h1r.errors import ConfigError, RequestError


@pytest.fixture
def folder(model: FalconH1ForCausalLM, tmp_path: Path) -> Path:
    """A checkpoint without a tokenizer; its config ends sequences with token 2."""
    model.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("said", "ids"), [(None, (2,)), (7, (2, 7)), ([9, 5], (2, 5, 9)), ("seven", (2,))]
)
def test_generation_config_ends_sequences_too(folder: Path, said: Any, ids: Any) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": said}))
    with LLM(folder) as llm:
        assert llm.tokenizer is None
        assert llm.engine.eos_token_ids == ids


@pytest.mark.parametrize("text", ["{", "[1]", "\x00", "[" * 100_000])
def test_a_broken_generation_config_is_named(folder: Path, text: str) -> None:
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"generation_config\.json") as caught:
        LLM(folder)
    assert "\n" not in str(caught.value)


def test_without_a_tokenizer_token_ids_are_taken_and_text_is_refused(folder: Path) -> None:
    with LLM(folder) as llm:
        params = SamplingParams(max_tokens=3, temperature=0.0, ignore_eos=True)
        [output] = llm.generate([[3, 4, 5]], params)
        assert len(output.outputs[0].token_ids) == 3
        with pytest.raises(RequestError, match="no tokenizer; give the prompt as token ids"):
            llm.generate("text")


def test_a_hub_id_is_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with LLM("owner/name") as llm:
        assert llm.folder == folder
    [(name, patterns)] = asked
    assert name == "owner/name"
    assert {"*.json", "*.safetensors"} <= set(patterns)
    assert not any(p.endswith((".bin", ".py", ".pt")) for p in patterns)


@pytest.mark.parametrize("name", ["nowhere", "/no/where", "./a/b", "a/b/c", "~/model"])
def test_no_such_folder_asks_no_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ConfigError, match="no such folder"):
        LLM(name)


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "", "cpu:x"])
def test_a_device_that_is_not_there(device: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match="device is") as caught:
        LLM(folder, device=device)
    assert "\n" not in str(caught.value)
