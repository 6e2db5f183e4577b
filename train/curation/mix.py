"""The mix: how many samples of each cell are taken, and which.

A cell is (family, style, source, level, difficulty). Wanted numbers are computed from the counts
alone, then samples are chosen in one pass that keeps two numbers a cell: a set larger than memory
never has to be held.
"""

from collections import defaultdict
from collections.abc import Mapping
from random import Random

from falcon_h1r.errors import TrainingError
from falcon_h1r.train.curation.recipe import AXES, CurateRecipe
from falcon_h1r.train.samples import Sample

Cell = tuple[str, str, str, int, str]
_MAX_ROUNDS = 1000


def cell_of(sample: Sample, recipe: CurateRecipe) -> Cell:
    """The cell a sample belongs to."""
    difficulty = recipe.difficulty.bucket(sample.pass_rate)
    return (sample.family, sample.style, sample.source, sample.level, difficulty)


def by_axis(counts: Mapping[Cell, float], axis: str) -> dict[str, float]:
    """Sums of the cells by one of AXES."""
    place = AXES.index(axis)
    sums: dict[str, float] = defaultdict(float)
    for cell, number in counts.items():
        sums[str(cell[place])] += number
    return dict(sums)


def plan(available: Mapping[Cell, int], recipe: CurateRecipe) -> dict[Cell, int]:
    """Samples to take of each cell: weights of difficulty, then shares, then caps, then total.

    Shares hold exactly, so the scarcest value sets the size; caps win over shares. Raises
    TrainingError when a wanted value has no sample or a cap cannot hold.
    """
    weights = recipe.difficulty.weights
    wanted = {cell: n * weights.get(cell[4], 1.0) for cell, n in available.items()}
    wanted = {cell: n for cell, n in wanted.items() if n > 0}
    if recipe.mix.shares:
        wanted = _shared(wanted, recipe)
    wanted = _capped(wanted, recipe.mix.caps)
    size = sum(wanted.values())
    if recipe.mix.total is not None and size > recipe.mix.total:
        wanted = {cell: n * recipe.mix.total / size for cell, n in wanted.items()}
    return _rounded(wanted)


def _shared(wanted: dict[Cell, float], recipe: CurateRecipe) -> dict[Cell, float]:
    by, shares = recipe.mix.by, {str(v): w for v, w in recipe.mix.shares.items() if w > 0}
    found = by_axis(wanted, by)
    lacking = sorted(value for value in shares if not found.get(value))
    if lacking:
        raise TrainingError(
            f"mix.shares wants {by} {lacking[0]!r} but no sample of it is left "
            f"(there are {', '.join(sorted(found)) or 'none'}); add a source or take it out"
        )
    size = min(found[value] / share for value, share in shares.items())
    place = AXES.index(by)
    return {
        cell: n * shares[value] * size / found[value]
        for cell, n in wanted.items()
        if (value := str(cell[place])) in shares
    }


def _capped(wanted: dict[Cell, float], caps: Mapping[str, float]) -> dict[Cell, float]:
    """Shrink what exceeds its cap until every cap holds; each round only shrinks."""
    for axis, cap in caps.items():
        values = by_axis(wanted, axis)
        if wanted and len(values) * cap < 1 - 1e-9:
            raise TrainingError(
                f"mix.caps.{axis} is {cap} but there are only {len(values)} values of {axis} "
                f"({', '.join(sorted(values)[:8])}): nothing can satisfy it; raise it"
            )
    for _ in range(_MAX_ROUNDS):
        size = sum(wanted.values())
        over = [
            (axis, value, n, cap)
            for axis, cap in caps.items()
            for value, n in by_axis(wanted, axis).items()
            if n > cap * size * (1 + 1e-9) + 1e-9
        ]
        if not over:
            break
        axis, value, n, cap = max(over, key=lambda entry: (entry[2] / entry[3], entry[:2]))
        others = size - n
        factor = cap * others / (1 - cap) / n
        place = AXES.index(axis)
        wanted = {
            cell: number * (factor if str(cell[place]) == value else 1.0)
            for cell, number in wanted.items()
        }
    return wanted


def _rounded(wanted: dict[Cell, float]) -> dict[Cell, int]:
    """Whole numbers with the same sum: the largest remainders are rounded up."""
    taken = {cell: int(n) for cell, n in wanted.items()}
    lacking = round(sum(wanted.values())) - sum(taken.values())
    rests = sorted(wanted, key=lambda cell: (-(wanted[cell] - taken[cell]), cell))
    for cell in rests[:lacking]:
        taken[cell] += 1
    return taken


class Selector:
    """Says how many times each sample, met in a fixed order, is taken.

    Every sample of a cell comes wanted // available times, and the rest are drawn by selection
    sampling (Knuth, The Art of Computer Programming 2, 3.4.2, algorithm S).
    """

    def __init__(
        self, available: Mapping[Cell, int], wanted: Mapping[Cell, int], seed: int
    ) -> None:
        self._left = dict(available)
        self._base = {cell: wanted.get(cell, 0) // n for cell, n in available.items()}
        self._needed = {cell: wanted.get(cell, 0) % n for cell, n in available.items()}
        self._rng = {cell: Random(f"mix {seed} {cell}") for cell in available}

    def copies(self, cell: Cell) -> int:
        """How often the next sample of this cell is taken."""
        needed, left = self._needed[cell], self._left[cell]
        drawn = int(self._rng[cell].random() * left < needed)
        self._left[cell] -= 1
        self._needed[cell] -= drawn
        return self._base[cell] + drawn
