"""The model in the wheel: small enough, consistent with what trained it, and able."""

import json
import re
from pathlib import Path

import pytest

from falcon_h1r import LLM, FalconH1ForCausalLM, Tokenizer, reference_model_path
from falcon_h1r.evaluate.card import CALIBRATION, EVALUATION, check_card
from falcon_h1r.thinking.deepconf import DeepConf, ThinkingDefaults
from falcon_h1r.train.chain_accuracy import chain_accuracy
from falcon_h1r.train.config import load_recipe
from falcon_h1r.train.recipe_sft import SftRecipe
from falcon_h1r.train.stream import prompt_text
from falcon_h1r.train.tasks import EVALUATED, held_out_problems
from falcon_h1r.train.tasks.names import NAMES
from falcon_h1r.train.vocabulary import (
    END_THINK,
    IM_END,
    IM_START,
    PAD,
    SPECIAL_TOKENS,
    SYMBOLS,
    THINK,
)

FOLDER = reference_model_path()
CARD = (FOLDER / "README.md").read_text()
TAUGHT = load_recipe(SftRecipe, "reference_sft").data.families
KNOWN = [f for f in EVALUATED if f in TAUGHT]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> FalconH1ForCausalLM:
    return FalconH1ForCausalLM.from_pretrained(FOLDER)


def test_it_is_at_most_16_megabytes_and_comes_with_a_card() -> None:
    assert (FOLDER / "model.safetensors").stat().st_size <= 16_000_000
    assert all(re.search(rf"^\| {family}\b", CARD, re.MULTILINE) for family in KNOWN)
    check_card(FOLDER / "README.md", EVALUATION)
    check_card(FOLDER / "README.md", CALIBRATION)


def test_config_is_the_recipes(model: FalconH1ForCausalLM) -> None:
    recipe = load_recipe(SftRecipe, "reference_sft")
    written = model.config.to_dict()
    assert {k: written[k] for k in recipe.model} == recipe.model
    assert written["tie_word_embeddings"] is True
    assert (written["pad_token_id"], written["eos_token_id"]) == (PAD, IM_END)


def test_digits_symbols_and_names_are_single_tokens(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("1234567890")) == 10
    assert len(tokenizer.encode("(12+34)*5=")) == 10
    assert all(len(tokenizer.encode(symbol)) == 1 for symbol in SYMBOLS)
    assert all(len(tokenizer.encode(" " + name)) == 1 for name in NAMES)
    assert [tokenizer.token_to_id(t) for t in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))


def test_the_chat_template_is_what_training_spelled_out(tokenizer: Tokenizer) -> None:
    problem = "What is 17 + 25 - 9?"
    asked = [{"role": "user", "content": problem}]
    assert tokenizer.apply_chat_template(asked, add_generation_prompt=True) == prompt_text(problem)
    ids = tokenizer.encode(prompt_text(problem))
    assert ids[0] == IM_START
    assert THINK in ids
    answered = {"role": "assistant", "content": "+71:p71\n</think>\nThe answer is 33."}
    text = tokenizer.apply_chat_template([*asked, answered, *asked], add_generation_prompt=True)
    assert text.count("<|im_start|>") == 4
    assert "p71" not in text
    assert "assistant\nThe answer is 33.<|im_end|>" in text


def test_a_thoughts_end_is_seen_in_decoded_text(tokenizer: Tokenizer) -> None:
    assert "</think>" in tokenizer.decode([END_THINK])


def test_thinking_json_resolves_to_windows_shorter_than_a_trace() -> None:
    defaults = ThinkingDefaults.load(FOLDER)
    config = DeepConf(budget=32).resolved(defaults)
    assert config.window is not None
    assert config.window <= 32
    assert defaults.max_tokens is not None
    written = json.loads(Path(FOLDER, "thinking.json").read_text())
    assert written["confidence"] in ("logprob", "entropy", "top_logprobs")


def test_most_held_out_chains_are_its_first_choice(
    model: FalconH1ForCausalLM, tokenizer: Tokenizer
) -> None:
    shares = chain_accuracy(model, tokenizer, count=8, families=KNOWN)
    assert sum(shares.values()) / len(shares) > 0.5, shares


def test_weak_traces_are_stopped_by_the_models_own_defaults() -> None:
    """Without the consensus, which on most problems is quicker than confidence."""
    problems = [p.problem for p in held_out_problems("equations", 4, level=3, seed=77)]
    with LLM() as llm:
        results = llm.think(problems, DeepConf(consensus=None))
    stopped = [(r, t) for r in results for t in r.traces if t.stopped_by == "confidence"]
    assert stopped
    for result, trace in stopped:
        assert trace.weight is None and not trace.is_warmup
        assert trace.lowest_group is not None and result.threshold is not None
        assert trace.lowest_group < result.threshold
