"""The same DeepPot-SE here and in DeePMD-kit, on oxygens as dense as in water."""

from __future__ import annotations

import os
import pickle
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepcg.geometry.neighbor_list import neighbors
from deepcg.networks import SIZES, DeepPotSE
from deepcg.networks.deeppot_se.deepmd_weights import ELECTRONVOLT, to_deepmd
from deepcg.units import ANGSTROM

N_BEADS, EDGE, CUTOFF = 216, 1.864, 0.6
"""Oxygens, nm, nm: 33 a cubic nanometre, in DeePMD-kit's usual cutoff."""

DTYPES = {"float32": torch.float32, "float64": torch.float64}
FORCE = ELECTRONVOLT / ANGSTROM
"""kJ/mol/nm in an eV/angstrom."""


@dataclass(frozen=True)
class Liquid:
    """A jittered lattice in a cubic box, (1, n, 3) and (1, 3, 3), nm, and forces, kJ/mol/nm."""

    positions: Tensor
    box: Tensor
    forces: Tensor

    @property
    def types(self) -> Tensor:
        """All are oxygens."""
        return torch.zeros(N_BEADS, dtype=torch.long)


def liquid(precision: str) -> Liquid:
    """Return the liquid, with random forces to match."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.cartesian_prod(*[torch.arange(6.0)] * 3) * EDGE / 6
    positions = grid + 0.1 * torch.rand(1, N_BEADS, 3, generator=generator)
    forces = 200 * torch.randn(positions.shape, generator=generator)
    parts = positions, EDGE * torch.eye(3)[None], forces
    return Liquid(*(part.to(DTYPES[precision]) for part in parts))


def network(system: Liquid) -> DeepPotSE:
    """Return DeePMD-kit's default size with random weights."""
    torch.manual_seed(0)
    made = DeepPotSE(CUTOFF, 1, **SIZES["deeppot-se"]["deepmd"]).to(system.positions)
    made.standardize(neighbors(system.positions, system.box, CUTOFF), system.types)
    return made


class Peer:
    """DeePMD-kit with the weights of a network, in a process of its own.

    Parameters
    ----------
    python
        Interpreter of an environment with DeePMD-kit and its PyTorch backend.
    what
        ``call``: energy and forces by a frozen model; ``eager``: before it is frozen; ``step``: of
        training.
    """

    def __init__(
        self, python: Path, what: str, precision: str, threads: int, system: Liquid, made: DeepPotSE
    ) -> None:
        task: dict[str, Any] = {
            "what": what,
            "precision": precision,
            "threads": threads,
            "model": to_deepmd(made, ["O"]),
            "coord": (system.positions[0].double() / ANGSTROM).numpy(),
            "cell": (system.box[0].double() / ANGSTROM).numpy(),
            "forces": (system.forces[0].double() / FORCE).numpy(),
        }
        numbers = ("OMP_NUM_THREADS", "DP_INTRA_OP_PARALLELISM_THREADS")
        environment = os.environ | dict.fromkeys(numbers, str(threads))
        self.process = subprocess.Popen(
            [python, Path(__file__).with_name("deepmd_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.into, self.out = self.process.stdin, self.process.stdout
        pickle.dump(task, self.into)
        self.into.flush()
        self.results: dict[str, Any] = pickle.load(self.out)

    def __call__(self) -> None:
        """Let it work once."""
        self.into.write(b".")
        self.into.flush()
        if not self.out.read(1):
            raise RuntimeError("DeePMD-kit's process has ended")

    @property
    def forces(self) -> Tensor:
        """(1, n, 3), kJ/mol/nm."""
        return torch.as_tensor(self.results["forces"])[None] * FORCE

    @property
    def about(self) -> str:
        """Version, and whether its own operators are there."""
        own = "with" if self.results["operators"] else "without"
        version, pytorch = self.results["version"], self.results["torch"]
        return f"DeePMD-kit {version} on PyTorch {pytorch}, {own} its own operators"


def largest_difference(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference of forces, over their rms."""
    return float((found.double() - wanted.double()).abs().max() / wanted.double().std())


def told(times: dict[str, float], first: str) -> str:
    """Return lines with milliseconds, and how many times as fast as the first each is."""
    return "\n".join(
        f"{name:32s}{1e3 * seconds:9.2f} ms{times[first] / seconds:8.1f} times as fast"
        for name, seconds in times.items()
    )


Work = dict[str, Callable[[], object]]
