"""`extend_for_reasoning`: symbols as single tokens, base ids unchanged, HF gives the same ids."""

# ruff: noqa: RUF001

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Reference

from falcon_h1r import _rust
from falcon_h1r.errors import TokenizerError
from falcon_h1r.tokenizer import Tokenizer

from .pipelines import corpus, nasty_texts, reference_json

SYMBOLS = _rust.reasoning_symbols()
LOGIC = "∀x ∈ ℝ. (p ∧ ¬q) ⇒ ∃y: x² ≤ y × 2, \\frac{a}{b} \\in \\mathbb{R}, \\int f, ±1 ÷ 2 · α→β"


@pytest.fixture(scope="module", params=["gpt2", "llama3", "falcon7b", "tekken"])
def base(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer(reference_json(request.param), chat_template="t", eos_token_ids=[2])


@pytest.fixture(scope="module")
def extended(base: Tokenizer) -> Tokenizer:
    return base.extend_for_reasoning()


def test_the_list() -> None:
    assert len(SYMBOLS) == len(set(SYMBOLS)) >= 400
    assert all(s.startswith("\\") for s in SYMBOLS if s.isascii())
    assert {"∀", "∃", "¬", "∧", "⊢", "≤", "×", "α", "\\frac", "\\implies"} <= set(SYMBOLS)


def test_each_symbol_is_one_token(extended: Tokenizer) -> None:
    for symbol in SYMBOLS:
        for text in (symbol, f" {symbol}"):
            ids = extended.encode(text)
            assert len(ids) == 1 and extended.decode(ids) == text, text
    for symbol in ("∀", "∈", "⊢", "\\frac"):
        (token,) = extended.encode(symbol)
        assert token in extended.encode(f"({symbol}x{symbol})")


def test_base_ids_are_unchanged(base: Tokenizer, extended: Tokenizer) -> None:
    for token_id in range(base.vocab_size):
        assert extended.id_to_token(token_id) == base.id_to_token(token_id)
    # `ignore_merges` may meet the added token "word" as a whole word: docs/tokenizer.md.
    texts = [t for t in nasty_texts(1_000, seed=5) if "word" not in t]
    free = [t for t in texts if not any(s in t for s in SYMBOLS)]
    assert len(free) > 300
    assert extended.encode_batch(free) == base.encode_batch(free)
    assert extended.vocab_size > base.vocab_size
    assert (extended.chat_template, extended.eos_token_ids) == ("t", (2,))


def test_text_gets_shorter_and_comes_back(base: Tokenizer, extended: Tokenizer) -> None:
    assert len(extended.encode(LOGIC)) < 0.8 * len(base.encode(LOGIC))
    assert extended.decode(extended.encode(LOGIC)) == LOGIC
    code = corpus()[:50_000]
    assert len(extended.encode(code)) <= len(base.encode(code))


def test_the_reference_gives_the_same_ids(extended: Tokenizer, tmp_path: Path) -> None:
    extended.save(tmp_path / "tokenizer.json")
    theirs = Reference.from_file(str(tmp_path / "tokenizer.json"))
    texts = [*nasty_texts(500, seed=7), LOGIC, *SYMBOLS, *(f"x {s}y" for s in SYMBOLS)]
    assert extended.encode_batch(texts) == [
        theirs.encode(t, add_special_tokens=False).ids for t in texts
    ]


def test_twice_is_once(extended: Tokenizer) -> None:
    again = extended.extend_for_reasoning()
    assert again.vocab_size == extended.vocab_size
    assert again.encode(LOGIC) == extended.encode(LOGIC)


def test_own_symbols(base: Tokenizer) -> None:
    own = base.extend_for_reasoning(["⟿", "\\mycommand", "证毕"])
    assert own.vocab_size == base.vocab_size + 6
    assert len(own.encode("⟿ ⟿\\mycommand 证毕")) == 4


@pytest.mark.parametrize(
    ("symbol", "said"),
    [("", "empty"), ("a b", "space"), ("=>", "ASCII"), ("\\", "ASCII"), ("é" * 65, "long")],
)
def test_symbols_that_are_refused(base: Tokenizer, symbol: str, said: str) -> None:
    with pytest.raises(TokenizerError, match=said):
        base.extend_for_reasoning([symbol])


def test_specials_outside_the_vocabulary_keep_their_ids() -> None:
    file = json.loads(reference_json("gpt2"))
    inside = [t["content"] for t in file["added_tokens"] if t["content"] in file["model"]["vocab"]]
    outside = [t for t in file["added_tokens"] if t["content"] not in file["model"]["vocab"]]
    assert inside and outside
    tokenizer = Tokenizer(json.dumps(file))
    more = tokenizer.extend_for_reasoning()
    for token in file["added_tokens"]:
        assert more.token_to_id(token["content"]) == tokenizer.token_to_id(token["content"])
