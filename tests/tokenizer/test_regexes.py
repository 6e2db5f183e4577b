"""Regular expressions of files mean what they mean to the reference, or are refused."""

import json
import random

import pytest
from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Reference

from falcon_h1r.errors import TokenizerError
from falcon_h1r.tokenizer import Tokenizer

LETTERS = list("aBxXfo '²½ß.,:;+]-~~\n\n1٣9_é́‿K\u017f")
SAME = [
    r"\w+", r"[\w]+", r"[^\w]+", r"[\W]+", r"[^\W]+", r"[^\W\d]", r"[^\w\s]+", r" ?[^\s\w]+",
    r"\p{Word}+", r"[\p{Word}]+", r"\P{Word}+", r"\p{^Word}+",
    r"\d{1,3}(?=(?:\d{3})*\b)", r"a\b", r"\b\w", r"\B.", r"\bfo\b|\d+",
    r"(?m).+", r"(?m:.+)", r"(?im).+", r"(?-m).+",
    r"(?i)\p{Lu}+", r"(?i)[A-Z]+", r"(?i)\p{L}+", r"(?i:'s|'x)", r"(?i:x)\p{Lu}",
    r"((?i)x|\p{Ll}+)B", r"[:;]|[,:]", r"[[:punct:]]", r"[]a]+", r"[^]a]+",
    r"ab(?i)x|B", r"(?:a(?i)b|x)f|o", r"(?i)x(?-i)a|b", r"(?m)x.|(?i)(?-m).o",
    r"(?i)[^\w]x", r"(?i)[a-z]+", r"(?i)[^ß]", r"(?i)\wx", r"(?i)\x{78}o", r"(?i:'[sdmt]|'ll|'ve)",
    r"[~~]+", r"[a~~b]+", r"[--a]+", r"[^-a]+", r"[-[x]]+", r"[x]-[y]", r"x\Z", r"\Z", r"\n\Z",
    r"^.", r"\n(?!^)", r".(?<!^)",
    r"(?<=x)o", r"(?<!\w)[fo]", r"(?<=a|xx).", r"(?<=\bx).",
]  # fmt: skip
REFUSED = [
    r"\p{Print}+", r"[\p{Graph}]", r"(?i)[\p{Lu}]", r"(?i:ss)", r"(?i)ß", r"[[:alpha:]]",
    r"(?i)ẞ", r"(?i)ff", r"(?i)µ́|ΐ", r"(?i)f\x69", r"(?i)\u00DF", r"(?i)(?:s)s",
    r"(?i)[ß]", r"(?i)[Þ-à]x", r"(?i)[\p{L}]x", r"(?i)[\w]x", r"(?i)[^[^a]]",
    r"(?x)a b", r"(?#[)\w", r"[#--]+", r"[a,-[x]]", r"[ -&&x]",
    r"(?<=x*+)a", r"(?<=x+?)a", r"(?<=(?>x))a", r"(?<!x(?<=o))a",
]  # fmt: skip


def words_are_tokens(pattern: str, texts: list[str]) -> str:
    """A file that splits by a pattern, and in which every word of the texts is one token."""
    reference = Reference(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    reference.pre_tokenizer = pre_tokenizers.Sequence([split, letters])
    words = {w for text in texts for w, _ in reference.pre_tokenizer.pre_tokenize_str(text)}
    file = json.loads(reference.to_str())
    every = sorted(words.union(pre_tokenizers.ByteLevel.alphabet()))
    file["model"] |= {"vocab": {w: i for i, w in enumerate(every)}, "ignore_merges": True}
    return json.dumps(file)


@pytest.mark.parametrize("pattern", SAME)
def test_an_expression_splits_as_the_reference_does(pattern: str) -> None:
    rng = random.Random(pattern)
    texts = ["".join(rng.choices(LETTERS, k=rng.randint(1, 8))) for _ in range(200)]
    file = words_are_tokens(pattern, texts)
    reference, ours = Reference.from_str(file), Tokenizer(file)
    for text in texts:
        assert ours.encode(text) == reference.encode(text).ids, text


@pytest.mark.parametrize("pattern", REFUSED)
def test_an_expression_that_would_split_otherwise_is_refused(pattern: str) -> None:
    with pytest.raises(TokenizerError, match="regular expression"):
        Tokenizer(words_are_tokens(pattern, ["a"]))
