# ruff: noqa: RUF001 (the ambiguous characters are the point)
"""Builds the reference model's vocabulary: byte-level BPE with single digits and symbols.

Needs the `train` extra (Hugging Face's `tokenizers`); the result is an ordinary tokenizer.json.
"""

import json
from pathlib import Path
from random import Random
from typing import Any

from falcon_h1r.errors import ConfigError
from falcon_h1r.train.tasks import FAMILIES
from falcon_h1r.train.tasks.adjectives import RANK
from falcon_h1r.train.tasks.names import NAMES, made_up_name
from falcon_h1r.train.tasks.nouns import KINDS
from falcon_h1r.train.tasks.words import WORDS, english_like

SPECIAL_TOKENS = (
    "<|pad|>", "<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>",
    "<think>", "</think>",
)  # fmt: skip
PAD, BOS, EOS, IM_START, IM_END, THINK, END_THINK = range(7)

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "chat_template.json",
)  # fmt: skip

PATTERN = r"\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]|\s+(?!\S)|\s+"
"""Digits and punctuation stand alone, so that arithmetic is aligned whatever surrounds it."""

SYMBOLS = (
    "¬∧∨⊕→↔⇒⇔∀∃∄⊢⊨⊤⊥∴∵≡≢≠≈≤≥≪≫±∓×÷·∘∙√∛∞∝∑∏∫∬∮∂∇∆∈∉∋⊂⊃⊆⊇⊄∪∩∖∅ℕℤℚℝℂℙαβγδεζηθικλμνξπρστυφχψω"
    "ΓΔΘΛΞΠΣΦΨΩ²³¹⁰⁴⁵⁶⁷⁸⁹⁺⁻ⁿ₀₁₂₃₄₅₆₇₈₉°′″…‖∥⊥∠⟨⟩⌊⌋⌈⌉←↑↓↦⟶∗⋅⊗⊙½⅓¼¾♯†‡§¶–—‘’“”•€£"
)
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- set content = message['content'] -%}"
    "{%- if message['role'] == 'assistant' and '</think>' in content -%}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}"
    "{%- endif -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n<think>\\n' -}}{%- endif -%}"
)


def corpus(seed: int) -> list[str]:
    """Text the merges are learnt from: generated problems, names, words and symbols."""
    texts: list[str] = []
    for name, family in FAMILIES.items():
        for i in range(600):
            problem = family.generate(Random(f"vocabulary {seed} {name} {i}"), 1 + i % 3)
            texts.append(f"{problem.problem}\n{problem.response}")
    rng = Random(f"vocabulary {seed} names")
    texts += [f" {word}" * 40 for word in WORDS]
    texts += [f" {name}" * 100 for name in NAMES]
    for role in ("user", "assistant", "system"):
        texts.append(f"{role}\n" * 1000)
    for things in KINDS.values():
        texts += [f" {noun}" * 80 + f" {many}" * 60 for noun, many in things.items()]
    texts += [f" {adjective}" * 80 for adjective in RANK]
    texts += [" " + made_up_name(rng) for _ in range(3000)]
    texts += [" " + english_like(rng) for _ in range(4000)]
    texts += [" " + rng.choice(WORDS) + rng.choice(("s", "ed", "ing", "ly", "er", "'s"))
              for _ in range(1500)]  # fmt: skip
    for symbol in SYMBOLS:
        texts.append(f"{symbol}\n" * 500 + f"x {symbol}" * 150)
    return texts


def build_vocabulary(folder: Path, size: int, seed: int = 0) -> int:
    """Write tokenizer.json and tokenizer_config.json to `folder`; return the number of tokens.

    Raises ConfigError where the package that trains vocabularies is missing.
    """
    try:
        from tokenizers import (
            AddedToken,
            Regex,
            Tokenizer,
            decoders,
            models,
            pre_tokenizers,
            trainers,
        )
    except ImportError:
        raise ConfigError(
            f"a vocabulary of {size} tokens is to be built and the package tokenizers is missing; "
            "pip install 'falcon-h1r[train]', or name a folder that has a tokenizer"
        ) from None

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        show_progress=False,
        special_tokens=[AddedToken(t, special=True) for t in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(corpus(seed), trainer)
    folder.mkdir(parents=True, exist_ok=True)
    data = json.loads(tokenizer.to_str())
    for token in data["added_tokens"]:
        # A thought's markers stay visible in decoded text: chat finds earlier thoughts by them.
        token["special"] = token["id"] not in (THINK, END_THINK)
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 1024,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "pad_token": SPECIAL_TOKENS[PAD],
        "bos_token": SPECIAL_TOKENS[BOS],
        "eos_token": SPECIAL_TOKENS[IM_END],
        "chat_template": CHAT_TEMPLATE,
    }
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return int(tokenizer.get_vocab_size())
