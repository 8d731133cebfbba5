"""The untrained potential that a fit begins with: cutoff, size of the network, input scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from inspect import signature

import torch
from torch import Tensor

from deepcg.geometry.neighbor_list import Neighbors
from deepcg.networks import NETWORKS, sizes_of
from deepcg.potentials.beads import NetworkPotential
from deepcg.potentials.model_file import Architecture
from deepcg.potentials.priors import ForceField, Repulsion, onset_of_contacts
from deepcg.training.config import RATE, rate_for
from deepcg.training.samples import ForceSamples
from deepcg.trajectory.frames import Frames
from deepcg.workflow.fit.config import FitConfig

STANDARDIZE_FRAMES = 50


ONSET_FRAMES = 500
"""Searched for contacts at a time."""


CUTOFF, MOLECULE_CUTOFF = 0.6, 0.9
"""Where the user gives none, nm: in a box, and without one, where a solute is seen whole."""


def cutoff_of(config: FitConfig, frames: Frames) -> float:
    """Return the cutoff, nm: by default one for liquids, or for molecules."""
    if config.cutoff is not None:
        return config.cutoff
    return CUTOFF if frames.box is not None else MOLECULE_CUTOFF


def size_of(config: FitConfig, frames: Frames) -> Mapping[str, object]:
    """Return the options of the network's size: by default one for liquids, or for molecules."""
    sizes = sizes_of(config.network)
    if config.network_size != "auto":
        return sizes[config.network_size]
    return sizes["molecule" if frames.box is None and "molecule" in sizes else "small"]


def build(
    config: FitConfig,
    frames: Frames,
    molecular: ForceField | None = None,
    *,
    seed: int | None = None,
) -> tuple[NetworkPotential, Architecture]:
    """Return the untrained potential that a config describes, with a force field or without."""
    n_types = int(frames.types.max()) + 1
    options = {**size_of(config, frames), **config.network_options}
    # Lennard-Jones' walls leave nothing to a repulsion
    walls = molecular is not None and "pairs" in molecular.kinds
    cutoff, repulsion = cutoff_of(config, frames), config.repulsion and not walls
    architecture = Architecture(config.network, options, cutoff, n_types, repulsion)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed if seed is None else seed)
        potential = architecture.build(frames.types.cpu(), config.temperature, molecular)
    potential.to(frames.positions.device, frames.positions.dtype)
    return potential, architecture


def rate_of(config: FitConfig, frames: Frames) -> float:
    """Return the first rate of learning: the config's, or by default one that the width allows."""
    if config.training.learning_rate is not None:
        return config.training.learning_rate
    plain = size_of(replace(config, network_size="auto"), frames)
    known = signature(NETWORKS[config.network]).parameters
    if "fitting" not in known:
        return RATE
    default = {"fitting": known["fitting"].default, **plain}["fitting"]
    given = {"fitting": default, **size_of(config, frames), **config.network_options}["fitting"]
    return rate_for(given, default)


def standardize(potential: NetworkPotential, samples: ForceSamples[Neighbors]) -> None:
    """Scale the network's inputs and place the repulsion, from the training frames."""
    some = torch.linspace(0, len(samples) - 1, min(len(samples), STANDARDIZE_FRAMES)).long()
    for term in potential.terms:
        if isinstance(term, Repulsion):
            onset, held = term.get_buffer("onset"), term.get_buffer("excluded")
            onset.copy_(_onset(samples, potential.types, len(onset), held))
        else:
            term.standardize(samples[some].seen, potential.types)  # type: ignore[operator]


def _onset(samples: ForceSamples[Neighbors], types: Tensor, n_types: int, held: Tensor) -> Tensor:
    """Return the onset of contacts (n_types, n_types), nm, in all frames; 0: there are none."""
    shortest = samples.forces.new_full((n_types, n_types), torch.inf)
    for start in range(0, len(samples), ONSET_FRAMES):
        near = samples[start : start + ONSET_FRAMES].seen
        of_part = onset_of_contacts(near, types, n_types, held)
        shortest = torch.where(of_part > 0, shortest.minimum(of_part), shortest)
    return shortest.where(shortest.isfinite(), 0)
