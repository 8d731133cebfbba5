"""Runs under different biases as one ensemble: MBAR weights, from the tables of the biases.

A run's own weights tell ratios within it only. With every bias known at every frame of all runs
they have a common scale, and each run counts by its independent frames, whatever its interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.interpolate import NdBSpline, make_interp_spline

from deepcg.runtime.arrays import Doubles, Integers
from free_energy import slowest_inefficiency
from free_energy.mbar import mbar_weighting

TURN = 2 * np.pi


def bias_at(table: Doubles, values: Doubles) -> Doubles:
    """Return a bias (n,) at pairs of angles (n, 2), rad.

    Parameters
    ----------
    table
        (m, m), on m angles from -pi to pi, both ends included and the same: a periodic cubic
        spline, as that under which ``simulate alanine`` runs.
    """
    angles = np.linspace(-np.pi, np.pi, len(table))
    first = make_interp_spline(angles, table, bc_type="periodic")
    both = make_interp_spline(angles, first.c.T, bc_type="periodic")
    wrapped = (values + np.pi) % TURN - np.pi
    found: Doubles = NdBSpline((first.t, both.t), both.c.T, 3)(wrapped)
    return found


def pooled(
    tables: Sequence[Doubles],
    series: Sequence[Doubles],
    kT: float,
    names: Sequence[str] | None = None,
) -> tuple[Callable[[Doubles], Doubles], Integers]:
    """Return what gives weights of frames (N,), of mean 1, from how often they count, and strata.

    Strata (N,) number the biases, of which several runs may share one.

    Parameters
    ----------
    tables
        Of each run, kJ/mol, see ``bias_at``.
    series
        The angles (n_i, 2) of each run, in order of time.
    names
        Of the runs, for messages; ``None``: "run 1", "run 2", ...

    Raises
    ------
    ValueError
        The runs do not overlap.
    """
    values, counts = np.concatenate(series), [len(part) for part in series]
    groups, kinds = _distinct(tables)
    at_frames = [bias_at(table, values) / kT for table in groups]
    periods = (TURN, TURN)
    slow = [min(slowest_inefficiency(part, periods), len(part)) for part in series]
    bias = np.stack([at_frames[kind] for kind in kinds])
    weighting = mbar_weighting(bias, counts, inefficiencies=slow, names=names)
    return lambda times: weighting(times) * len(times), np.repeat(kinds, counts)


def _distinct(tables: Sequence[Doubles]) -> tuple[list[Doubles], list[int]]:
    """Return tables that differ, and which of them each is."""
    groups: list[Doubles] = []
    kinds = []
    for table in tables:
        same = [k for k, known in enumerate(groups) if np.array_equal(known, table)]
        if not same:
            groups.append(table)
        kinds.append(same[0] if same else len(groups) - 1)
    return groups, kinds
