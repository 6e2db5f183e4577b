"""ConfidenceTracker against a literal numpy transcription, and without drift."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from falcon_h1r._rust import ConfidenceTracker
from falcon_h1r.errors import ConfigError, RequestError

Values = NDArray[np.float64]
CONFIDENCES = st.lists(st.floats(-50, 50, allow_subnormal=False), min_size=1, max_size=80)


def groups_of(values: Values, window: int) -> Values:
    """Means of all full windows; the mean of all while there is none."""
    if len(values) < window:
        return np.array([values.mean()])
    return np.array([values[i : i + window].mean() for i in range(len(values) - window + 1)])


def filled(values: Values, window: int) -> ConfidenceTracker:
    tracker = ConfidenceTracker(window)
    for value in values:
        tracker.push(value)
    return tracker


@given(CONFIDENCES, st.integers(1, 30), st.integers(1, 30), st.floats(0.01, 1.0))
def test_equals_the_definition(listed: list[float], window: int, n: int, q: float) -> None:
    values = np.array(listed)
    groups = groups_of(values, window)
    tracker = filled(values, window)
    close = {"rel": 1e-12, "abs": 1e-12}
    assert len(tracker) == len(values)
    assert tracker.window == window
    assert tracker.is_full == (len(values) >= window)
    assert tracker.group == pytest.approx(groups[-1], **close)
    assert tracker.lowest_group == pytest.approx(groups.min(), **close)
    assert tracker.mean == pytest.approx(values.mean(), **close)
    assert tracker.tail(n) == pytest.approx(values[-n:].mean(), **close)
    num_lowest = max(1, math.floor(q * len(groups) + 1e-9))
    lowest = np.sort(groups)[:num_lowest].mean()
    assert tracker.bottom_groups(q) == pytest.approx(lowest, **close)
    full = groups if len(values) >= window else groups[:0]
    np.testing.assert_allclose(tracker.groups(), full, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("window", [1, 7, 2048])
def test_no_drift(window: int) -> None:
    """After 10^5 tokens of any size a window's mean is that of its own tokens alone."""
    rng = np.random.default_rng(0)
    values = rng.normal(12, 4, 100_000) * 10.0 ** rng.integers(-6, 7, 100_000)
    tracker = ConfidenceTracker(window)
    tracker.extend(values)
    assert tracker.group == pytest.approx(math.fsum(values[-window:]) / window, rel=1e-14)
    sums = np.lib.stride_tricks.sliding_window_view(values, window)[::97]
    exact = [math.fsum(part) / window for part in sums[:300]]
    np.testing.assert_allclose(tracker.groups()[::97][:300], exact, rtol=1e-13)


def test_a_huge_value_leaves_with_its_window() -> None:
    tracker = filled(np.array([1e90] + [1.0] * 9), window=4)
    assert tracker.group == 1.0
    assert tracker.lowest_group == 1.0


def test_extend_is_push() -> None:
    values = np.random.default_rng(1).normal(size=500)
    pushed, extended = filled(values, 16), ConfidenceTracker(16)
    extended.extend(values[:200])
    extended.extend(values[200:])
    assert (pushed.group, pushed.lowest_group) == (extended.group, extended.lowest_group)
    assert (pushed.groups() == extended.groups()).all()


def test_empty() -> None:
    tracker = ConfidenceTracker(window=3)
    assert len(tracker) == 0
    assert (tracker.group, tracker.lowest_group, tracker.mean) == (None, None, None)
    assert (tracker.tail(2), tracker.bottom_groups(0.5), tracker.weight("mean")) == (None,) * 3


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e101])
def test_bad_confidence_is_refused_and_changes_nothing(bad: float) -> None:
    tracker = filled(np.array([1.0, 2.0]), window=2)
    with pytest.raises(RequestError, match="give a finite number"):
        tracker.push(bad)
    with pytest.raises(RequestError, match="give a finite number"):
        tracker.extend(np.array([5.0, bad]))
    assert (len(tracker), tracker.group) == (2, 1.5)


def test_bad_arguments() -> None:
    for window in (0, 2**24 + 1):
        with pytest.raises(ConfigError, match=f"window is {window}"):
            ConfidenceTracker(window)
    tracker = filled(np.array([1.0]), window=1)
    for q in (0.0, -1.0, 1.1, math.nan):
        with pytest.raises(ConfigError, match="q is"):
            tracker.bottom_groups(q)
    with pytest.raises(ConfigError, match="n is 0"):
        tracker.tail(0)
    with pytest.raises(ConfigError, match='vote is "best"; give one of majority'):
        tracker.weight("best")
    for power in (math.nan, -1.0, 1001.0):
        with pytest.raises(ConfigError, match="power is"):
            tracker.weight("mean", power=power)


def test_weights() -> None:
    values = np.random.default_rng(2).normal(size=40)
    tracker = filled(values, window=5)
    groups = groups_of(values, 5)
    assert tracker.weight("majority") == 1.0
    assert tracker.weight("majority", exp_weights=True) == 1.0
    assert tracker.weight("mean") == tracker.mean
    assert tracker.weight("tail") == tracker.tail(5)
    assert tracker.weight("lowest_group") == tracker.lowest_group
    assert tracker.weight("bottom_groups") == pytest.approx(np.sort(groups)[:3].mean())
    mean = tracker.mean
    assert mean is not None
    assert tracker.weight("mean", power=3.0) == pytest.approx(mean**3, rel=1e-13)
    assert tracker.weight("mean", exp_weights=True) == pytest.approx(math.exp(mean), rel=1e-15)


@pytest.mark.campaign
def test_a_million_tokens_do_not_drift() -> None:
    values = np.random.default_rng(3).normal(12, 4, 1_000_000)
    tracker = filled(values, window=2048)
    assert tracker.group == pytest.approx(math.fsum(values[-2048:]) / 2048, rel=1e-14)
    assert tracker.mean == pytest.approx(math.fsum(values) / 1e6, rel=1e-14)
