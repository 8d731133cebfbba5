"""What compiled loops in single precision sample has the structure of what the definition does.

Both sample the same U: the one as ``deepcg sample`` does, with lists of pairs that outlive
steps; the other as it is written down, a function of positions in double precision whose forces
are its gradient. Forces that agree at a few places do not show what a small bias adds up to, nor
what happens at places that only sampling finds.

The runs share no noise, and replicas are independent: of their averages, Hotelling's T² takes the
correlations between bins of g(r) from the data, and its distribution is known. Each of the six
comparisons is refused where chance alone makes as much difference once in 10 000 times: with
other seeds, there is a false alarm in at most 6 of 10 000 runs of this file. Forces
that are 5 % too strong (of deeppot-se-l) or 10 % (of deeppot-se) were refused when tried.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import f as f_distribution
from torch import Tensor, nn

from deepcg.analysis.structure import Sample, TrajectorySet, radial_distributions
from deepcg.geometry.neighbor_list import neighbors
from deepcg.networks import NETWORKS, SIZES, DeepPotSE, DeepPotSEL
from deepcg.networks.deeppot_se.compressed import compressed
from deepcg.potentials.beads import NetworkPotential, energy_and_forces
from deepcg.potentials.priors import Repulsion
from deepcg.potentials.verlet_list import force_field
from deepcg.trajectory.frames import Frames
from deepcg.units import thermal_energy
from sampling import ForceField, baoab, run, start

F32, F64 = torch.float32, torch.float64
KT, CUTOFF, N = thermal_energy(300.0), 0.44, 32
EDGE = (N / 33.4) ** (1 / 3)  # nm, the density of water
BOX = EDGE * torch.eye(3, dtype=F64)
TYPES = torch.zeros(N, dtype=torch.long)
BINS = np.arange(0.0, EDGE / 2, 0.02)  # nm
FIRST = 12  # bins below hold too few pairs for averages to be Gaussian
FORCE = 200.0  # kJ/mol/nm, rms of a network's: a liquid whose g(r) has a first peak of about 2

Array = NDArray[np.float64]


def lattice() -> Tensor:
    """Return the sites of a face-centered cubic lattice (32, 3), nm."""
    corners = torch.cartesian_prod(*[torch.arange(2, dtype=F64)] * 3)
    sites = torch.tensor([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]], dtype=F64)
    return (corners[:, None] + sites).reshape(N, 3) * EDGE / 2


def network(kind: str) -> DeepPotSE | DeepPotSEL:
    """Return a random network whose forces are as strong as those of a fitted one."""
    torch.manual_seed(3)
    made = NETWORKS[kind](CUTOFF, 1, **SIZES[kind]["small"]).to(F64).requires_grad_(False)
    assert isinstance(made, DeepPotSE | DeepPotSEL)
    positions, boxes = lattice() + 0.05 * torch.randn(8, N, 3, dtype=F64), BOX.expand(8, 3, 3)
    made.standardize(neighbors(positions, boxes, CUTOFF), TYPES)
    _, forces = energy_and_forces(NetworkPotential([made], CUTOFF, TYPES), positions, boxes)
    *_, last, _ = made.fitting.parameters()
    last *= FORCE / forces.square().mean().sqrt()
    return made


def potential(term: nn.Module) -> NetworkPotential:
    terms = [term, Repulsion(torch.full((1, 1), 0.27), KT)]
    return NetworkPotential(terms, CUTOFF, TYPES).requires_grad_(False)


def averages(forces: ForceField, dtype: torch.dtype, replicas: int, seed: int) -> dict[str, Array]:
    """Return averages of replicas over 2.4 ps: g(r) (replicas, bins), and U (replicas, 1), kT."""
    generator, masses = torch.Generator().manual_seed(seed), torch.full((N,), 18.0, dtype=dtype)
    step = baoab(forces, masses, kT=KT, dt=0.01, friction=10.0)
    sites = lattice().to(dtype).repeat(replicas, 1, 1)
    begin = start(forces, sites, masses, kT=KT, generator=generator)
    states = [s for _, s in run(step, begin, generator, n_steps=300, every=5)][12:]
    paths = torch.stack([s.positions for s in states], dim=1).to(F64)
    frames = [Frames(path, BOX.expand(len(path), 3, 3), None, TYPES) for path in paths]
    (curve,) = radial_distributions(Sample(TrajectorySet("", frames, None, ""), frames, 1.0), BINS)
    energy = torch.stack([s.energy for s in states]).to(F64).mean(0) / KT
    return {"g(r)": curve.blocks[:, FIRST:], "U": energy.numpy()[:, None]}


@cache
def by_definition(kind: str) -> dict[str, Array]:
    term = network(kind)
    term.plain = True
    whole = potential(term)
    # a mere function offers no lists and no loops: all its forces are by autograd
    return averages(force_field(lambda x, box: whole(x, box), BOX), F64, 64, seed=1)


def as_in_sampling(name: str, seed: int) -> dict[str, Array]:
    term: nn.Module = network(name.removesuffix("-compressed"))
    if name.endswith("-compressed"):
        assert isinstance(term, DeepPotSE)
        term, _ = compressed(term, 0.2, 1e-4)
    return averages(force_field(potential(term).to(F32), BOX.to(F32)), F32, 192, seed)


def chance(a: Array, b: Array) -> float:
    """Return how likely means of samples (n, p) of one Gaussian are at least as far apart."""
    (n_a, p), n_b = a.shape, len(b)
    rest = n_a + n_b - 2
    covariance = ((n_a - 1) * np.cov(a.T) + (n_b - 1) * np.cov(b.T)).reshape(p, p) / rest
    apart = a.mean(0) - b.mean(0)
    t2 = n_a * n_b / (n_a + n_b) * apart @ np.linalg.solve(covariance, apart)
    return float(f_distribution.sf(t2 * (rest + 1 - p) / (rest * p), p, rest + 1 - p))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seed"), [("deeppot-se-l", 2), ("deeppot-se", 3), ("deeppot-se-compressed", 4)]
)
def test_structure_is_that_of_the_definition(name: str, seed: int) -> None:
    wanted = by_definition(name.removesuffix("-compressed"))
    assert wanted["g(r)"].mean(0).max() > 1.5  # the comparison is of something
    found = as_in_sampling(name, seed)
    chances = {what: chance(found[what], wanted[what]) for what in found}
    assert min(chances.values()) > 1e-4, chances
