"""Larger boxes of a fitted liquid, made of copies of its first frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import sampling
from deepcg.potentials.beads import NetworkPotential
from deepcg.potentials.model_file import Model, load_model
from deepcg.potentials.verlet_list import VerletForces
from deepcg.units import thermal_energy
from deepcg.workflow.fit.run_folder import starts
from deepcg.workflow.sample import SampleConfig

KT = thermal_energy(300.0)
SKIN = SampleConfig(Path()).skin


@dataclass(slots=True)
class Moving:
    """Langevin dynamics under way, by what ``deepcg sample`` moves beads with."""

    forces: VerletForces
    step: sampling.Step
    state: sampling.SamplerState
    generator: torch.Generator
    renewals: int = 0

    def advance(self, n_steps: int) -> None:
        """Take steps, and count how often the list of pairs is made anew."""
        for _ in range(n_steps):
            before = self.forces.pairs
            self.state = self.step(self.state, self.generator)
            self.renewals += self.forces.pairs is not before


def moving(run: Path, tiles: tuple[int, int, int], n: int, dt: float) -> Moving:
    """Return n replicas, with dt in ps, of as many boxes side by side as ``tiles`` says."""
    model = load_model(run, torch.device("cpu"))
    frames, box = starts(run, model, torch.device("cpu"))
    if box is None:
        raise SystemExit(f"{run} is not a liquid in a box")
    corners = torch.cartesian_prod(*map(torch.arange, tiles)).to(frames) @ box
    start = frames[torch.arange(n) % len(frames)]
    start = (start[:, None] + corners[:, None]).flatten(1, 2)
    potential = repeated(model, len(corners))
    forces = VerletForces(potential, torch.tensor(tiles).to(box)[:, None] * box, skin=SKIN)
    masses, generator = model.masses.to(start).repeat(len(corners)), torch.Generator()
    generator.manual_seed(0)
    step = sampling.INTEGRATORS["baoab"](forces, masses, kT=KT, dt=dt, friction=1.0)
    state = sampling.start(forces, start, masses, kT=KT, generator=generator)
    return Moving(forces, step, state, generator)


def repeated(model: Model, times: int) -> NetworkPotential:
    """Return the potential of a model for several times as many beads."""
    of = model.potential
    types: Tensor = of.types.repeat(times)
    return NetworkPotential(list(of.terms), of.cutoff, types).requires_grad_(False)
