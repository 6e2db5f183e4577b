"""Added tokens equal to the reference's, and trust: who may write a control token."""

import json
import random
from typing import Any

import pytest
from tokenizers import AddedToken, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Reference

from falcon_h1r.tokenizer import Tokenizer

from .pipelines import nasty_texts, reference_json

CONTENTS = [
    "<a>",
    "<a><b>",
    "ab",
    "a b",
    " ab",
    "ab ",
    "é",
    "É",
    "x",
    "xx",
    "xxx",
    "<|end|>",
    "∀",
    " ∀",
]


def random_reference(rng: random.Random) -> Reference:
    """A tokenizer with a few added tokens of random kinds."""
    tokenizer = Reference.from_str(reference_json(rng.choice(["gpt2", "falcon7b", "qwen2"])))
    if rng.random() < 0.3:
        tokenizer.normalizer = normalizers.Lowercase()
    for content in rng.sample(CONTENTS, 5):
        flags = {
            flag: rng.random() < 0.4
            for flag in ("single_word", "lstrip", "rstrip", "normalized", "special")
        }
        tokenizer.add_tokens([AddedToken(content, **flags)])
    return tokenizer


def spaced_texts(rng: random.Random, count: int) -> list[str]:
    pieces = [*CONTENTS, " ", "  ", "\n", "a", "b", "<", ">", "|", ".", "1", "É", "\u3000", "_"]
    return ["".join(rng.choices(pieces, k=rng.randint(0, 10))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(30))
def test_random_added_tokens(seed: int) -> None:
    rng = random.Random(seed)
    theirs = random_reference(rng)
    ours = Tokenizer(theirs.to_str())
    for text in spaced_texts(rng, 120):
        try:
            want = theirs.encode(text, add_special_tokens=False).ids
        except BaseException:  # the reference panics where a match lies in swallowed spaces
            continue
        assert ours.encode(text) == want, text


@pytest.mark.parametrize("seed", range(6))
def test_untrusted_text_equals_the_reference(seed: int) -> None:
    rng = random.Random(seed)
    theirs = random_reference(rng)
    ours = Tokenizer(theirs.to_str())
    special = {content for content, _ in ours.special_tokens()}
    tags = [c for c, _ in ours.control_tokens() if c not in special]
    theirs.encode_special_tokens = True
    for text in spaced_texts(rng, 80):
        if any(tag in text for tag in tags):
            continue  # tags that are not special steer too; the reference has no such notion
        try:
            want = theirs.encode(text, add_special_tokens=False).ids
        except BaseException:
            continue
        assert ours.encode_segments([(text, False)]) == want, text


def test_many_and_odd_ids() -> None:
    file = json.loads(reference_json("gpt2"))
    tokens: list[dict[str, Any]] = [
        {"id": 90_000 + 3 * i, "content": f"<tok{i}>", "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False, "special": i % 2 == 0}
        for i in range(2_000)
    ]  # fmt: skip
    file["added_tokens"] += tokens
    text = json.dumps(file)
    ours, theirs = Tokenizer(text), Reference.from_str(text)
    for case in ["<tok0><tok1>", "a<tok1999>b<tok19999>", "<tok12<tok12>"]:
        assert ours.encode(case) == theirs.encode(case, add_special_tokens=False).ids
    assert ours.vocab_size == theirs.get_vocab_size()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(reference_json("llama3"))


def test_trusted_segments_are_the_text(tokenizer: Tokenizer) -> None:
    rng = random.Random(4)
    for text in nasty_texts(500, seed=8):
        cut = rng.randint(0, len(text))
        assert tokenizer.encode_segments([(text, True)]) == tokenizer.encode(text)
        assert tokenizer.encode_segments([(text[:cut], True), ("", False), (text[cut:], True)]) == (
            tokenizer.encode(text)
        )


def test_text_joins_across_a_change_of_trust(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_segments([("ret", False), ("urn x", True)]) == tokenizer.encode(
        "return x"
    )


def test_untrusted_text_never_holds_a_control_token(tokenizer: Tokenizer) -> None:
    control = {token_id for _, token_id in tokenizer.control_tokens()}
    assert tokenizer.token_to_id("<mask>") in control  # a tag, though not special
    for text in nasty_texts(2_000, seed=6):
        ids = tokenizer.encode_segments([(text, False)])
        assert not control & set(ids), text
    start = tokenizer.token_to_id("<|im_start|>")
    mixed = tokenizer.encode_segments(
        [("<|im_start|>", True), ("<|im_start|>", False), ("<|im_", False), ("start|>", True)]
    )
    assert mixed.count(start) == 1 and mixed[0] == start
    assert tokenizer.decode(mixed, skip_special_tokens=False) == "<|im_start|>" * 3


def test_a_word_of_the_vocabulary_is_no_control_token_in_untrusted_text() -> None:
    """With `ignore_merges` the model looks a whole word up before it merges."""
    theirs = Reference.from_str(reference_json("gpt2"))
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    file = json.loads(theirs.to_str())
    vocab = file["model"]["vocab"]
    vocab["<|end|>"] = max(vocab.values()) + 1
    file["model"]["ignore_merges"] = True
    token = {"id": vocab["<|end|>"], "content": "<|end|>", "special": True, "normalized": False}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    file["added_tokens"] = [token | flags]
    ours = Tokenizer(json.dumps(file))
    end = vocab["<|end|>"]
    assert ours.encode("<|end|>") == [end]
    for untrusted in ("<|end|>", "a<|end|>b"):
        ids = ours.encode_segments([(untrusted, False)])
        assert end not in ids and ours.decode(ids) == untrusted
    assert ours.encode_segments([("x", False), ("<|end|>", True)])[-1] == end
    for before in ("", "<|end|>", "x"):
        for after in ("", "<|end|>", "x"):
            ids = ours.encode_segments([(before, True), ("<|end|>", False), (after, True)])
            assert ids.count(end) == [before, after].count("<|end|>"), (before, after)
            assert ours.decode(ids, skip_special_tokens=False) == f"{before}<|end|>{after}"
    for cut in range(1, len("<|end|>")):
        halves = [("<|end|>"[:cut], True), ("<|end|>"[cut:], False)]
        assert end not in ours.encode_segments(halves), cut
