"""The same ids as tiktoken, on a vocabulary trained here (tiktoken's own would be downloaded)."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tokenizers import Regex
from tokenizers import Tokenizer as Trained
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer

from falcon_h1r import Tokenizer

pytestmark = pytest.mark.peers

PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

SCRIPT = """
import base64, json, sys, tiktoken
given = json.load(sys.stdin)
ranks = {base64.b64decode(token): rank for token, rank in given["ranks"].items()}
encoding = tiktoken.Encoding(
    "x", pat_str=given["pattern"], mergeable_ranks=ranks, special_tokens={}
)
print(json.dumps([encoding.encode_ordinary(text) for text in given["texts"]]))
"""


def sentences(count: int) -> list[str]:
    """Text with letters of several scripts, digits, spaces of all kinds and marks."""
    rng = Random(0)
    words = ["the", "sum", "of", "naïve", "Straße", "число", "数", "²³", "x1", "don't", "∀x", "\t"]
    marks = [" ", "  ", "\n", ", ", " = ", "(", ") ", "! ", "\r\n\r\n", "\u00a0"]
    return [
        "".join(
            rng.choice(words) + rng.choice(marks) + str(rng.randrange(10 ** rng.randint(1, 6)))
            for _ in range(rng.randint(1, 12))
        )
        for _ in range(count)
    ]


def test_ids_are_equal(peer: Callable[[str, Any], Any], tmp_path: Path) -> None:
    trained = Trained(BPE())
    split = Split(Regex(PATTERN), behavior="isolated")
    trained.pre_tokenizer = Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = BpeTrainer(
        vocab_size=2000, initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    trained.train_from_iterator(sentences(3000), trainer)
    path = tmp_path / "tokenizer.json"
    trained.save(str(path))

    ours = Tokenizer.from_file(str(path))
    vocabulary = json.loads(path.read_text())["model"]["vocab"]
    ranks = {
        base64.b64encode(bytes(byte_of(letter) for letter in token)).decode(): rank
        for token, rank in vocabulary.items()
    }
    texts = sentences(500)
    theirs = peer(SCRIPT, {"ranks": ranks, "pattern": PATTERN, "texts": texts})
    assert [ours.encode(text) for text in texts] == theirs


def byte_of(letter: str) -> int:
    """The byte a letter of the byte-level alphabet stands for (GPT-2's table)."""
    code = ord(letter)
    if code < 256:
        return code
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    return [byte for byte in range(256) if byte not in printable][code - 256]
