"""The binding: shapes, dtypes, the life of a request, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from falcon_h1r._rust import DeepConfPolicy, Event, Plan, Scheduler
from falcon_h1r.errors import ConfigError, RequestError

SIZES = {
    "num_blocks": 1000,
    "block_size": 16,
    "num_slots": 65,
    "max_num_seqs": 64,
    "max_num_batched_tokens": 256,
    "chunk_size": 128,
    "max_model_len": 4096,
}


def prompt(length: int) -> NDArray[np.uint32]:
    return np.arange(100, 100 + length, dtype=np.uint32)


def commit(scheduler: Scheduler, plan: Plan, confidence: float = 1.0, flag: int = 0) -> list[Event]:
    rows = plan.sample_rows.size
    return scheduler.commit(
        plan.id,
        np.full(rows, 7, dtype=np.uint32),
        np.full(rows, confidence, dtype=np.float32),
        np.full(rows, flag, dtype=np.uint8),
    )


def next_plan(scheduler: Scheduler) -> Plan:
    plan = scheduler.schedule()
    assert plan is not None
    return plan


def test_one_prompt_of_512_for_64_traces_is_computed_once() -> None:
    scheduler = Scheduler(**SIZES)
    scheduler.add_request(9, prompt(512), num_traces=64, max_tokens=5)
    first = next_plan(scheduler)
    assert first.token_ids.tolist() == list(range(100, 356))
    assert first.positions.tolist() == list(range(256))
    assert first.sample_rows.size == 0
    commit(scheduler, first)
    second = next_plan(scheduler)
    assert second.seq_lens.tolist() == [512]
    assert second.has_initial_state.tolist() == [True]
    # All traces draw their first token from the prompt's last row.
    assert second.sample_rows.tolist() == [255] * 64
    assert second.sample_traces.tolist() == list(range(64))
    assert second.sample_positions.tolist() == [512] * 64
    assert second.sample_output_lens.tolist() == [0] * 64
    assert commit(scheduler, second) == []
    third = next_plan(scheduler)
    # 512 tokens fill whole blocks, which are shared: nothing but states is copied, and the last
    # trace takes the owner's.
    assert third.block_copies.shape == (0, 2)
    assert third.slot_copies.shape == (63, 2)
    assert len(set(third.state_slots.tolist())) == 64
    assert (third.block_tables[:, :32] == third.block_tables[0, :32]).all()
    assert len(set(third.block_tables[:, 32].tolist())) == 64
    assert scheduler.stats()["num_blocks_used"] == 32 + 64
    started = commit(scheduler, third)
    assert [(e.kind, e.trace_index) for e in started] == [("started", i) for i in range(64)]
    kinds = [e.kind for _ in range(3) for e in commit(scheduler, next_plan(scheduler))]
    assert kinds == ["finished"] * 64 + ["request_finished"]
    assert scheduler.schedule() is None
    stats = scheduler.stats()
    assert stats["num_prompt_tokens_computed"] == 512
    assert stats["num_generated_tokens"] == 64 * 5
    assert stats["num_blocks_used"] == stats["num_slots_used"] == stats["num_preemptions"] == 0


def test_a_partial_block_is_copied_on_write() -> None:
    scheduler = Scheduler(**SIZES)
    scheduler.add_request(0, prompt(20), num_traces=3, max_tokens=5)
    prefill = next_plan(scheduler)
    commit(scheduler, prefill)
    plan = next_plan(scheduler)
    owner_blocks = prefill.block_tables[0].tolist()
    assert plan.block_copies[:, 0].tolist() == [owner_blocks[1]] * 2
    assert plan.block_tables[:, 0].tolist() == [owner_blocks[0]] * 3
    assert plan.block_tables[:, 1].tolist() == [*plan.block_copies[:, 1], owner_blocks[1]]
    assert plan.slot_mapping.tolist() == [16 * b + 4 for b in plan.block_tables[:, 1]]
    assert plan.slot_copies.tolist() == [[prefill.state_slots[0], s] for s in plan.state_slots[:2]]
    assert plan.state_slots[2] == prefill.state_slots[0]


def test_shapes_and_dtypes() -> None:
    scheduler = Scheduler(**SIZES)
    scheduler.add_request(0, prompt(20), num_traces=2, max_tokens=50)
    commit(scheduler, next_plan(scheduler))
    scheduler.add_request(1, prompt(40), num_traces=1, max_tokens=50)
    plan = next_plan(scheduler)
    shapes = {
        "token_ids": ("uint32", (42,)),
        "positions": ("int64", (42,)),
        "cu_seqlens": ("int32", (4,)),
        "seq_lens": ("int32", (3,)),
        "slot_mapping": ("int64", (42,)),
        "block_tables": ("int32", (3, 3)),
        "state_slots": ("int64", (3,)),
        "has_initial_state": ("bool", (3,)),
        "block_copies": ("int64", (1, 2)),
        "slot_copies": ("int64", (1, 2)),
        "sample_rows": ("int64", (3,)),
        "sample_request_ids": ("uint64", (3,)),
        "sample_traces": ("uint32", (3,)),
        "sample_positions": ("int64", (3,)),
        "sample_output_lens": ("int64", (3,)),
    }
    got = {name: getattr(plan, name) for name in shapes}
    assert {name: (str(a.dtype), a.shape) for name, a in got.items()} == shapes
    assert all(a.flags.c_contiguous and a.flags.writeable for a in got.values())
    assert plan.cu_seqlens.tolist() == [0, 1, 2, 42]
    assert plan.seq_lens.tolist() == [21, 21, 40]
    assert plan.has_initial_state.tolist() == [True, True, False]
    assert plan.block_tables[0, 2] == 0  # padding


def test_errors_stop_one_trace_only() -> None:
    scheduler = Scheduler(**SIZES)
    scheduler.add_request(0, prompt(20), num_traces=4, max_tokens=50)
    plan = next_plan(scheduler)
    confidences = np.array([1, math.nan, math.inf, 1], dtype=np.float32)
    flags = np.array([2, 0, 0, 1], dtype=np.uint8)
    events = scheduler.commit(plan.id, np.arange(4, dtype=np.uint32), confidences, flags)
    ended = [(e.trace_index, e.reason) for e in events if e.kind == "finished"]
    assert ended == [(0, "error"), (1, "error"), (2, "error"), (3, "stop")]
    assert events[-1].kind == "request_finished"
    assert scheduler.trace_output(0, 1)[0].size == 0
    tokens, kept = scheduler.trace_output(0, 3)
    assert (tokens.tolist(), tokens.dtype, kept.tolist(), kept.dtype) == (
        [3],
        np.uint32,
        [1.0],
        np.float32,
    )


def run_online(confidence_of_trace: list[float]) -> tuple[Scheduler, list[Event]]:
    """Six traces of 8 tokens with a constant confidence each, two of them warm-up."""
    scheduler = Scheduler(**SIZES)
    deepconf = DeepConfPolicy(
        mode="online", warmup=2, keep=0.5, window=4, vote="lowest_group", consensus=0.9
    )
    scheduler.add_request(5, prompt(20), num_traces=6, max_tokens=8, deepconf=deepconf)
    events = []
    while (plan := scheduler.schedule()) is not None:
        values = np.array([confidence_of_trace[t] for t in plan.sample_traces], dtype=np.float32)
        zeros = np.zeros(values.size)
        new = scheduler.commit(plan.id, zeros.astype(np.uint32), values, zeros.astype(np.uint8))
        for event in new:
            if event.kind == "finished" and event.reason == "length":
                assert event.trace_index is not None
                new = [*new, *scheduler.set_answer(5, event.trace_index, 0)]
        events += new
    return scheduler, events


def test_deepconf_online() -> None:
    scheduler, events = run_online([2.0, 4.0, 1.0, 3.0, 2.5, 5.0])
    thresholds = [e.value for e in events if e.kind == "threshold"]
    assert thresholds == [3.0]
    ends = {e.trace_index: (e.reason, e.value) for e in events if e.kind == "finished"}
    assert ends == {
        0: ("length", None),
        1: ("length", None),
        2: ("confidence", 1.0),
        3: ("length", None),
        4: ("confidence", 2.5),
        5: ("length", None),
    }
    lengths = [scheduler.trace_output(5, i)[0].size for i in range(6)]
    assert lengths == [8, 8, 4, 8, 4, 8]
    tally = scheduler.tally(5)
    assert tally.weights == [None, 4.0, None, 3.0, None, 5.0]
    assert tally.votes == [(0, 12.0)]
    assert tally.consensus is None  # three voters are too few


def test_consensus_ends_the_rest() -> None:
    sizes = SIZES | {"num_slots": 3, "max_num_seqs": 2, "max_num_batched_tokens": 128}
    scheduler = Scheduler(**sizes)
    deepconf = DeepConfPolicy(
        mode="online", warmup=2, keep=1.0, window=4, vote="majority", consensus=0.9
    )
    scheduler.add_request(5, prompt(20), num_traces=40, max_tokens=8, deepconf=deepconf)
    reasons: dict[int, str] = {}
    kinds = []
    while (plan := scheduler.schedule()) is not None:
        pending = commit(scheduler, plan)
        while pending:
            event = pending.pop(0)
            kinds.append(event.kind)
            if event.kind == "finished":
                assert event.trace_index is not None
                assert event.reason is not None
                reasons[event.trace_index] = event.reason
                if event.reason == "length":
                    pending += scheduler.set_answer(5, event.trace_index, 1)
    assert reasons == {i: "length" if i < 4 else "consensus" for i in range(40)}
    assert kinds[-1] == "request_finished"
    assert scheduler.tally(5).consensus == (3, 1.0)
    assert scheduler.stats()["num_generated_tokens"] == 4 * 8 + 36


def test_abort_frees_at_once_even_with_a_plan_in_flight() -> None:
    scheduler = Scheduler(**SIZES)
    scheduler.add_request(0, prompt(20), num_traces=4, max_tokens=50)
    commit(scheduler, next_plan(scheduler))
    plan = next_plan(scheduler)
    events = scheduler.abort(0, 1)
    assert [(e.kind, e.trace_index, e.reason) for e in events] == [("finished", 1, "abort")]
    assert scheduler.abort(0, 1) == []
    assert scheduler.stats()["num_slots_used"] == 3
    scheduler.abort(0)
    stats = scheduler.stats()
    assert (stats["num_slots_used"], stats["num_blocks_used"], stats["num_running"]) == (0, 0, 0)
    assert commit(scheduler, plan) == []
    assert scheduler.schedule() is None
    scheduler.release(0)
    with pytest.raises(RequestError, match="there is no request 0"):
        scheduler.trace_output(0, 0)


def test_a_prompt_that_begins_alike_starts_from_a_kept_state() -> None:
    scheduler = Scheduler(**SIZES, enable_prefix_caching=True)
    scheduler.add_request(0, prompt(300), num_traces=2, max_tokens=3)
    first = next_plan(scheduler)
    assert first.seq_lens.tolist() == [256]  # the last multiple of chunk_size
    commit(scheduler, first)
    second = next_plan(scheduler)
    assert second.slot_copies.tolist()[0][0] == first.state_slots[0]
    kept_slot = second.slot_copies.tolist()[0][1]
    commit(scheduler, second)
    scheduler.abort(0)
    assert scheduler.stats()["num_slots_used"] == 1
    assert scheduler.stats()["num_blocks_used"] == 16
    scheduler.add_request(1, prompt(270), num_traces=1, max_tokens=3)
    plan = next_plan(scheduler)
    assert plan.positions.tolist() == list(range(256, 270))
    assert plan.has_initial_state.tolist() == [True]
    assert plan.slot_copies.tolist() == [[kept_slot, plan.state_slots[0]]]
    assert (plan.block_tables[0, :16] == first.block_tables[0, :16]).all()
    commit(scheduler, plan)
    stats = scheduler.stats()
    assert (stats["num_cached_tokens"], stats["num_prompt_tokens_computed"]) == (256, 300 + 14)
    scheduler.abort(1)
    scheduler.clear_prefix_cache()
    assert scheduler.stats()["num_slots_used"] == scheduler.stats()["num_blocks_used"] == 0


def test_kept_states_make_way() -> None:
    """With two slots, every new prompt still gets its owner and its trace."""
    scheduler = Scheduler(**(SIZES | {"num_slots": 2}), enable_prefix_caching=True)
    for i in range(5):
        scheduler.add_request(i, prompt(300) + np.uint32(i), num_traces=2, max_tokens=3)
    while (plan := scheduler.schedule()) is not None:
        commit(scheduler, plan)
    assert scheduler.stats()["num_generated_tokens"] == 5 * 2 * 3


def test_prefix_caching_wants_whole_blocks() -> None:
    sizes = SIZES | {"block_size": 24}
    with pytest.raises(ConfigError, match="chunk_size is 128 and block_size 24; with enable_pref"):
        Scheduler(**sizes, enable_prefix_caching=True)


def test_a_failed_plan_is_computed_again() -> None:
    scheduler = Scheduler(**SIZES)
    scheduler.add_request(0, prompt(20), num_traces=2, max_tokens=3)
    scheduler.discard(next_plan(scheduler).id)
    assert scheduler.stats()["num_slots_used"] == 0
    plan = next_plan(scheduler)
    assert plan.seq_lens.tolist() == [20]
    assert not plan.has_initial_state[0]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_blocks", 0, "num_blocks is 0; give 1 to"),
        ("block_size", 0, "block_size is 0"),
        ("num_slots", 0, "num_slots is 0"),
        ("max_num_seqs", 0, "max_num_seqs is 0"),
        ("chunk_size", 0, "chunk_size is 0"),
        ("max_model_len", 0, "max_model_len is 0"),
        ("max_num_batched_tokens", 127, "max_num_batched_tokens is 127; give at least 128"),
    ],
)
def test_bad_sizes(field: str, value: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Scheduler(**(SIZES | {field: value}))


@pytest.mark.parametrize(
    ("length", "request_fields", "message"),
    [
        (0, {}, "the prompt is empty"),
        (10, {"num_traces": 0}, "num_traces is 0; give 1 to 65536"),
        (10, {"num_traces": 1_000_000}, "num_traces is 1000000; give 1 to 65536"),
        (10, {"max_tokens": 0}, "max_tokens is 0"),
        (10, {"max_tokens": 4087}, "10 prompt tokens .* = 4097, over max_model_len 4096"),
        (1000, {"max_tokens": 1000}, "needs 125 KV blocks of 16 but there are 100"),
        (10, {"request_id": 3}, "request 3 exists"),
    ],
)
def test_what_can_never_run_is_refused(
    length: int, request_fields: dict[str, int], message: str
) -> None:
    scheduler = Scheduler(**(SIZES | {"num_blocks": 100}))
    scheduler.add_request(3, prompt(10), num_traces=1, max_tokens=1)
    before = scheduler.stats()
    fields: dict[str, Any] = {"request_id": 4, "num_traces": 2, "max_tokens": 8} | request_fields
    with pytest.raises(RequestError, match=message):
        scheduler.add_request(fields.pop("request_id"), prompt(length), **fields)
    assert scheduler.stats() == before


def test_a_warmup_longer_than_the_budget_is_refused() -> None:
    deepconf = DeepConfPolicy(mode="online", warmup=5, keep=0.9, window=4, vote="mean")
    with pytest.raises(RequestError, match="warmup is 5 but num_traces is 4"):
        Scheduler(**SIZES).add_request(0, prompt(9), num_traces=4, max_tokens=9, deepconf=deepconf)


def test_protocol() -> None:
    scheduler = Scheduler(**SIZES)
    scheduler.add_request(0, prompt(20), num_traces=2, max_tokens=8)
    plan = next_plan(scheduler)
    tokens, confidences = np.zeros(2, dtype=np.uint32), np.ones(2, dtype=np.float32)
    flags = np.zeros(2, dtype=np.uint8)
    with pytest.raises(RequestError, match="plan 0 is in flight; commit or discard it"):
        scheduler.schedule()
    with pytest.raises(RequestError, match="plan 1 is not in flight; plan 0 is"):
        scheduler.commit(1, tokens, confidences, flags)
    with pytest.raises(RequestError, match="samples 2 rows but 1 tokens, 2 conf"):
        scheduler.commit(0, tokens[:1], confidences, flags)
    with pytest.raises(RequestError, match=r"a flag is 4; give 1 \(stop\), 2 \(error\)"):
        scheduler.commit(0, tokens, confidences, flags + np.uint8(4))
    with pytest.raises(RequestError, match="token_ids is not contiguous"):
        scheduler.commit(0, np.zeros(4, dtype=np.uint32)[::2], confidences, flags)
    with pytest.raises(TypeError):
        scheduler.commit(0, tokens.astype(np.int64), confidences, flags)  # type: ignore[arg-type]
    scheduler.commit(plan.id, tokens, confidences, flags)
    with pytest.raises(RequestError, match="plan 0 is not in flight; no plan is"):
        scheduler.commit(0, tokens, confidences, flags)
    with pytest.raises(RequestError, match="request 0 is unfinished; abort it first"):
        scheduler.release(0)
    with pytest.raises(RequestError, match="trace_index is 2 but request 0 has traces 0 to 1"):
        scheduler.abort(0, 2)
    with pytest.raises(RequestError, match="no DeepConf policy"):
        scheduler.set_answer(0, 0, 1)
    with pytest.raises(RequestError, match="no DeepConf policy"):
        scheduler.tally(0)
    assert scheduler.has_unfinished()


def test_answers_are_taken_once_and_at_the_end() -> None:
    scheduler = Scheduler(**SIZES)
    deepconf = DeepConfPolicy(mode="offline", warmup=1, keep=1.0, window=4, vote="mean")
    scheduler.add_request(0, prompt(9), num_traces=2, max_tokens=2, deepconf=deepconf)
    with pytest.raises(RequestError, match=r"trace 0 of request 0 takes no answer .is unfinished"):
        scheduler.set_answer(0, 0, 1)
    scheduler.abort(0, 1)
    with pytest.raises(RequestError, match=r"takes no answer \(abort\)"):
        scheduler.set_answer(0, 1, 1)
    commit(scheduler, next_plan(scheduler), flag=1)
    scheduler.set_answer(0, 0, None)
    with pytest.raises(RequestError, match="is answered already"):
        scheduler.set_answer(0, 0, 1)


@pytest.mark.parametrize(
    ("side_by_side", "bill"), [(16, 400 + sum(-(-320 // k) for k in range(1, 16))), (1, 400 + 15)]
)
def test_what_total_tokens_may_cost(side_by_side: int, bill: int) -> None:
    """Trace k is cut when the k before it have spent the total; trace 0 always runs to its end."""
    scheduler = Scheduler(
        **(SIZES | {"max_num_seqs": side_by_side, "enable_prefix_caching": False})
    )
    policy = DeepConfPolicy(
        mode="online", warmup=16, keep=0.9, window=8, vote="majority", total_tokens=320
    )
    scheduler.add_request(1, prompt(40), num_traces=16, max_tokens=400, deepconf=policy)
    while (plan := scheduler.schedule()) is not None:
        commit(scheduler, plan)
    lens = [len(scheduler.trace_output(1, trace)[0]) for trace in range(16)]
    assert lens[0] == 400 and scheduler.tally(1).last_voter == 0
    assert sum(lens) == bill
    assert sum(lens) < 320 + side_by_side * 400 + 16
