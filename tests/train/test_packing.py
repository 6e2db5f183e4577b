"""Packing places every document once, whole, and never learns what it should not."""

import json
import shutil
from itertools import accumulate, combinations, count, pairwise
from pathlib import Path
from random import Random

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_h1r import Tokenizer
from falcon_h1r.model.config import FalconH1Config
from falcon_h1r.model.model import FalconH1ForCausalLM
from falcon_h1r.train.batches import Batches
from falcon_h1r.train.config import load_recipe
from falcon_h1r.train.packing import Document, PackedRows, fill_best, pack_rows
from falcon_h1r.train.recipe_sft import SftRecipe
from falcon_h1r.train.stream import DocumentStream
from falcon_h1r.train.tasks import FAMILIES, is_held_out


def random_documents(seed: int, longest: int):  # type: ignore[no-untyped-def]
    rng = Random(seed)
    for ordinal in count():
        length = rng.randint(2, longest)
        ids = tuple(rng.randint(1, 30) for _ in range(length))
        yield Document(ordinal, ids, rng.randint(1, length - 1))


def encoder(vocabulary: Path) -> Tokenizer:
    return Tokenizer.from_pretrained(vocabulary)


def placed(rows: PackedRows) -> list[tuple[int, ...]]:
    bounds = rows.cu_seqlens.tolist()
    parts = [tuple(rows.input_ids[a:b].tolist()) for a, b in pairwise(bounds)]
    return [p for p in parts if any(p)]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), num_rows=st.integers(1, 4), longest=st.integers(4, 64))
def test_documents_are_whole_placed_once_and_masked(seed: int, num_rows: int, longest: int) -> None:
    by_ids = {}
    stream = random_documents(seed, longest)
    seen: list[int] = []
    pool: list[Document] = []
    drawn = []

    def watched():  # type: ignore[no-untyped-def]
        for document in stream:
            drawn.append(document.ordinal)
            by_ids[document.ordinal] = document
            yield document

    for _ in range(3):
        before = {d.ordinal for d in pool}
        rows = pack_rows(watched(), pool, num_rows, 64)
        now = (before | set(drawn)) - {d.ordinal for d in pool} - set(seen)
        expected = sorted(by_ids[o].token_ids for o in now)
        assert sorted(placed(rows)) == expected
        assert rows.num_documents == len(now)
        seen += now
        assert rows.cu_seqlens[0] == 0
        assert rows.cu_seqlens[-1] == rows.input_ids.size == num_rows * 64
        assert set(range(0, num_rows * 64 + 1, 64)) <= set(rows.cu_seqlens.tolist())
        learnt = sum(len(by_ids[o].token_ids) - by_ids[o].prompt_length for o in now)
        assert rows.loss_mask.sum() == learnt
        wanted = rows.loss_mask.nonzero()[0]
        assert (rows.targets[wanted] == rows.input_ids[wanted + 1]).all()
        inside = np.searchsorted(rows.cu_seqlens, [wanted, wanted + 1], side="right")
        assert (inside[0] == inside[1]).all()
        assert rows.num_tokens == sum(len(by_ids[o].token_ids) for o in now)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), max_size=9),
    room=st.integers(0, 40),
)
def test_the_best_filling_is_found(lengths: list[int], room: int) -> None:
    chosen = fill_best(lengths, room)
    assert chosen == sorted(set(chosen))
    sums = {sum(subset) for n in range(len(lengths) + 1) for subset in combinations(lengths, n)}
    assert sum(lengths[i] for i in chosen) == max(s for s in sums if s <= room)


def test_rows_of_the_reference_mix_are_full_in_two_lanes(vocabulary: Path) -> None:
    data = load_recipe(SftRecipe, "reference_sft").data
    stream = DocumentStream(
        encoder(vocabulary), families=data.families, levels=data.levels, seed=1, max_length=1024
    )
    batches = Batches(stream, lanes=[0, 1], num_lanes=2, rows=data.rows // 2, row_length=1024)
    fills = [rows.fill for _ in range(8) for rows in batches.draw()]
    assert np.mean(fills) >= 0.99


def test_the_stream_draws_the_same_document_from_its_number_and_never_a_held_out_one(
    vocabulary: Path,
) -> None:
    stream = DocumentStream(
        encoder(vocabulary), families=dict.fromkeys(FAMILIES, 1.0), levels={1: 1.0, 2: 1.0}, seed=9,
        max_length=384,
    )  # fmt: skip
    first = [stream.document(i) for i in range(30)]
    assert first[7:12] == [next(d) for d in [stream.documents(7)] for _ in range(5)]
    assert not any(is_held_out(stream._problem(Random(i))) for i in range(1500))


def test_documents_are_asked_and_end_as_their_tokenizer_says(
    vocabulary: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(vocabulary, other)
    config = json.loads((other / "tokenizer_config.json").read_text())
    config["chat_template"] = "Q: {{ messages[-1].content }} A:"
    config["eos_token"] = config["pad_token"]
    (other / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = encoder(other)
    stream = DocumentStream(
        tokenizer, families={"sums": 1.0}, levels={1: 1.0}, seed=9, max_length=384,
        two_turn_share=0.5,
    )  # fmt: skip
    for document in map(stream.document, range(20)):
        prompt = tokenizer.decode(list(document.token_ids[: document.prompt_length]))
        assert prompt.startswith("Q: ") and prompt.endswith(" A:")
        assert document.token_ids[-1] == tokenizer.eos_token_id == tokenizer.pad_token_id
    del config["chat_template"]
    (other / "tokenizer_config.json").write_text(json.dumps(config))
    bare = DocumentStream(
        encoder(other), families={"sums": 1.0}, levels={1: 1.0}, seed=9, max_length=384,
        two_turn_share=0.5,
    )  # fmt: skip
    problems = {bare._problem(Random(f"train 9 {i}")).problem for i in range(20)}
    asked = [bare.document(i) for i in range(20)]
    assert {tokenizer.decode(list(d.token_ids[: d.prompt_length])) for d in asked} == problems


def tiny_model() -> FalconH1ForCausalLM:
    config = FalconH1Config(
        vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=4, mamba_d_ssm=16, mamba_n_heads=4,
        mamba_n_groups=2, mamba_d_state=4, tie_word_embeddings=True, key_multiplier=0.5,
        initializer_range=0.3,
    )  # fmt: skip
    model = FalconH1ForCausalLM(config).double()
    model.reset_parameters(1)
    return model


def test_packed_loss_and_gradients_equal_one_document_at_a_time() -> None:
    model = tiny_model()
    pool: list[Document] = []
    documents = {}

    def watched():  # type: ignore[no-untyped-def]
        for document in random_documents(4, 50):
            documents[document.token_ids] = document
            yield document

    rows = pack_rows(watched(), pool, 3, 96)
    wanted = torch.from_numpy(rows.loss_mask.nonzero()[0])
    targets = torch.from_numpy(rows.targets)[wanted]
    hidden = model.hidden_packed(
        torch.from_numpy(rows.input_ids), torch.from_numpy(rows.cu_seqlens)
    )
    packed = model.token_losses(hidden[wanted], targets).sum()
    packed.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    total = torch.zeros((), dtype=torch.float64)
    for ids in placed(rows):
        learnt = documents[ids].prompt_length
        logits = model(torch.tensor([ids]))[0, learnt - 1 : -1]
        answer = torch.tensor(ids[learnt:])
        total = total + torch.nn.functional.cross_entropy(logits, answer, reduction="sum")
    total.backward()
    torch.testing.assert_close(packed, total, rtol=1e-10, atol=1e-10)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-8, atol=1e-10)


def random_model() -> FalconH1ForCausalLM:
    """Widths of the reference model, so that the products take the paths that training takes."""
    recipe = load_recipe(SftRecipe, "reference_sft")
    fields = {**recipe.model, "vocab_size": 512, "tie_word_embeddings": True}
    model = FalconH1ForCausalLM(FalconH1Config.from_dict(fields))
    model.reset_parameters(1)
    return model


LENGTHS = (37, 120, 1, 64, 90, 200)


def random_texts() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(1, 512, (length,), generator=generator) for length in LENGTHS]


@torch.no_grad()
def test_a_document_alone_padded_and_packed_has_the_same_bits() -> None:
    model, texts = random_model(), random_texts()
    bounds = [0, *accumulate(LENGTHS)]
    packed = model.hidden_packed(torch.cat(texts), torch.tensor(bounds, dtype=torch.int32))
    padding = torch.zeros(256, dtype=torch.int64)
    rows = torch.stack([torch.cat([text, padding[len(text) :]]) for text in texts])
    ends = torch.arange(0, rows.numel() + 1, 256, dtype=torch.int32)
    padded = model.hidden_packed(rows.flatten(), ends).view(len(texts), 256, -1)
    for i, text in enumerate(texts):
        alone = model.hidden_packed(text, torch.tensor([0, len(text)], dtype=torch.int32))
        assert torch.equal(packed[bounds[i] : bounds[i + 1]], alone)
        assert torch.equal(padded[i, : len(text)], alone)


def test_training_sees_no_neighbour_to_the_bit() -> None:
    """The same rows of a matrix product, other documents around: hidden states and losses."""
    model, texts = random_model(), random_texts()
    bounds = torch.tensor([0, *accumulate(LENGTHS)], dtype=torch.int32)
    ids = torch.cat(texts)
    first = model.hidden_packed(ids, bounds)
    for i, (start, end) in enumerate(pairwise(bounds.tolist())):
        other = torch.randint(1, 512, ids.shape, generator=torch.Generator().manual_seed(i))
        other[start:end] = ids[start:end]
        hidden = model.hidden_packed(other, bounds)
        assert torch.equal(hidden[start:end], first[start:end])
        assert hidden.requires_grad
        wanted, targets = hidden[start:end], ids[start:end]
        expected = model.token_losses(first[start:end], targets)
        assert torch.equal(model.token_losses(wanted, targets), expected)
