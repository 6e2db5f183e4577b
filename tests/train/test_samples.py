"""Samples: a round trip through JSON, tokens as generation and SFT see them, a fair stream."""

import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_h1r import Tokenizer, reference_model_path
from falcon_h1r.errors import ConfigError, TrainingError
from falcon_h1r.train.checkpoint import write_folder
from falcon_h1r.train.samples import (
    CuratedStream,
    Sample,
    encode_sample,
    permuted,
    read_samples,
    sample_from_json,
    sample_to_json,
    write_shard,
)
from falcon_h1r.train.stream import TURN_END, prompt_text
from falcon_h1r.train.tasks import FAMILIES


def sample(number: int, family: str = "sums") -> Sample:
    problem = FAMILIES[family].generate(Random(f"{family} {number}"), 2)
    return Sample(
        problem=problem.problem,
        thought=problem.thought,
        answer=problem.answer,
        family=family,
        level=2,
        source="ours",
        style="generated",
    )


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_pretrained(reference_model_path())


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("samples") / "set"
    samples = [sample(i, family) for family in ("sums", "lies") for i in range(20)]

    def fill(target: Path) -> None:
        write_shard(target, 0, samples[:13], tokenizer)
        write_shard(target, 1, samples[13:], tokenizer)

    write_folder(folder, fill)
    return folder


text = st.text(st.characters(exclude_categories=["Cs"]))


@given(text, text, text, st.integers(0, 3), st.none() | st.floats(0, 1))
def test_json_round_trip(a: str, b: str, c: str, level: int, rate: float | None) -> None:
    given_sample = Sample(
        problem=a, thought=b, answer=c, family=a, level=level, source=b, style=c, pass_rate=rate
    )
    line = sample_to_json(given_sample)
    assert "\n" not in line
    assert sample_from_json(line) == given_sample


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem": 3}, "problem is 3"),
        ({"level": True}, "level is True"),
        ({"extra": 1}, "not an object with the keys"),
    ],
)
def test_a_bad_line_is_named(change: dict[str, object], message: str, tmp_path: Path) -> None:
    row = json.loads(sample_to_json(sample(0))) | change
    path = tmp_path / "samples.jsonl"
    path.write_text(sample_to_json(sample(0)) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(TrainingError, match=f"line 2 of .*{message}"):
        list(read_samples(path))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_tokens_are_those_of_generation_and_training(family: str, tokenizer: Tokenizer) -> None:
    for number in range(5):
        made = sample(number, family)
        prompt, response = encode_sample(tokenizer, made)
        assert prompt == tokenizer.encode(prompt_text(made.problem))
        assert response == tokenizer.encode(made.response + TURN_END)


def test_no_text_spells_a_control_token(tokenizer: Tokenizer) -> None:
    made = Sample(
        problem="a<|im_end|>", thought="b</think><|im_end|>", answer="c<|im_end|>",
        family="x", level=0, source="x", style="x",
    )  # fmt: skip
    prompt, response = encode_sample(tokenizer, made)
    [end] = tokenizer.encode(TURN_END)
    [close] = tokenizer.encode("</think>")
    assert prompt.count(end) == 1
    assert response.count(end) == 1
    assert response.count(close) == 1


@given(st.integers(1, 300), st.integers(0, 1 << 40))
def test_a_shuffle_is_a_permutation(size: int, key: int) -> None:
    assert sorted(permuted(i, size, key) for i in range(size)) == list(range(size))


def test_a_shuffle_mixes() -> None:
    places = [permuted(0, 50, key) for key in range(1000)]
    assert len(set(places)) == 50
    assert max(Counter(places).values()) < 55
    pairs = Counter((permuted(0, 4, key), permuted(1, 4, key)) for key in range(1200))
    assert len(pairs) == 12
    assert max(pairs.values()) < 170


def test_every_epoch_draws_every_document_once(curated: Path) -> None:
    stream = CuratedStream(curated, seed=3, max_length=1024)
    assert len(stream) == 40
    epochs = [[stream.document(e * 40 + i).token_ids for i in range(40)] for e in range(3)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
    assert epochs[0] != epochs[1] != epochs[2]
    again = CuratedStream(curated, seed=3, max_length=1024)
    assert again.document(57) == stream.document(57)
    assert [d.ordinal for d, _ in zip(stream.documents(5), range(3), strict=False)] == [5, 6, 7]


def test_documents_are_the_samples(curated: Path, tokenizer: Tokenizer) -> None:
    stream = CuratedStream(curated, seed=0, max_length=1024)
    drawn = {(d.token_ids, d.prompt_length) for d in map(stream.document, range(len(stream)))}
    expected = set()
    for path in sorted(curated.glob("samples-*.jsonl")):
        for made in read_samples(path):
            prompt, response = encode_sample(tokenizer, made)
            expected.add(((*prompt, *response), len(prompt)))
    assert drawn == expected


def test_long_documents_are_left_out(curated: Path) -> None:
    whole = CuratedStream(curated, seed=0, max_length=1024)
    lengths = sorted(len(whole.document(i).token_ids) for i in range(len(whole)))
    stream = CuratedStream(curated, seed=0, max_length=lengths[10])
    assert stream.num_too_long == sum(n > lengths[10] for n in lengths)
    assert all(len(stream.document(i).token_ids) <= lengths[10] for i in range(100))
    with pytest.raises(ConfigError, match=f"shortest has {lengths[0]} tokens"):
        CuratedStream(curated, seed=0, max_length=lengths[0] - 1)


def test_a_damaged_set_is_refused(curated: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a curated set"):
        CuratedStream(tmp_path, seed=0, max_length=64)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in curated.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    shard = copy / "tokens-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    with pytest.raises(TrainingError, match=r"tokens-00001\.safetensors has another SHA-256"):
        CuratedStream(copy, seed=0, max_length=1024)
