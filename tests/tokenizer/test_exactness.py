"""Ids equal to those of Hugging Face `tokenizers`."""

import functools
import json
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer as Reference

from falcon_h1r.tokenizer import Tokenizer

from .pipelines import ALL, corpus, nasty_texts, reference_json, words_of


@functools.cache
def both(name: str) -> tuple[Tokenizer, Any]:
    """Ours and the reference; one of each, as the reference keeps memory for every one made."""
    return Tokenizer(reference_json(name)), Reference.from_str(reference_json(name))


def differing(
    name: str, texts: list[str], **options: Any
) -> list[tuple[str, list[int], list[int]]]:
    """Texts on which the two differ, with both results; empty is what tests want."""
    ours, theirs = both(name)
    special = options.get("add_special_tokens", False)
    want = [e.ids for e in theirs.encode_batch_fast(texts, add_special_tokens=special)]
    got = ours.encode_batch(texts, **options)
    return [(t, w, g) for t, w, g in zip(texts, want, got, strict=True) if w != g][:3]


@pytest.mark.parametrize("name", ALL)
def test_ids_on_generated_strings(name: str) -> None:
    texts = nasty_texts(7_500, seed=len(name)) + words_of(name, 2_000, seed=1)
    assert differing(name, texts) == []


@pytest.mark.campaign
@pytest.mark.parametrize("name", ALL)
def test_ids_on_a_million_generated_strings(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    for seed in range(100):
        texts = nasty_texts(7_000, seed=100 + seed) + words_of(name, 2_900, seed=200 + seed)
        texts += nasty_texts(100, seed=300 + seed, longest=500)
        assert differing(name, texts) == []
    record_property("strings", 1_000_000)


@pytest.mark.parametrize("name", ["gpt2", "llama3", "falcon7b"])
def test_ids_of_real_text(name: str) -> None:
    text = corpus()
    texts = [text[i : i + 20_000] for i in range(0, 400_000, 20_000)]
    assert differing(name, texts) == []


@pytest.mark.parametrize("name", ["gpt2", "o200k", "digits_first"])
def test_every_code_point(name: str) -> None:
    points = [chr(c) for c in range(0x3000) if not 0xD800 <= c < 0xE000]
    points += [chr(c) for c in range(0x3000, 0x110000, 7) if not 0xD800 <= c < 0xE000]
    # One text holds many: fewer calls. The letters around show how each is cut.
    texts = ["".join(f"a{c} a {c}1" for c in points[i : i + 50]) for i in range(0, len(points), 50)]
    assert differing(name, texts) == []


@pytest.mark.parametrize("name", ["gpt2", "falcon7b"])
def test_special_tokens_around(name: str) -> None:
    assert differing(name, nasty_texts(500, seed=9), add_special_tokens=True) == []


@pytest.mark.parametrize("name", ["qwen2", "removing", "falcon7b"])
def test_long_texts_in_one_piece(name: str) -> None:
    texts = [unit * (5_000 // len(unit)) for unit in ("a", "^", " ", "\n", "ab", "é", "12", " x")]
    assert differing(name, texts) == []


def edited(name: str, **changes: Any) -> str:
    """The file of a pipeline with some fields of its model changed."""
    file = json.loads(reference_json(name))
    file["model"] |= changes
    return json.dumps(file)


def small_model(**fields: Any) -> str:
    """A file with a character vocabulary and nothing but a model."""
    vocab = {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "<unk>": 5, "<0xC3>": 6, "<0xA9>": 7}
    vocab |= {"##b": 8, "##c": 9, "a##": 10, "b</w>": 11, "ab</w>": 12}
    model = {"type": "BPE", "vocab": vocab, "merges": [["a", "b"], ["ab", "c"]]} | fields
    return json.dumps({"version": "1.0", "model": model})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"unk_token": "<unk>"},
        {"unk_token": "<unk>", "fuse_unk": True},
        {"unk_token": "<unk>", "byte_fallback": True},
        {"unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True},
        {"byte_fallback": True},
        {"continuing_subword_prefix": "##", "merges": [["a", "##b"]]},
        {"end_of_word_suffix": "</w>", "merges": [["a", "b</w>"]]},
        {"merges": ["a b", "ab c", "a b"]},
        {"merges": [["ab", "c"], ["a", "b"]]},
        {"ignore_merges": True, "merges": []},
        {"dropout": 0.0},
    ],
)
def test_model_options(fields: dict[str, Any]) -> None:
    text = small_model(**fields)
    ours, theirs = Tokenizer(text), Reference.from_str(text)
    for case in ["", "abc", "abcabc", "xab", "xyab", "aéb", "éx", "xé", "ab", "b", "aab", "cab"]:
        assert ours.encode(case) == theirs.encode(case).ids, case
