"""What is asked of a simulation of alanine dipeptide, and whether it can be done."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deepcg.atomistic.alanine.molecule import FORCE_FIELDS, SOLVENTS
from deepcg.atomistic.production import check_ranges
from deepcg.runtime.errors import InputError, pick

_CONSTRAINTS = ("none", "hbonds")
_HEAVY = 2.9  # Da
_STORES = ("all", "solute")
_BIASES = ("none", "metadynamics", "umbrella", "file")
_POSITIVE = (
    "ns",
    "waters",
    "temperature",
    "pressure",
    "box_length",
    "friction",
    "dt_fs",
    "interval_ps",
    "cutoff",
    "walkers",
    "threads",
    "checkpoint_ps",
)
_POSITIVE_OF_BIAS = (
    "freeze_after_ns",
    "hill_height",
    "hill_width",
    "hill_every_ps",
    "windows",
    "force_constant",
)
_HYDROGEN = (1.008, 4.0)  # Da; with more, a methyl's carbon would be lighter than its hydrogens


@dataclass(frozen=True, kw_only=True)
class BiasSettings:
    """Bias on phi and psi.

    Parameters
    ----------
    bias
        none, metadynamics (well-tempered), umbrella (one trajectory for each window) or
        file:BIAS.npy, a table (n, n) in kJ/mol on n angles from -pi to pi, indexed [phi, psi]; also
        file:BIAS.npz with such a table as ``bias`` or ``bias_grid``.
    freeze_after_ns
        Metadynamics: how long hills are left, ns. Then the bias stays as it is and the
        production run begins: only this is written, so that exp(bias / kT) weights it exactly.
    hill_height
        Height of the first hills, kJ/mol.
    hill_width
        Width of a hill, rad.
    hill_every_ps
        Time between hills of a walker, ps.
    bias_factor
        Metadynamics: how many times the temperature phi and psi are sampled at in the end.
    windows
        Umbrella: number of windows along phi and along psi; N gives N x N trajectories.
    force_constant
        Umbrella: force constant of the springs, kJ/mol/rad^2.
    """

    bias: str = "none"
    freeze_after_ns: float = 1.0
    hill_height: float = 1.0
    hill_width: float = 0.3
    hill_every_ps: float = 0.5
    bias_factor: float = 10.0
    windows: int = 12
    force_constant: float = 100.0

    @property
    def kind(self) -> str:
        """What comes before a colon."""
        return self.bias.partition(":")[0]


@dataclass(frozen=True, kw_only=True)
class AlanineSimulation:
    """Simulate alanine dipeptide (ACE-ALA-NME) with OpenMM, in water or without.

    Parameters
    ----------
    output
        Folder for the trajectory ``traj.dcd`` (or ``traj.npz``), ``traj.pdb``, ``traj.system.xml``,
        ``traj.log.csv``, ``traj.bias.npz``, ``traj.run.json`` and ``traj.checkpoint.xml``;
        ``traj-0.dcd`` and so on where there are several.
    ns
        Length of the production run of each walker, ns.
    waters
        Number of water molecules (TIP3P), in a cubic box.
    solvent
        explicit (water), vacuum or obc (the implicit solvent OBC2).
    force_field
        ff99sb or ff14sb, both AMBER's.
    constraints
        Bonds of the peptide that are rigid: none or hbonds. Water is rigid.
    hydrogen_mass
        Mass of the peptide's hydrogens, Da, taken from the atoms that they are bonded to: it
        allows longer steps and leaves all averages as they are.
    temperature
        Temperature, K.
    pressure
        Pressure, bar, at which the size of the box is found. The run is at constant volume.
    box_length
        Edge of the box, nm; by default found at the pressure.
    friction
        Friction of the Langevin thermostat, 1/ps.
    dt_fs
        Time step, fs, at most 4, or 2 with hydrogens lighter than 2.9 Da; by default half of
        that, or all of it with rigid bonds to hydrogen.
    interval_ps
        Time between frames, ps.
    equilibration_ps
        Length of the equilibration, ps: at constant volume, and before it as long at the
        pressure, if the box has to be found.
    cutoff
        Cutoff of the direct interactions, nm; by default 0.9, or what fits in the box.
    store
        What is written of a frame: all (positions of all atoms) or solute (positions and
        forces of the peptide's atoms, the forces without bias and from the whole system).
    walkers
        Number of independent runs, from starts of their own; metadynamics fills one common bias.
    seed
        Seed of the start and of the thermostat.
    platform
        OpenMM platform: auto, CPU, CUDA, OpenCL, HIP, Reference.
    threads
        Threads of the CPU platform; by default all. Steps depend on it through rounding.
    checkpoint_ps
        Time between checkpoints, ps.
    resume
        Go on from the last checkpoint, as far as ``ns`` says.
    biasing
        See ``BiasSettings``.
    """

    output: Path
    ns: float = 2.0
    waters: int = 342
    solvent: str = "explicit"
    force_field: str = "ff99sb"
    constraints: str = "none"
    hydrogen_mass: float = 3.0
    temperature: float = 300.0
    pressure: float = 1.0
    box_length: float | None = None
    friction: float = 2.0
    dt_fs: float | None = None
    interval_ps: float = 0.2
    equilibration_ps: float = 100.0
    cutoff: float | None = None
    store: str = "all"
    walkers: int = 1
    seed: int = 1
    platform: str = "auto"
    threads: int | None = None
    checkpoint_ps: float = 10.0
    resume: bool = False
    biasing: BiasSettings = field(default_factory=BiasSettings)


def check_settings(config: AlanineSimulation) -> None:
    """Refuse what cannot be simulated.

    Raises
    ------
    InputError
        Names the first field that is out of its range, or does not go with another.
    """
    pick(FORCE_FIELDS, config.force_field, "force field")
    pick(SOLVENTS, config.solvent, "solvent")
    pick(dict.fromkeys(_CONSTRAINTS), config.constraints, "choice of constraints")
    pick(dict.fromkeys(_STORES), config.store, "choice of what to store:")
    pick(dict.fromkeys(_BIASES), config.biasing.kind, "bias")
    check_ranges(vars(config), positive=_POSITIVE, at_least_0=("equilibration_ps", "seed"))
    check_ranges(vars(config.biasing), positive=_POSITIVE_OF_BIAS, at_least_0=())
    if not 1 < config.biasing.bias_factor < np.inf:
        raise InputError(f"bias_factor is {config.biasing.bias_factor:g}: give more than 1")
    if not _HYDROGEN[0] <= config.hydrogen_mass <= _HYDROGEN[1]:
        low, high = _HYDROGEN
        raise InputError(f"hydrogen_mass is {config.hydrogen_mass:g}: give {low} to {high} Da")
    longest = _longest_step(config)
    if config.dt_fs is not None and config.dt_fs > longest:
        raise InputError(
            f"dt_fs is {config.dt_fs:g}: give at most {longest:g} with constraints "
            f"{config.constraints} and hydrogens of {config.hydrogen_mass:g} Da"
        )
    if config.solvent != "explicit" and (config.box_length or config.cutoff):
        raise InputError(
            f"there is no box with solvent {config.solvent}: leave out box_length, cutoff"
        )
    if config.biasing.kind == "umbrella" and config.walkers != 1:
        raise InputError(f"walkers is {config.walkers}: with umbrella there is one in each window")


def usual_step(config: AlanineSimulation) -> float:
    """Return the default time step, fs.

    An eighth of the shortest period: that of C-H with hydrogens of 3 Da is 16 fs. With rigid bonds
    to hydrogen that of C=O, and the librations of water, are longer.
    """
    longest = _longest_step(config)
    return longest / 2 if config.constraints == "none" else longest


def _longest_step(config: AlanineSimulation) -> float:
    """Return the longest time step, fs, that does no harm to the torsions.

    At a quarter of the shortest period the energy of the peptide's bonds is 2 % (1 % at 1 sigma)
    above that at an eighth, those of its angles and torsions are the same within 2 %.
    """
    return 4.0 if config.hydrogen_mass >= _HEAVY else 2.0
