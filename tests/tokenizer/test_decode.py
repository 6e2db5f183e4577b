"""Ids back to text: whole, in batches, as a stream."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Reference

from falcon_h1r.errors import TokenizerError
from falcon_h1r.tokenizer import Tokenizer

from .pipelines import LOSSLESS, nasty_texts, reference_json

# `<mask>` and `<end>` swallow the spaces beside them, here as in the reference.
_SWALLOW = ("<mask>", "<end>")


@pytest.mark.parametrize("name", LOSSLESS)
def test_round_trip(name: str) -> None:
    tokenizer = Tokenizer(reference_json(name))
    texts = [t for t in nasty_texts(2_000, seed=3) if not any(s in t for s in _SWALLOW)]
    back = tokenizer.decode_batch(tokenizer.encode_batch(texts), skip_special_tokens=False)
    assert back == texts


def test_equal_to_the_reference() -> None:
    tokenizer = Tokenizer(reference_json("gpt2"))
    theirs = Reference.from_str(reference_json("gpt2"))
    rng = random.Random(1)
    # Without the added tokens of Latin-1 letters, which the reference takes for bytes.
    ids = [i for i in range(tokenizer.vocab_size) if tokenizer.id_to_token(i) != "Éa"]
    for _ in range(2_000):
        some = rng.choices(ids, k=rng.randint(0, 9))
        for skip in (True, False):
            assert tokenizer.decode(some, skip) == theirs.decode(some, skip), some


@given(st.lists(st.integers(0, 260), max_size=40), st.booleans())
def test_stream_equals_whole(ids: list[int], skip: bool) -> None:
    # The first ids are special tokens and single bytes: characters break everywhere.
    tokenizer = Tokenizer(reference_json("gpt2"))
    stream = tokenizer.decode_stream(skip)
    pieces = [stream.push(i) for i in ids]
    assert "".join(pieces) + stream.flush() == tokenizer.decode(ids, skip)
    assert stream.flush() == ""


def test_stream_holds_back_only_the_incomplete() -> None:
    tokenizer = Tokenizer(reference_json("gpt2"))
    byte_ids = {b: tokenizer.token_to_id(_letter(b)) for b in "é😀".encode()}
    stream = tokenizer.decode_stream()
    pushed = [stream.push(byte_ids[b] or 0) for b in "é😀".encode()]
    assert pushed == ["", "é", "", "", "", "😀"]
    assert stream.push(byte_ids[0xC3] or 0) == ""
    assert stream.flush() == "\ufffd"


def _letter(byte: int) -> str:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    if byte in printable:
        return chr(byte)
    return chr(0x100 + [b for b in range(256) if b not in printable].index(byte))


def test_arrays_and_lists() -> None:
    tokenizer = Tokenizer(reference_json("gpt2"))
    ids = tokenizer.encode("the same text")
    for array in (np.array(ids, np.uint32), np.array(ids, np.int64), tuple(ids)):
        assert tokenizer.decode(array) == "the same text"  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [-1, 10**6, 2**40])
def test_unknown_id(bad: int) -> None:
    tokenizer = Tokenizer(reference_json("gpt2"))
    with pytest.raises(TokenizerError, match="unknown"):
        tokenizer.decode([0, bad])
    stream = tokenizer.decode_stream(skip_special_tokens=False)
    with pytest.raises(TokenizerError, match="unknown"):
        stream.push(bad)
    assert stream.push(1) == "<|im_start|>"
    assert tokenizer.id_to_token(bad) is None
