"""Speed on one core beside Hugging Face `tokenizers`, and what reasoning symbols save.

The vocabularies are trained here on one half of the Python installation's files and timed on the
other; tiktoken and gigatoken join where they are installed.
"""

# ruff: noqa: RUF001

import importlib
import json
import os
import random
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, decoders, models, trainers
from tokenizers import Tokenizer as Reference
from tokenizers import pre_tokenizers as pre

from falcon_h1r import Tokenizer

os.environ["TOKENIZERS_PARALLELISM"] = "false"
Record = Callable[[dict[str, Any]], None]

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PIPELINES: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: pre.ByteLevel(add_prefix_space=False),
    "llama3": lambda: pre.Sequence(
        [
            pre.Split(Regex(LLAMA3), "isolated"),
            pre.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
    "falcon": lambda: pre.Sequence(
        [
            pre.Punctuation("contiguous"),
            pre.ByteLevel(add_prefix_space=False),
            pre.Digits(individual_digits=True),
        ]
    ),
}
KINDS = ["prose", "code", "latex"]
NUM_BYTES = 1_000_000


def python_files(half: int) -> list[str]:
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(folder.glob("*.py")) + sorted(folder.glob("[a-z]*/*.py"))
    return [f.read_text(encoding="utf-8", errors="replace") for f in files[half::2]]


def latex_text(size: int, seed: int) -> str:
    """Formulas of every kind in English sentences."""
    rng = random.Random(seed)
    names = [
        "x",
        "y",
        "z",
        "n",
        "k",
        "a",
        "b",
        "f",
        "g",
        "\\alpha",
        "\\beta",
        "\\theta",
        "\\lambda",
        "\\phi",
    ]
    relations = [
        "=",
        "\\leq",
        "\\geq",
        "\\neq",
        "\\in",
        "\\subseteq",
        "\\equiv",
        "<",
        "\\Rightarrow",
        "\\iff",
    ]
    words = [
        "Let",
        "be",
        "a",
        "function",
        "such",
        "that",
        "for",
        "all",
        "we",
        "have",
        "where",
        "holds",
        "hence",
        "by",
        "the",
        "lemma",
    ]

    def term(depth: int) -> str:
        if depth == 0 or rng.random() < 0.3:
            return rng.choice([*names, str(rng.randint(0, 99))])
        a, b = term(depth - 1), term(depth - 1)
        forms = ["\\frac{%s}{%s}", "%s + %s", "\\sqrt{%s} \\cdot %s", "%s^{%s}", "(%s - %s)"]
        forms += ["\\sum_{%s}^{\\infty} %s", "\\mathbb{E}[%s \\mid %s]", "\\int_%s %s \\, dx"]
        return rng.choice(forms) % (a, b)

    lines: list[str] = []
    length = 0
    while length < size:
        sentence = " ".join(rng.choices(words, k=rng.randint(3, 12)))
        lines.append(f"{sentence} ${term(3)} {rng.choice(relations)} {term(2)}$.")
        length += len(lines[-1])
    return "\n".join(lines)


def logic_text(size: int, seed: int) -> str:
    """First-order formulas in Unicode."""
    rng = random.Random(seed)

    def formula(depth: int) -> str:
        if depth == 0:
            return rng.choice(["P(x)", "Q(x, y)", "x ∈ A", "y ≤ z", "¬R(z)", "x ≠ y", "A ⊆ B"])
        a, b = formula(depth - 1), formula(depth - 1)
        return rng.choice([f"({a} ∧ {b})", f"({a} ∨ {b})", f"({a} → {b})", f"∀x. {a}", f"∃y. {b}"])

    lines: list[str] = []
    length = 0
    while length < size:
        lines.append(f"⊢ {formula(3)} ⟺ {formula(2)}")
        length += len(lines[-1])
    return "\n".join(lines)


def corpus(kind: str) -> str:
    if kind == "latex":
        return latex_text(NUM_BYTES, seed=1)
    if kind == "logic":
        return logic_text(NUM_BYTES // 4, seed=1)
    files = python_files(1)
    if kind == "code":
        return "".join(files)[:NUM_BYTES]
    # Prose: the documentation strings and comments of the same files.
    lines = (line.strip() for text in files for line in text.splitlines())
    return "\n".join(line for line in lines if line[:1].isalpha() and line.count(" ") > 7)[
        :NUM_BYTES
    ]


@pytest.fixture(scope="module")
def trained() -> Callable[[str], str]:
    made: dict[str, str] = {}

    def train(name: str) -> str:
        if name not in made:
            tokenizer = Reference(models.BPE())
            tokenizer.pre_tokenizer = PIPELINES[name]()
            tokenizer.decoder = decoders.ByteLevel()
            trainer = trainers.BpeTrainer(
                vocab_size=16_000,
                initial_alphabet=pre.ByteLevel.alphabet(),
                show_progress=False,
            )
            tokenizer.train_from_iterator([*python_files(0)[:300], latex_text(10**6, 0)], trainer)
            made[name] = tokenizer.to_str()
        return made[name]

    return train


def peers(file: str) -> dict[str, Callable[[str], Any]]:
    """Encoders of other libraries for the same file, as far as they are installed."""
    found: dict[str, Callable[[str], Any]] = {}
    reference = Reference.from_str(file)
    found["tokenizers"] = lambda text: reference.encode(text).ids
    try:
        gigatoken = importlib.import_module("gigatoken")
        found["gigatoken"] = gigatoken.Tokenizer.from_str(file).encode
    except (ImportError, AttributeError, ValueError):
        pass
    return found


def mb_per_second(encode: Callable[[str], Any], documents: list[str]) -> float:
    start = time.process_time()
    for document in documents:
        encode(document)
    return sum(len(d.encode()) for d in documents) / 1e6 / (time.process_time() - start)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PIPELINES)
def bench_encode(name: str, kind: str, trained: Callable[[str], str], record: Record) -> None:
    """MB of UTF-8 a second of one core; documents of 16 KB; first pass and best of three more."""
    file = trained(name)
    text = corpus(kind)
    documents = [text[i : i + 16_384] for i in range(0, len(text), 16_384)]
    ours = Tokenizer(file)
    cold = mb_per_second(ours.encode, documents)
    row: dict[str, Any] = {"pipeline": name, "text": kind, "cold": cold}
    rates: dict[str, list[float]] = {}
    everyone = {"ours": ours.encode} | peers(file)
    for _ in range(3):
        for who, encode in everyone.items():
            rates.setdefault(who, []).append(mb_per_second(encode, documents))
    row |= {who: max(all_rates) for who, all_rates in rates.items()}
    row["ratio_to_tokenizers"] = row["ours"] / row["tokenizers"]
    reference = Reference.from_str(file)
    row["is_exact"] = all(ours.encode(d) == reference.encode(d).ids for d in documents)
    assert row["is_exact"]
    record(row)


@pytest.mark.parametrize("kind", ["a", "^", " ", "\n", "random letters"])
def bench_one_long_word(kind: str, trained: Callable[[str], str], record: Record) -> None:
    """Seconds for 1 MB without a place to split."""
    file = trained("llama3")
    rng = random.Random(0)
    unit = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=NUM_BYTES))
    text = unit if kind == "random letters" else kind * NUM_BYTES
    row: dict[str, Any] = {"text": f"1 MB of {kind!r}"}
    for who, encode in ({"ours": Tokenizer(file).encode} | peers(file)).items():
        start = time.process_time()
        encode(text)
        row[who] = time.process_time() - start
    record(row)


@pytest.mark.parametrize("size", [100, 4096])
def bench_latency(size: int, trained: Callable[[str], str], record: Record) -> None:
    """Median microseconds of one call on fresh slices of prose."""
    text, rng = corpus("prose"), random.Random(1)
    row: dict[str, Any] = {"bytes": size}
    file = trained("llama3")
    for who, encode in ({"ours": Tokenizer(file).encode} | peers(file)).items():
        encode(text)
        times = []
        for _ in range(300):
            at = rng.randrange(len(text) - size)
            piece = text[at : at + size]
            start = time.perf_counter()
            encode(piece)
            times.append(time.perf_counter() - start)
        row[who] = 1e6 * sorted(times)[len(times) // 2]
    record(row)


def bench_load_and_decode(trained: Callable[[str], str], record: Record) -> None:
    """Milliseconds to load the file; MB a second from a list of ids to text."""
    file = trained("llama3")
    text = corpus("prose")
    row: dict[str, Any] = {"vocabulary": len(json.loads(file)["model"]["vocab"])}
    for who, load in {"ours": Tokenizer, "tokenizers": Reference.from_str}.items():
        start = time.process_time()
        tokenizer = load(file)
        row[f"{who}_load_ms"] = 1e3 * (time.process_time() - start)
        encoded: Any = tokenizer.encode(text)
        ids = encoded if isinstance(encoded, list) else encoded.ids
        start = time.process_time()
        assert tokenizer.decode(ids) == text
        row[f"{who}_decode"] = len(text) / 1e6 / (time.process_time() - start)
    record(row)


@pytest.mark.parametrize("kind", [*KINDS, "logic"])
@pytest.mark.parametrize("name", ["llama3", "falcon"])
def bench_reasoning_tokens(
    name: str, kind: str, trained: Callable[[str], str], record: Record
) -> None:
    """Tokens before and after `extend_for_reasoning`, on text that is not in the vocabulary's."""
    base = Tokenizer(trained(name))
    text = corpus(kind)
    before, after = len(base.encode(text)), len(base.extend_for_reasoning().encode(text))
    row = {"pipeline": name, "text": kind, "base_tokens": before, "extended_tokens": after}
    record(row | {"change_percent": 100 * (after - before) / before})
