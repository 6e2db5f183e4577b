"""Tokenizers of every family, trained here with Hugging Face `tokenizers` on Python's own sources.

Their ids are the truth in this room's tests.
"""

# ruff: noqa: RUF001

import functools
import json
import random
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, processors, trainers
from tokenizers import Tokenizer as Reference
from tokenizers import pre_tokenizers as pre

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    + _CONTRACTION
    + r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    + _CONTRACTION
    + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

SPECIALS = ["<|begin_of_text|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
BYTES = functools.partial(pre.ByteLevel, add_prefix_space=False)


def _by_regex(pattern: str) -> Any:
    return pre.Sequence([pre.Split(Regex(pattern), "isolated"), BYTES(use_regex=False)])


PRE_TOKENIZERS: dict[str, Callable[[], Any]] = {
    "gpt2": BYTES,
    "llama3": lambda: _by_regex(LLAMA3),
    "qwen2": lambda: _by_regex(QWEN2),
    "tekken": lambda: _by_regex(TEKKEN),
    "o200k": lambda: _by_regex(O200K),
    # No scanner is written for this one: the generic engine.
    "generic": lambda: _by_regex(r"\p{L}+(?=\s)|\p{N}{1,2}|\s+(?!\S)|[^\s\p{L}\p{N}]+?|\s+"),
    "falcon7b": lambda: pre.Sequence(
        [
            pre.Punctuation("contiguous"),
            BYTES(),
            pre.Digits(individual_digits=False),
            pre.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
        ]
    ),
    "falcon_single_digits": lambda: pre.Sequence(
        [pre.Punctuation("contiguous"), BYTES(), pre.Digits(individual_digits=True)]
    ),
    "digits_first": lambda: pre.Sequence(
        [pre.Digits(individual_digits=True), pre.Punctuation("isolated"), BYTES()]
    ),
    "letters_split": lambda: pre.Sequence(
        [
            BYTES(use_regex=False),
            pre.Punctuation("merged_with_next"),
            pre.Split("Ġ", "merged_with_next"),
            pre.Digits(individual_digits=False),
        ]
    ),
    "removing": lambda: pre.Sequence(
        [
            pre.Split("  ", "removed"),
            pre.Split(Regex(r"\p{Lu}"), "merged_with_next", invert=False),
            pre.Split(Regex(r"\w+"), "contiguous", invert=True),
            BYTES(),
            pre.Punctuation("merged_with_previous"),
        ]
    ),
}
NORMALIZERS: dict[str, Callable[[], Any]] = {
    "qwen2": normalizers.NFC,
    "digits_first": lambda: normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace("ß", "ss")]
    ),
    "letters_split": lambda: normalizers.Sequence(
        [normalizers.Replace(Regex(r"\s{3,}"), "  "), normalizers.Prepend("»")]
    ),
    "removing": lambda: normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    ),
}
ALL = list(PRE_TOKENIZERS)
# No normalizer, no removed spans, no prefix: what goes in comes out.
LOSSLESS = [name for name in ALL if name not in NORMALIZERS]


@functools.cache
def corpus() -> str:
    """Some 1.5 MB of English and code."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(folder.glob("*.py"))[:60]
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in files)


@functools.cache
def reference_json(name: str) -> str:
    """The `tokenizer.json` of a pipeline, trained on `corpus`."""
    tokenizer = Reference(models.BPE())
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]()
    if name in NORMALIZERS:
        tokenizer.normalizer = NORMALIZERS[name]()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        initial_alphabet=pre.ByteLevel.alphabet(),
        special_tokens=SPECIALS,
        show_progress=False,
    )
    text = corpus()[:400_000] + "αβγδ ∀x∈ℝ. x²≥0 ∧ ¬(p ∨ q) → été naïve Привет мир 你好世界 " * 40
    tokenizer.train_from_iterator([text[i : i + 2000] for i in range(0, len(text), 2000)], trainer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
            ),
        ]
    )
    tokenizer.add_tokens(
        [
            AddedToken("⊢", normalized=False),
            AddedToken("⊢⊢", normalized=False),
            AddedToken("word", single_word=True, normalized=False),
            AddedToken("Éa", normalized=True),
            AddedToken("<mask>", lstrip=True, normalized=False),
            AddedToken("<end>", rstrip=True, normalized=False),
        ]
    )
    file = json.loads(tokenizer.to_str())
    if name == "llama3":
        file["model"]["ignore_merges"] = True
        # Whole words that no merge makes.
        for i, word in enumerate(["Ġxyzzy", "plugh", "ðŁĺĢ"]):
            file["model"]["vocab"].setdefault(word, 5000 + i)
    if name == "gpt2":
        file["model"]["merges"] = [" ".join(merge) for merge in file["model"]["merges"]]
    if name == "tekken":
        _shuffle_merges(file)
    return json.dumps(file)


def _shuffle_merges(file: dict[str, Any]) -> None:
    """Put some merges out of order, so that a merge may come before the one it needs."""
    merges = file["model"]["merges"]
    rng = random.Random(5)
    for _ in range(200):
        i, j = rng.randrange(len(merges)), rng.randrange(len(merges))
        merges[i], merges[j] = merges[j], merges[i]


# Where pipelines part ways: spaces of all kinds, contractions, digits of other scripts, marks,
# characters whose UTF-8 bytes have digit letters, look-alikes of added tokens.
_SINGLE = (
    "aAbBsStTrReEvVlLdDmMxyz0123456789²³¹½¼Ⅳ٣éÉßΩωòвгмноя\u0416字世日本語한국ªʰǅſ\u212a\u1c89"
    "\u0301\u20dd\u200d\ufe0f\u200b \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u2028\u3000"
    "'’\"`.,:;!?-–_/\\|@#$%^&*()[]{}<>=+~¿¡§«»¬±×÷·∀∃∈≤⊢😀👍🏽🇫🇷\x00\x7f\ufffd\U0010ffff"
)
_SEVERAL = [
    "'s", "'S", "'re", "'LL", "'ſ", "  ", "   ", " \n", "\r\n", "\n\n", " \t ", "e\u0301",
    "the", " the", "The", "self", " return", "def ", "word", "sword", "123", "1234", " 12",
    "\\frac", " $x$", "xyzzy", " xyzzy", "plugh", "<|im_start|>", "<|im_end|>", "<think>",
    "<|im_", "</think>", "<mask>", " <mask> ", "<end>", "<end> ", "Éa", "E\u0301a", "⊢⊢⊢",
]  # fmt: skip


def nasty_texts(count: int, seed: int, longest: int = 20) -> list[str]:
    """Random texts over an alphabet on which tokenizers differ."""
    rng = random.Random(seed)
    pieces = [*_SINGLE, *_SEVERAL * 2]
    # A third of the texts are written in few characters, so that runs and repeats come up.
    texts = []
    for i in range(count):
        alphabet = rng.sample(pieces, 4) if i % 3 == 0 else pieces
        texts.append("".join(rng.choices(alphabet, k=rng.randint(0, longest))))
    return texts


def words_of(name: str, count: int, seed: int) -> list[str]:
    """Random texts made of random tokens: they meet merges far more often than random bytes do."""
    rng = random.Random(seed)
    tokenizer = Reference.from_str(reference_json(name))
    tokens = [tokenizer.decode([i]) for i in range(tokenizer.get_vocab_size())]
    return ["".join(rng.choices(tokens, k=rng.randint(1, 12))) for _ in range(count)]
