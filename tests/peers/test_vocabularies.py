"""The ids of tiktoken and of Hugging Face `tokenizers` on vocabularies in use.

Packages of the peers' environment carry them: cl100k, o200k and Qwen 3 (quicktok), tekken
(mistral-common). A `tokenizer.json` is made of each as files of the hub are: every way to cut a
token into two others is a merge, in the order of the tokens' ranks.
"""

import base64
import json
import sysconfig
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tokenizers import Tokenizer as Reference

from falcon_h1r import Tokenizer

pytestmark = pytest.mark.peers

SCRIPT = r"""
import base64, json, re, struct, sys
from importlib.resources import files
import tiktoken

given = json.load(sys.stdin)
name, texts = given["name"], given["texts"]

def bundled(file):
    data, at, ranks = files("quicktok").joinpath("data", file).read_bytes(), 4, {}
    for _ in range(struct.unpack_from("<I", data)[0]):
        size = struct.unpack_from("<H", data, at)[0]
        token = data[at + 2 : at + 2 + size]
        ranks[token] = struct.unpack_from("<I", data, at + 2 + size)[0]
        at += 6 + size
    assert at == len(data)
    return ranks

if name == "tekken":
    file = json.loads(files("mistral_common").joinpath("data", "tekken_240911.json").read_text())
    size = file["config"]["default_vocab_size"] - file["config"]["default_num_special_tokens"]
    ranks = {base64.b64decode(t["token_bytes"]): t["rank"] for t in file["vocab"][:size]}
    pattern = file["config"]["pattern"]
elif name == "qwen3":
    ranks, pattern = bundled("qwen3.vocab"), given["pattern"]
else:
    # tiktoken's own expression; its vocabulary would be downloaded.
    from tiktoken_ext import openai_public
    ranks = bundled(name + ".vocab")
    openai_public.load_tiktoken_bpe = lambda *args, **kwargs: ranks
    pattern = getattr(openai_public, name + "_base")()["pat_str"]
encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
print(json.dumps({
    "ranks": {base64.b64encode(token).decode(): rank for token, rank in ranks.items()},
    "ids": [encoding.encode_ordinary(text) for text in texts],
}))
"""

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
)
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_OPTIONAL = _CONTRACTION + "?"
PATTERNS = {
    "cl100k": rf"{_WORDS}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",
    "qwen3": rf"{_WORDS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",
    "o200k": (_CASED % (_OPTIONAL, _OPTIONAL))
    + rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}",
    "tekken": (_CASED % ("", "")) + rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}",
}


def letters() -> list[str]:
    """The letter of each byte in the byte-level alphabet (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {byte: chr(byte) for byte in printable}
    return [table.get(byte) or chr(256 + others.index(byte)) for byte in range(256)]


def tokenizer_json(ranks: dict[bytes, int], pattern: str) -> str:
    """The file that converts a table of ranks."""
    alphabet = letters()

    def spelled(token: bytes) -> str:
        return "".join(alphabet[byte] for byte in token)

    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        cuts = [(token[:at], token[at:]) for at in range(1, len(token))]
        known = [cut for cut in cuts if cut[0] in ranks and cut[1] in ranks]
        known.sort(key=lambda cut: (ranks[cut[0]], ranks[cut[1]]))
        merges += [[spelled(left), spelled(right)] for left, right in known]
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    spell = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
             "use_regex": False}  # fmt: skip
    model = {"type": "BPE", "vocab": {spelled(token): rank for token, rank in ranks.items()},
             "merges": merges, "ignore_merges": True}  # fmt: skip
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": [],
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, spell]},
            "decoder": spell,
            "model": model,
        }
    )


def texts() -> list[str]:
    """Sources of Python, and random texts of many scripts, spaces, marks and digits."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    sources = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("a*.py"))]
    rng = Random(4)
    words = [
        "the", "The", "HTTPServer", "naïve", "Straße", "число", "数学", "한국어", "हिन्दी", "²³",
        "x1", "don't", "WE'LL", "∀x", "👍🏽", "e\u0301", "ǅ", "\t", "12345", "\\frac", "٣٤",
        "a\u200db", "/*",
    ]  # fmt: skip
    marks = [" ", "  ", "\n", ", ", " = ", "(", ") ", "! ", "\r\n\r\n", "\u00a0", "", "/", "   \n "]
    return sources + [
        "".join(rng.choice(words) + rng.choice(marks) for _ in range(rng.randint(1, 30)))
        for _ in range(5_000)
    ]


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_ids_are_equal(name: str, peer: Callable[[str, Any], Any]) -> None:
    given = texts()
    answer = peer(SCRIPT, {"name": name, "pattern": PATTERNS[name], "texts": given})
    ranks = {base64.b64decode(token): rank for token, rank in answer["ranks"].items()}
    assert len(ranks) > 100_000
    file = tokenizer_json(ranks, PATTERNS[name])
    ours = Tokenizer(file).encode_batch(given)
    theirs = [e.ids for e in Reference.from_str(file).encode_batch_fast(given)]
    for text, got, by_tiktoken, by_tokenizers in zip(
        given, ours, answer["ids"], theirs, strict=True
    ):
        assert got == by_tokenizers, text
        assert got == by_tiktoken, text
    assert Tokenizer(file).decode_batch(ours) == given
