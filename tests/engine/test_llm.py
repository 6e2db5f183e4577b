"""LLM: which tokens end a sequence, and which folders and hub ids it takes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

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


@pytest.fixture(scope="module")
def llm(model: FalconH1ForCausalLM) -> Iterator[LLM]:
    with LLM(model) as llm:
        yield llm


@pytest.mark.parametrize(
    "prompts",
    [
        [3, 4],
        [[3, 4]],
        [np.int64(3), np.int64(4)],
        [[np.int64(3), np.int64(4)]],
        np.array([3, 4]),
        np.array([[3, 4]]),
        [np.array([3, 4])],
        torch.tensor([3, 4]),
        [torch.tensor([3, 4])],
        [torch.tensor(3), torch.tensor(4)],
    ],
    ids=repr,
)
def test_token_ids_in_every_form(llm: LLM, prompts: Any) -> None:
    [output] = llm.generate(prompts, SamplingParams(max_tokens=1))
    assert output.prompt_token_ids == [3, 4]


@pytest.mark.parametrize(
    ("prompts", "named"),
    [
        ([[10.9, 11.2]], "10.9"),
        ([10.9, 11.2], "10.9"),
        (np.array([[1.5]]), "1.5"),
        ([["12", "13"]], "'12'"),
        ([["What is 1 + 1?"]], "'What is 1 [+] 1[?]'"),
        (None, "None"),
        ([None], "None"),
        ([[3], None], "None"),
        (5, "5"),
        (np.int64(5), "5"),
        ([True, 3], "True"),
        ([[3, True]], "True"),
        ([3, [4]], r"\[4\]"),
        (b"ab", "b'ab'"),
        ({"role": "user", "content": "x"}, "'role'"),
        ([], "no prompt"),
    ],
    ids=repr,
)
def test_what_is_no_prompt_is_refused(llm: LLM, prompts: Any, named: str) -> None:
    for call in (llm.generate, llm.think):
        with pytest.raises(RequestError, match=rf"{named}.*; give a text") as caught:
            call(prompts)
        assert "\n" not in str(caught.value)
    assert not llm.engine.has_unfinished()


@pytest.mark.parametrize("given", [{"dtype": "bfloat16"}, {"dtype": "float32"}, {"device": "cpu"}])
def test_a_model_object_keeps_its_dtype_and_device(
    given: dict[str, str], model: FalconH1ForCausalLM
) -> None:
    [(name, value)] = given.items()
    with pytest.raises(ConfigError, match=rf"{name} is '{value}' .*model\.to"):
        LLM(model, **given)
