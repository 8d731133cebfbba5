"""The sizes of forces along a trajectory: frames apart from all others, and a start that drifts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import stats

from deepcg.runtime.arrays import Booleans, Doubles, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.skipped_frames import numbers_in_words
from free_energy import statistical_inefficiency

FAR = 6.0
"""Robust standard deviations of logarithms from the median, beyond which frames are bad."""

TELLING, DAMAGED = 3.0, 10.0
"""Factors from the median besides: of frames that are told, and of those that are refused. Forces
that are too small need their squares: near 0 logarithms have long tails."""

RARE = 0.2
"""Part of the frames that can be bad: more are another kind of frames."""

FEWEST = 5
"""Frames, of which most tell what is usual."""

FEW_ATOMS = 10
"""Forces on fewer atoms may all be small at once, near a minimum: only large ones are bad there."""

FALSE_ALARMS = 1e-3
"""How often a drift is told where there is none."""

LONG = 100
"""Frames in which a drift can be told from correlated noise."""


@dataclass(slots=True, eq=False)
class ForceSizes:
    """Root mean squares and maxima of the forces in frames, kJ/mol/nm, as frames are read."""

    rms: list[Doubles] = field(default_factory=list)
    largest: list[Doubles] = field(default_factory=list)
    n_atoms: int = 0

    def add(self, frames: Frames) -> Frames:
        """Note the sizes in some frames, and return the frames."""
        if frames.forces is not None and len(frames):
            self.n_atoms = frames.forces.shape[1]
            squares = frames.forces.double().square().sum(-1).numpy()
            self.rms.append(np.sqrt(squares.mean(1) / 3))
            self.largest.append(np.sqrt(squares.max(1)))
        return frames

    @property
    def series(self) -> Doubles:
        """Root mean squares and maxima (2, n_frames)."""
        if not self.rms:
            return np.empty((2, 0))
        return np.stack([np.concatenate(self.rms), np.concatenate(self.largest)])

    def far(self, factor: float) -> Booleans:
        """Return which frames are apart from the others (2, n_frames), by ``outliers``."""
        small = self.n_atoms >= FEW_ATOMS
        return np.stack([outliers(sizes, factor, small=small) for sizes in self.series])


def outliers(sizes: Doubles, factor: float, *, small: bool = True) -> Booleans:
    """Return which frames are apart from the others in their sizes (n,) of any kind.

    By the median and the median absolute deviation of logarithms, which a few bad frames do not
    move; ``factor`` is the least one from the median. Without ``small`` only larger ones count.
    """
    if len(sizes) < FEWEST:
        return np.zeros(len(sizes), bool)
    middle = max(float(np.median(sizes)), 1e-300)
    logs = np.log(np.maximum(sizes / middle, 1e-12))
    spread = 1.4826 * float(np.median(np.abs(logs)))
    far: Booleans = logs > max(FAR * spread, np.log(factor))
    return far | (-logs > 2 * max(FAR * spread, np.log(factor))) if small else far


def about_bad_frames(path: Path, sizes: ForceSizes, numbers: Integers) -> str | None:
    """Return what to tell of frames whose forces are of another size than those of all others.

    ``numbers`` (n,) are those of the frames in the file.

    Raises
    ------
    InputError
        Their forces are larger by a factor of ten, or smaller by a hundred.
    """
    series = sizes.series
    damaged = sizes.far(DAMAGED).any(0)
    bad = damaged | sizes.far(TELLING)[0]  # the largest of a few forces has a long tail
    if not bad.any() or bad.mean() > RARE:
        return None
    middle = np.median(series, axis=1, keepdims=True)
    off = np.abs(np.log(np.maximum(series, 1e-300) / middle)).max(0)
    worst = int((off * bad).argmax())
    names = numbers_in_words(numbers[bad])
    text = (
        f"forces of frame {numbers[worst]} are {series[0, worst]:.3g} kJ/mol/nm (root mean square; "
        f"the largest {series[1, worst]:.3g}), where those of most frames are "
        f"{middle[0, 0]:.3g} ({middle[1, 0]:.3g}): "
        f"--skip-frames {names} leaves {'it' if bad.sum() == 1 else 'such frames'} out"
    )
    if damaged.any():
        raise InputError(f"{path}: {text}")
    return text


def about_drift(sizes: ForceSizes, numbers: Integers) -> str | None:
    """Return what to tell of a trajectory whose beginning has forces of another size.

    The mean squares of the forces in the first tenth and in the second half are compared with the
    errors of correlated series (Geweke, Bayesian Statistics 1992, 4, 169). ``numbers`` (n,) are
    those of the frames in the file.
    """
    squares = np.square(sizes.series[0])
    n = len(squares)
    if n < LONG:
        return None
    begin, end = squares[: n // 10], squares[n // 2 :]
    inefficiency = statistical_inefficiency(end)
    independent = len(end) / inefficiency
    error = float(end.std() * np.sqrt(inefficiency * (1 / len(begin) + 1 / len(end))))
    off = float(begin.mean() - end.mean()) / max(error, 1e-300)
    # the inefficiency is itself known from a few independent stretches alone
    if abs(off) < stats.t.ppf(1 - FALSE_ALARMS / 2, 1 + independent / 4):
        return None
    last = numbers[_settled(squares) - 1]
    return (
        f"the start is not equilibrated: the mean square of the forces in the first tenth is "
        f"{100 * (begin.mean() / end.mean() - 1):+.2g} % off that of the second half, "
        f"{abs(off):.0f} standard errors (by chance once in {1 / FALSE_ALARMS:.0f} files); "
        f"--skip-frames {numbers[0]}-{last} leaves it out"
    )


def _settled(series: Doubles) -> int:
    """Return the first of the frames (n,), at least 1, that leave the most independent ones.

    After Chodera, J. Chem. Theory Comput. 2016, 12, 1799.
    """
    n = len(series)
    begins = np.unique(np.linspace(1, n // 2, 50).astype(int))
    independent = [(n - b) / statistical_inefficiency(series[b:]) for b in begins]
    return int(begins[int(np.argmax(independent))])
