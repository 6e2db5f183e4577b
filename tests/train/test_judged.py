"""Traces judged and measured: against each prefix, kept, and gone on with after a stop."""

import resource
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from falcon_h1r import LLM, FalconH1Config, FalconH1ForCausalLM
from falcon_h1r.errors import TrainingError
from falcon_h1r.train import judged as room
from falcon_h1r.train.calibration import MEASURES, JudgedTrace
from falcon_h1r.train.judged import (
    Part,
    TraceStore,
    judged_traces,
    measure_confidences,
    sample_and_judge,
)
from falcon_h1r.train.tasks import held_out_problems


def test_confidences_are_those_of_each_prefix() -> None:
    config = FalconH1Config(
        vocab_size=200, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, mamba_d_ssm=16, mamba_n_heads=2,
        mamba_d_state=4, tie_word_embeddings=True, initializer_range=0.5,
    )  # fmt: skip
    model = FalconH1ForCausalLM(config)
    model.reset_parameters(2)
    prompt, outputs = [5, 9, 7], [[3, 150, 8, 2], [11], [4, 4, 60]]
    measured = measure_confidences(model, prompt, outputs)
    assert len(measured) == 3
    for output, ours in zip(outputs, measured, strict=True):
        assert {len(values) for values in ours.values()} == {len(output)}
        for i, token in enumerate(output):
            logprobs = model(torch.tensor([prompt + output[:i]]))[0, -1].double().log_softmax(-1)
            top = -logprobs.sort(descending=True).values[:20].mean()
            entropy = (logprobs.exp() * logprobs).sum()
            expected = {"top_logprobs": top, "logprob": logprobs[token], "entropy": entropy}
            for name, value in expected.items():
                assert ours[name][i] == pytest.approx(value.item(), abs=1e-5)


class Asked:
    """Stands for an LLM: keeps what it is asked, and gives one trace that met a NaN at once."""

    tokenizer = model = folder = None
    thinking_defaults = SimpleNamespace(system_prompt=None)

    def __init__(self, partial: bool = False) -> None:
        self.asked: list[str] = []
        self.partial = partial

    def thinking(self, problems: list[str], config: object, seeds: list[int]) -> SimpleNamespace:
        self.asked.extend(problems)
        failed = SimpleNamespace(stopped_by="error", token_ids=[], answer=None)
        results = [SimpleNamespace(traces=[failed], partial=self.partial) for _ in seeds]
        return SimpleNamespace(run=lambda: results)


def test_problems_of_the_evaluation_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "encode_prompt", lambda tokenizer, problem, system: [])
    monkeypatch.setattr(room, "describe_model", lambda llm: {"weights": "", "dtype": ""})
    llm = Asked()
    found = judged_traces(
        cast(LLM, llm),
        families=["booleans"],
        levels=[1],
        problems=12,
        traces=1,
        store=tmp_path / "s",
    )
    assert found == []
    assert 0 < len(llm.asked) < 12
    assert not set(llm.asked) & {p.problem for p in held_out_problems("booleans", 100, level=1)}


def test_other_words_for_a_problem_of_the_evaluation_are_no_other_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "encode_prompt", lambda tokenizer, problem, system: [])
    monkeypatch.setattr(room, "describe_model", lambda llm: {"weights": "", "dtype": ""})
    llm = Asked()
    ways = {"families": ["products"], "levels": [2], "problems": 16, "traces": 1}
    judged_traces(cast(LLM, llm), **ways, store=tmp_path / "s")  # type: ignore[arg-type]
    own = held_out_problems("products", 16, level=2, seed=room.CALIBRATION_SEED)
    evaluated = {p.keys[0] for p in held_out_problems("products", 100, level=2)}
    assert llm.asked == [p.problem for p in own if p.keys[0] not in evaluated]
    assert 0 < len(llm.asked) < len(own)


def test_what_ctrl_c_cut_short_is_not_judged() -> None:
    """`think` gives back what it has; a choice by that would be another one."""
    with pytest.raises(KeyboardInterrupt):
        sample_and_judge(cast(LLM, Asked(partial=True)), [("What is 1 + 1?", "2")], 1)


def equal_traces(ours: list[JudgedTrace], theirs: list[JudgedTrace]) -> bool:
    def flat(trace: JudgedTrace) -> tuple[object, ...]:
        values = [trace.confidences[measure].tobytes() for measure in MEASURES]
        return trace.problem, trace.answer_class, trace.is_right, *values

    return [flat(trace) for trace in ours] == [flat(trace) for trace in theirs]


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of each family and level; products at level 1 are a drill, none of which is held out, and
    one at level 2 is of the evaluation in other words."""
    sizes = {"families": ["sums", "products"], "levels": [1, 2], "problems": 2, "traces": 2}
    seen: list[Part] = []
    sampled: list[int] = []

    def once(llm: LLM, problems: list[tuple[str, str]], traces: int) -> list[JudgedTrace]:
        if sampled:
            raise KeyboardInterrupt
        sampled.append(len(problems))
        return sample_and_judge(llm, problems, traces)

    with LLM() as llm:
        whole = judged_traces(llm, **sizes, store=tmp_path / "whole", watch=seen.append)  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            patch.setattr(room, "sample_and_judge", once)
            with pytest.raises(KeyboardInterrupt):
                judged_traces(llm, **sizes, store=tmp_path / "cut")  # type: ignore[arg-type]
        kept: list[Part] = []
        again = judged_traces(llm, **sizes, store=tmp_path / "cut", watch=kept.append)  # type: ignore[arg-type]
    assert equal_traces(again, whole)
    assert [part.name for part in kept] == ["sums@1", "sums@2", "products@1", "products@2"]
    assert [part.kept for part in kept] == [True, False, False, False]
    assert [part.right for part in kept] == [part.right for part in seen]
    assert {trace.problem for trace in whole} == set(range(5))
    assert [trace.problem for trace in whole] == sorted(trace.problem for trace in whole)
    assert len(whole) > 8
    lengths = [{len(values) for values in trace.confidences.values()} for trace in whole]
    assert all(len(each) == 1 for each in lengths)


def made(rng: np.random.Generator, count: int) -> list[JudgedTrace]:
    return [
        JudgedTrace(
            problem=i // 3,
            answer_class=None if i % 4 == 0 else int(rng.integers(5)),
            is_right=bool(rng.integers(2)),
            confidences=dict.fromkeys(MEASURES, rng.normal(size=int(rng.integers(1, 9)))),
        )
        for i in range(count)
    ]


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    store = TraceStore(tmp_path / "store", "one")
    for count in (0, 1, 7):
        given = made(rng, count)
        store.put(f"sums@{count}", given)
        found = TraceStore(tmp_path / "store", "one").get(f"sums@{count}")
        assert found is not None and equal_traces(found, given)
    assert store.get("sums@2") is None
    for damage in (b"", b"PK\x03\x04", (tmp_path / "store" / "sums@7.npz").read_bytes()[:300]):
        (tmp_path / "store" / "sums@7.npz").write_bytes(damage)
        assert store.get("sums@7") is None
    assert TraceStore(tmp_path / "store", "another").get("sums@1") is None
    assert TraceStore(tmp_path / "store", "one").get("sums@1") is None


def test_a_full_disk_leaves_what_was_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    store = TraceStore(tmp_path, "one")
    first = made(rng, 3)
    store.put("sums@1", first)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))  # writes beyond it fail, as if full
    try:
        with pytest.raises(
            TrainingError, match=r"could not write .*sums@2.*; make room and resume"
        ):
            store.put("sums@2", made(rng, 900))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    found = store.get("sums@1")
    assert found is not None and equal_traces(found, first)
    assert store.get("sums@2") is None
