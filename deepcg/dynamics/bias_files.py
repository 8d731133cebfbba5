"""What the samples of a biased run leave for their reweighting: the bias, and its values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deepcg.dynamics.enhanced_sampling import Enhancement
from deepcg.dynamics.samples import read_samples
from deepcg.runtime.files import write_arrays
from sampling import HarmonicBias, Metadynamics


def write_bias(path: Path, enhanced: Enhancement, temperature: float) -> None:
    """Write the bias as .npz, kJ/mol: a table over axes by name, or the windows of replicas.

    Axes span whole periods and have both of their ends, as those of ``deepcg simulate``.
    """
    bias, variables = enhanced.bias, enhanced.variables
    if variables is None or bias is None:
        return
    about = {"names": np.array(variables.names), "temperature": np.array(temperature)}
    if isinstance(bias, HarmonicBias):
        windows = {"centres": bias.centers, "springs": bias.springs}
        arrays = {name: value.cpu().double().numpy() for name, value in windows.items()}
        write_arrays(path, arrays | about)
    elif isinstance(bias, Metadynamics):
        nodes = [
            torch.linspace(a.low, a.high, a.n + a.periodic, dtype=torch.float64) for a in bias.axes
        ]
        points = torch.stack(torch.meshgrid(*nodes, indexing="ij"), dim=-1)
        table = bias(points.flatten(0, -2).to(bias.bias.coefficients.device))[0].cpu()
        axes = dict(zip(_short(variables.names), (n.numpy() for n in nodes), strict=True))
        write_arrays(path, axes | {"bias": table.view(points.shape[:-1]).numpy()} | about)


def write_values(path: Path, enhanced: Enhancement, trajectories: Sequence[Path]) -> None:
    """Write what was biased, in every frame of every replica, as .npz.

    ``values`` (n_replicas, n_frames, d) in the units of the coordinates and ``bias``
    (n_replicas, n_frames), kJ/mol: weights exp(bias / kT) make frames those of the model.
    """
    bias, variables = enhanced.bias, enhanced.variables
    if variables is None or bias is None:
        return
    values = torch.stack([variables(read_samples(name)[0].double()) for name in trajectories])
    of_frames = torch.stack([bias(v)[0].cpu() for v in values.unbind(1)], dim=1)
    arrays: dict[str, NDArray[np.generic]] = {
        "values": values.numpy(),
        "bias": of_frames.double().numpy(),
        "names": np.array(variables.names),
        "units": np.array(variables.units),
        "periods": np.array([np.nan if p is None else p for p in variables.periods]),
    }
    write_arrays(path, arrays)


def _short(names: Sequence[str]) -> tuple[str, ...]:
    """Return ``phi`` and ``psi`` where there is one of each, else the whole names."""
    short = tuple(name.split()[0] for name in names)
    return short if len(set(short)) == len(short) else tuple(names)
