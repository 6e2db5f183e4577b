"""Threshold, vote, and the replay of recorded traces against plain transcriptions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_h1r._rust import DeepConfPolicy, confidence_threshold, replay, vote
from falcon_h1r.errors import ConfigError, RequestError

FINITE = st.floats(-1e6, 1e6)


@given(st.lists(FINITE, min_size=1, max_size=40), st.floats(0.001, 1.0))
def test_threshold_is_numpys_percentile_to_the_bit(values: list[float], keep: float) -> None:
    expected = np.percentile(np.array(values), 100 * (1 - keep))
    assert confidence_threshold(np.array(values), keep) == expected


def test_threshold_refuses() -> None:
    assert confidence_threshold(np.array([]), 0.5) is None
    for keep in (0.0, 1.5, math.nan):
        with pytest.raises(ConfigError, match="keep is"):
            confidence_threshold(np.array([1.0]), keep)
    with pytest.raises(RequestError, match="finite"):
        confidence_threshold(np.array([1.0, math.nan]), 0.5)


@given(
    st.lists(
        st.tuples(st.none() | st.integers(0, 4), st.none() | st.floats(0, 20)),
        max_size=40,
    )
)
def test_vote(ballots: list[tuple[int | None, float | None]]) -> None:
    totals: dict[int, float] = {}
    for answer, weight in ballots:
        if answer is not None and weight is not None:
            totals[answer] = totals.get(answer, 0.0) + weight
    winner = max(totals, key=totals.__getitem__) if totals else None
    answers, weights = [a for a, _ in ballots], [w for _, w in ballots]
    assert vote(answers, weights) == (winner, list(totals.items()))


def test_vote_refuses() -> None:
    with pytest.raises(RequestError, match="1 answer classes but 2 weights"):
        vote([1], [1.0, 1.0])
    with pytest.raises(RequestError, match="a weight is NaN"):
        vote([1], [math.nan])


def policy(**changes: object) -> DeepConfPolicy:
    fields = {"mode": "online", "warmup": 2, "keep": 0.5, "window": 2, "vote": "mean"}
    return DeepConfPolicy(**(fields | changes))  # type: ignore[arg-type]


def test_replay_online() -> None:
    """Warm-up lowest groups 1.5 and 3: threshold 2.25; trace 2 falls below it on its 3rd token."""
    traces = [[1.0, 2.0], [3.0, 3.0, 4.0], [5.0, 2.0, 2.0, 9.0], [5.0, 2.0, 2.0], [9.0, 9.0]]
    confidences = [np.array(trace) for trace in traces]
    tally, spent = replay(policy(), confidences, [0, 1, 0, 1, None])
    assert tally.threshold == 2.25
    # Trace 3 falls below on its last token: it has ended by itself.
    assert spent == [(2, False), (3, False), (3, True), (3, False), (2, False)]
    assert tally.weights == [None, 10 / 3, None, 3.0, None]
    assert tally.votes == [(1, 10 / 3 + 3.0)]
    assert (tally.answer_class, tally.majority_class) == (1, 1)
    assert (tally.consensus, tally.last_voter) == (None, None)


def test_replay_consensus_and_budget() -> None:
    confidences = [np.full(4, 5.0)] * 10
    answers = [0, 1, 0, 0, 0, 0, 1, 1, 1, 1]
    tally, spent = replay(policy(vote="majority", consensus=0.8), confidences, answers)
    assert tally.consensus == (4, 0.8)
    assert (tally.last_voter, tally.answer_class) == (4, 0)
    assert spent == [(4, False)] * 5 + [(0, False)] * 5
    tally, spent = replay(policy(total_tokens=9), confidences, answers)
    assert (tally.consensus, tally.last_voter) == (None, 2)
    assert spent == [(4, False)] * 3 + [(0, False)] * 7
    assert tally.votes == [(0, 10.0), (1, 5.0)]


def test_one_voice_is_no_consensus() -> None:
    """Raised to 8, one trace of confidence 4 weighs more than eight others; at 1 it does not."""
    answers = [0, 1, 1, 1, 0, 0, 1, 1]
    confidences = [np.full(4, level) for level in (4.0, 1.0, 1.0, 1.0, 1.0, 4.0, 1.0, 4.0)]
    wanted = {"keep": 1.0, "consensus": 0.9}
    tally, _ = replay(policy(power=8, **wanted), confidences, answers)
    # Trace 5 is the second sure one: from there on neither outweighs all the others.
    assert tally.consensus == (5, pytest.approx(1 - 3 / (2 * 4**8 + 4)))
    assert tally.answer_class == 0
    alone = [*confidences[:5], *[np.ones(4)] * 3]
    assert replay(policy(power=8, **wanted), alone, answers)[0].consensus is None
    # At 1, the paper's, four voters of one answer are enough, however sure one of them is.
    sure = [np.full(4, level) for level in (99.0, 1.0, 1.0, 1.0)]
    assert replay(policy(**wanted), sure, [0] * 4)[0].consensus == (3, 1.0)
    assert replay(policy(power=2, **wanted), sure, [0] * 4)[0].consensus is None


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.3, 0.5, 0.9, 1.0]))
def test_offline_keeps_the_best(seed: int, keep: float) -> None:
    rng = np.random.default_rng(seed)
    num_traces = int(rng.integers(1, 31))
    confidences = [rng.normal(size=rng.integers(1, 9)) for _ in range(num_traces)]
    answers = [None if rng.random() < 0.2 else int(rng.integers(3)) for _ in range(num_traces)]
    offline = policy(mode="offline", keep=keep, exp_weights=True)
    tally, _ = replay(offline, confidences, answers)
    means = [
        c.mean() if a is not None else -np.inf for c, a in zip(confidences, answers, strict=True)
    ]
    num_answered = sum(a is not None for a in answers)
    best = np.argsort(means, stable=True)[::-1][: math.ceil(round(keep * num_answered, 6))]
    expected = [math.exp(means[i]) if i in best else None for i in range(num_traces)]
    assert [w is None for w in tally.weights] == [w is None for w in expected]
    assert [w for w in tally.weights if w] == pytest.approx([w for w in expected if w])
    assert tally.threshold is None


@given(st.integers(0, 2**32 - 1))
def test_a_replay_counts_as_a_scheduler_that_asks_after_every_trace(seed: int) -> None:
    """The consensus is that of the shortest replay of the first traces that has one."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(3, 16))
    confidences = [rng.uniform(0.1, 4, size=rng.integers(1, 9)) for _ in range(count)]
    answers = [None if rng.random() < 0.1 else int(rng.integers(2)) for _ in range(count)]
    config = policy(warmup=3, power=float(rng.choice([1, 6])), consensus=float(rng.uniform(0.5, 1)))
    tally, _ = replay(config, confidences, answers)
    ends = [replay(config, confidences[:n], answers[:n])[0].consensus for n in range(3, count + 1)]
    assert tally.consensus == next((end for end in ends if end is not None), None)


def test_replay_refuses() -> None:
    with pytest.raises(RequestError, match="warmup is 2 but only 1 traces"):
        replay(policy(), [np.ones(3)], [0])
    with pytest.raises(RequestError, match="2 traces but 1 answer classes"):
        replay(policy(), [np.ones(3)] * 2, [0])
    with pytest.raises(RequestError, match="confidence is NaN"):
        replay(policy(), [np.ones(3), np.array([math.nan])], [0, 1])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mode", "offlin"),
        ("warmup", 0),
        ("power", -0.5),
        ("power", math.inf),
        ("power", math.nan),
        ("keep", 0.0),
        ("keep", 1.01),
        ("keep", math.nan),
        ("window", 0),
        ("vote", "median"),
        ("consensus", 0.0),
        ("consensus", 1.5),
        ("consensus", math.nan),
        ("total_tokens", 0),
    ],
)
def test_policy_names_the_bad_field(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{field} is .*; give "):
        policy(**{field: value})


def test_policy_is_a_record() -> None:
    made = policy(consensus=0.95, exp_weights=True, total_tokens=100)
    assert (made.mode, made.warmup, made.keep, made.window) == ("online", 2, 0.5, 2)
    assert (made.vote, made.consensus, made.exp_weights) == ("mean", 0.95, True)
    assert made.total_tokens == 100
    assert made == policy(consensus=0.95, exp_weights=True, total_tokens=100)
    assert made != policy()
