"""Point estimates with 95 % intervals over problems; deterministic. Imports no torch.

Intervals are percentile bootstraps (Efron 1979) that draw problems. Where every problem has the
same value, a bootstrap has no width and would claim certainty: there the interval is the one that
Wilson's gives for as many problems without an exception.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SAMPLES = 2000
"""Bootstrap samples."""
_Z = 1.959963984540054
_BLOCK = 1 << 22
"""Most indices drawn at a time."""

Values = Sequence[float] | npt.NDArray[np.float64]
Runs = Sequence[Values] | npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """A value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def pass_at_k(num_traces: int, num_right: int, k: int) -> float:
    """Return the unbiased estimate of "at least one of k traces is right".

    1 - C(n - c, k) / C(n, k), as in Chen et al. 2021 (arXiv 2107.03374), section 2.1.
    """
    if not 1 <= k <= num_traces:
        raise ValueError(f"k is {k}; it must lie in [1, {num_traces}]")
    if num_traces - num_right < k:
        return 1.0
    return 1.0 - math.comb(num_traces - num_right, k) / math.comb(num_traces, k)


def mean(values: Values, seed: int = 0) -> Estimate:
    """Return the mean of values in [0, 1], one a problem, with its interval."""
    data = np.asarray(values, dtype=np.float64)
    if len(data) == 0:
        return Estimate(math.nan, math.nan, math.nan)
    value = float(data.mean())
    if np.ptp(data) == 0:
        slack = _no_exception(len(data))
        return Estimate(value, max(0.0, value - slack), min(1.0, value + slack))
    return Estimate(value, *_interval(_resampled(data, seed)))


def difference(ours: Values, theirs: Values, seed: int = 0) -> Estimate:
    """Return mean(ours - theirs) over the same problems, with its interval."""
    data = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    if len(data) == 0:
        return Estimate(math.nan, math.nan, math.nan)
    value = float(data.mean())
    if np.ptp(data) == 0:
        slack = _no_exception(len(data))
        return Estimate(value, max(-1.0, value - slack), min(1.0, value + slack))
    return Estimate(value, *_interval(_resampled(data, seed)))


def mean_of_runs(values: Runs, seed: int = 0) -> Estimate:
    """Return the mean of values in [0, 1], a row a run and a column a problem, with its interval.

    Both runs and problems are drawn: the interval holds what another seed of training and other
    problems would change. Of three runs it is a coarse one; of one run it is `mean`'s.
    """
    data = np.asarray(values, dtype=np.float64)
    if len(data) == 1 or data.size == 0 or np.ptp(data) == 0:
        return mean(data.mean(axis=0) if data.size else [], seed)
    return Estimate(float(data.mean()), *_interval(_resampled_runs(data, seed)))


def difference_of_runs(ours: Runs, theirs: Runs, seed: int = 0) -> Estimate:
    """Return mean(ours - theirs), rows runs and columns problems, with its interval.

    Row i of both is of one seed, column j of both of one problem; one row on a side stands beside
    each of the other's. Runs and problems are drawn as in `mean_of_runs`.
    """
    data = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    if len(data) == 1 or data.size == 0 or np.ptp(data) == 0:
        rows = data.mean(axis=0) if data.size else np.empty(0)
        return difference(rows, np.zeros(len(rows)), seed)
    return Estimate(float(data.mean()), *_interval(_resampled_runs(data, seed)))


def share_saved(spent: Values, full: Values, seed: int = 0) -> Estimate:
    """Return 1 - sum(spent) / sum(full) over the same problems, with its interval."""
    top, bottom = np.asarray(spent, dtype=np.float64), np.asarray(full, dtype=np.float64)
    if len(top) == 0 or bottom.sum() == 0:
        return Estimate(math.nan, math.nan, math.nan)
    value = 1.0 - float(top.sum() / bottom.sum())
    # The same seed draws the same problems for both sums.
    ratios = 1.0 - _resampled(top, seed) / np.maximum(_resampled(bottom, seed), 1e-12)
    return Estimate(value, *_interval(ratios))


def _resampled(values: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.float64]:
    """Return `SAMPLES` means of as many values, drawn with replacement."""
    rng = np.random.default_rng(seed)
    count = len(values)
    rows = max(1, _BLOCK // count)
    means = []
    for start in range(0, SAMPLES, rows):
        drawn = rng.integers(0, count, (min(rows, SAMPLES - start), count))
        means.append(values[drawn].mean(axis=1))
    return np.concatenate(means)


def _resampled_runs(values: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.float64]:
    """Return `SAMPLES` means over rows and columns, both drawn with replacement."""
    rng = np.random.default_rng(seed)
    num_runs, count = values.shape
    means = np.empty(SAMPLES)
    for i in range(SAMPLES):
        rows = values[rng.integers(0, num_runs, num_runs)].mean(axis=0)
        means[i] = rows[rng.integers(0, count, count)].mean()
    return means


def _interval(samples: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)


def _no_exception(count: int) -> float:
    """Return Wilson's upper end for 0 of `count`."""
    return _Z**2 / (count + _Z**2)
