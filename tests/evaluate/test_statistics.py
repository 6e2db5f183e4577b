"""Estimates beside counting by hand, and intervals that cover as often as they say."""

import itertools
import math
from random import Random

import numpy as np
import pytest

from falcon_h1r.evaluate.statistics import (
    difference,
    difference_of_runs,
    mean,
    mean_of_runs,
    pass_at_k,
    share_saved,
)


def test_pass_at_k_is_the_share_of_subsets() -> None:
    for count in range(1, 7):
        for right in range(count + 1):
            for k in range(1, count + 1):
                traces = [i < right for i in range(count)]
                subsets = [any(s) for s in itertools.combinations(traces, k)]
                assert pass_at_k(count, right, k) == pytest.approx(sum(subsets) / len(subsets))
    with pytest.raises(ValueError, match="k is 5"):
        pass_at_k(4, 2, 5)


def test_a_mean_is_deterministic_and_inside_its_interval() -> None:
    values = [1.0, 0.0, 1.0, 1.0, 0.5, 0.0, 1.0]
    assert mean(values) == mean(values)
    value, low, high = mean(values)
    assert value == pytest.approx(4.5 / 7)
    assert 0.0 <= low < value < high <= 1.0


def test_intervals_cover() -> None:
    rng = Random(0)
    hits = 0
    for _ in range(100):
        values = [float(rng.random() < 0.8) for _ in range(60)]
        _, low, high = mean(values)
        hits += low <= 0.8 <= high
    assert 86 <= hits <= 100


def test_agreement_is_not_certainty() -> None:
    assert mean([1.0] * 20) == pytest.approx((1.0, 1 - 3.8415 / 23.8415, 1.0), abs=1e-4)
    assert mean([0.0] * 20).high == pytest.approx(3.8415 / 23.8415, abs=1e-4)
    value, low, high = difference([1.0, 0.0] * 10, [1.0, 0.0] * 10)
    assert value == 0.0 and low == -high and high > 0.1


def test_a_paired_difference_is_narrower_than_two_means() -> None:
    rng = Random(1)
    theirs = [float(rng.random() < 0.5) for _ in range(400)]
    ours = [1.0 if rng.random() < 0.05 else value for value in theirs]
    value, low, high = difference(ours, theirs)
    assert low <= value <= high and low > 0
    assert high - low < mean(ours).high - mean(ours).low


def test_share_saved_is_of_the_sums() -> None:
    value, low, high = share_saved([10.0, 30.0, 20.0], [20.0, 100.0, 30.0])
    assert value == pytest.approx(1 - 60 / 150)
    assert low <= value <= high
    assert share_saved([5.0, 5.0], [10.0, 10.0]) == (0.5, 0.5, 0.5)


def test_nothing_is_not_a_number() -> None:
    assert all(math.isnan(x) for x in [*mean([]), *difference([], []), *share_saved([], [])])
    assert mean(np.array([0.25])).value == 0.25


def test_one_run_is_the_plain_estimate() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(0, 2, (2, 1, 40)).astype(float)
    assert mean_of_runs(ours) == mean(ours[0])
    assert difference_of_runs(ours, theirs) == difference(ours[0], theirs[0])


def test_the_interval_of_runs_holds_what_another_seed_would_change() -> None:
    problems = np.random.default_rng(1).normal(0, 0.01, (1, 500))
    seeds = np.array([[-0.1], [0.0], [0.1]])
    value, low, high = difference_of_runs(problems + seeds, np.zeros((1, 500)))
    assert value == pytest.approx(problems.mean())
    assert low < -0.05
    assert high > 0.05
    _, low, high = difference_of_runs(np.tile(problems, (3, 1)), np.zeros((1, 500)))
    assert high - low < 0.01
    assert difference_of_runs(problems + seeds, problems + seeds).value == 0.0


def test_runs_are_paired() -> None:
    rng = np.random.default_rng(2)
    theirs = rng.random((3, 200))
    ours = theirs + 0.05
    assert difference_of_runs(ours, theirs) == pytest.approx((0.05, 0.05, 0.05))
    _, low, high = difference_of_runs(ours, theirs[:, rng.permutation(200)])
    assert high - low > 0.02
