"""Files that are broken, hostile or beyond what is implemented: one error, one line, no crash."""

# ruff: noqa: E501

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Reference

from falcon_h1r.errors import TokenizerError
from falcon_h1r.tokenizer import Tokenizer

from .pipelines import reference_json

TINY: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
        {"id": 3, "content": "<x>", "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
    ],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"},
        {"type": "Replace", "pattern": {"String": "q"}, "content": "a"}]},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "a+(?!b)|b"}, "behavior": "Isolated", "invert": False},
        {"type": "Digits", "individual_digits": True},
        {"type": "Punctuation", "behavior": "Contiguous"},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
    "post_processor": {"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<x>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [], "special_tokens": {"<x>": {"id": "<x>", "ids": [3], "tokens": ["<x>"]}}},
    "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
}  # fmt: skip


def with_part(path: str, value: Any) -> str:
    """TINY with the part at a dotted path replaced."""
    file = copy.deepcopy(TINY)
    at: Any = file
    *parents, last = path.split(".")
    for key in parents:
        at = at[int(key)] if isinstance(at, list) else at[key]
    at[last] = value
    return json.dumps(file)


def test_the_tiny_file_works() -> None:
    text = json.dumps(TINY)
    want = Reference.from_str(text).encode("<x>abqab").ids
    assert want == [3, 3, 0, 1, 0, 0, 1]
    assert Tokenizer(text).encode("<x>abqab", add_special_tokens=True) == want


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("model.type", "Unigram", "Unigram"),
        ("model.type", "WordPiece", "WordPiece"),
        ("model.dropout", 0.1, "dropout"),
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": ""}, "Precompiled"),
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "Nmt"}]}, "Nmt"),
        ("pre_tokenizer", {"type": "Metaspace", "replacement": "_"}, "Metaspace"),
        ("pre_tokenizer", {"type": "Whitespace"}, "Whitespace"),
        ("post_processor", {"type": "Surprise"}, "Surprise"),
        ("decoder", {"type": "WordPiece", "prefix": "##"}, "WordPiece"),
        ("decoder", {"type": "Sequence", "decoders": [{"type": "Fuse"}]}, "Fuse"),
        ("version", "2.0", "2.0"),
    ],
)
def test_unknown_parts_are_named(path: str, value: Any, named: str) -> None:
    with pytest.raises(TokenizerError, match=f"unsupported .*{named}") as caught:
        Tokenizer(with_part(path, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("model.merges", [["a", "z"]], '"z"'),
        ("model.merges", [["b", "a"]], '"ba"'),
        ("model.merges", ["a b c"], "not two tokens"),
        ("model.vocab", {"a": 0, "b": 0}, "share id 0"),
        ("model.vocab", {"a": 2**31}, "below"),
        ("model.vocab", {"a": -1}, "broken"),
        ("model.vocab", ["a"], "broken"),
        ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated"}, "compile"),
        ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Odd"}, "Split"),
        ("pre_tokenizer", {"no": "type"}, "without"),
        ("post_processor.single", [{"SpecialToken": {"id": "<y>", "type_id": 0}}], "<y>"),
        ("post_processor.single", [{"Sequence": {"id": "B", "type_id": 0}}], "B"),
    ],
)  # fmt: skip
def test_contradictions_are_named(path: str, value: Any, said: str) -> None:
    with pytest.raises(TokenizerError, match=said) as caught:
        Tokenizer(with_part(path, value))
    assert "\n" not in str(caught.value)


def test_deep_nesting() -> None:
    part: dict[str, Any] = {"type": "NFC"}
    for _ in range(30):
        part = {"type": "Sequence", "normalizers": [part]}
    with pytest.raises(TokenizerError, match="nests deeper"):
        Tokenizer(with_part("normalizer", part))
    with pytest.raises(TokenizerError, match="broken"):
        Tokenizer('{"model":' + "[" * 100_000)


def test_a_regex_without_end_gives_up() -> None:
    pattern = {"Regex": r"(?:(?:a+)(?!c))+d"}
    file = with_part("pre_tokenizer", {"type": "Split", "pattern": pattern, "behavior": "Isolated"})
    with pytest.raises(TokenizerError, match="work limit"):
        Tokenizer(file).encode("a" * 60 + "bcd")


def test_a_regex_that_calls_itself_is_not_written_out_without_end() -> None:
    pattern = {"Regex": r"(a|b\g<1>\g<1>\g<1>\g<1>)"}
    file = with_part("pre_tokenizer", {"type": "Split", "pattern": pattern, "behavior": "Isolated"})
    with pytest.raises(TokenizerError, match=r"(?i)complex|regular expression"):
        Tokenizer(file)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every part of a JSON value."""
    if not isinstance(value, dict | list):
        return [path]
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return [path, *(found for key, item in inner for found in leaves(item, (*path, key)))]


PATHS = [path for path in leaves(TINY) if path]
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2**33), st.floats(), st.text(max_size=6),
    st.sampled_from(["", "a", "ab", "Removed", "MergedWithNext", "ByteLevel", "Sequence", "<x>"]),
    st.just([]), st.just({}), st.just([["a", "b"], ["ab", "ab"]]), st.just({"Regex": "(?<=a)|b*"}),
    st.just({"String": ""}), st.just({"a": 0, "ab": 7, "": 1}),
)  # fmt: skip


@settings(max_examples=400)
@given(
    st.lists(st.tuples(st.sampled_from(PATHS), ODD), min_size=1, max_size=4), st.text(max_size=9)
)
def test_mutated_files_never_crash(changes: list[tuple[tuple[Any, ...], Any]], text: str) -> None:
    file = copy.deepcopy(TINY)
    for (*parents, last), value in changes:
        at: Any = file
        try:
            for key in parents:
                at = at[key]
            at[last] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took this part away
    try:
        tokenizer = Tokenizer(json.dumps(file))
        ids = tokenizer.encode(text + "abq<x>1.a b", add_special_tokens=True)
        tokenizer.decode(ids)
        tokenizer.encode_segments([(text, False), ("<x>ab", True)])
    except TokenizerError as error:
        assert "\n" not in str(error)


@settings(max_examples=100)
@given(st.integers(0, 10**6), st.text(max_size=3))
def test_damaged_text_never_crashes(at: int, patch: str) -> None:
    whole = reference_json("falcon7b")
    at %= len(whole)
    damaged = whole[:at] + patch if len(patch) == 3 else whole[:at] + patch + whole[at + 1 :]
    try:
        Tokenizer(damaged).encode("some text")
    except TokenizerError as error:
        assert "\n" not in str(error)
