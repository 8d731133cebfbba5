"""Statistical weights of the frames of a biased run, from the files beside its trajectory."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from deepcg.runtime.arrays import Doubles
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import read_arrays
from deepcg.units import thermal_energy

_COLUMN = "bias_kJ_mol"


def weights_beside(trajectory: Path, n_frames: int) -> Doubles | None:
    """Return exp(bias / kT) (n_frames,), the largest being 1; ``None`` for an unbiased run.

    For ``X.dcd`` the bias is the column ``bias_kJ_mol`` of ``X.log.csv``, the temperature that in
    ``X.bias.npz``: these are there after ``deepcg simulate alanine --bias``.

    Raises
    ------
    InputError
        The log has not as many rows as the trajectory has frames, or no finite bias in one.
    """
    table, log = trajectory.with_suffix(".bias.npz"), trajectory.with_suffix(".log.csv")
    if not table.is_file() or not log.is_file():
        return None
    saved = read_arrays(table)
    if "temperature" not in saved:
        raise InputError(f"{table} does not tell the temperature of the bias")
    kT = thermal_energy(float(saved["temperature"]))
    with log.open(newline="") as file:
        cells = [row.get(_COLUMN) for row in csv.DictReader(file)]
    if len(cells) != n_frames:
        raise InputError(
            f"{log} has {len(cells)} rows for the {n_frames} frames of {trajectory}: resume the "
            f"run, or move {table.name} away to read the frames as unbiased"
        )
    try:
        bias = np.array(cells, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{log}: {_COLUMN} is not a number in each row: {error}") from error
    if not np.isfinite(bias).all():
        raise InputError(f"{log}: {_COLUMN} is not finite in row {int(np.isfinite(bias).argmin())}")
    return np.asarray(np.exp((bias - bias.max()) / kT), np.float64)
