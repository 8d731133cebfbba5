"""Alanine dipeptide in water by GROMACS: a microscopic reference from another code.

Takes the System and the topology that `deepcg simulate alanine` writes, with no rigid bonds in the
peptide, and the table of a bias on phi and psi, which GROMACS knows as a CMAP. Prints the commands
to run; the second of them, given again, goes on after an interruption. The trajectory, of a run
that has ended or not, is compared with OpenMM in some frames, and becomes what `--store solute`
writes: the peptide with the unbiased forces on it, for `deepcg fit` and `deepcg fes --reference`.

    python benchmarks/alanine_gromacs.py prepare SYSTEM.xml START.pdb BIAS|none FOLDER [ns] [seed]
    python benchmarks/alanine_gromacs.py check FOLDER
    python benchmarks/alanine_gromacs.py collect FOLDER OUT.npz [ps to skip]
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from scipy.ndimage import spline_filter

from deepcg.atomistic.alanine.molecule import C_ALPHA, N_ATOMS, PHI, PSI
from deepcg.atomistic.alanine.solute_frames import SoluteFrames
from deepcg.atomistic.alanine.torsion_bias import (
    BIAS_GROUP,
    UNBIASED,
    BiasedSystem,
    Table,
    read_table,
    write_table,
)
from deepcg.atomistic.equilibration import Thermostat, equilibrate, minimize
from deepcg.atomistic.production import RunFiles
from deepcg.atomistic.system import open_context, open_platform, read_system
from deepcg.mapping.collective_variables import dihedral
from deepcg.runtime.errors import InputError
from deepcg.runtime.progress import silent
from deepcg.trajectory.formats.trr import TrrFile, open_trr
from deepcg.trajectory.topology import MoleculeGraph, make_whole
from sampling.spline import Axis, Spline

TEMPERATURE = 300.0
FRICTION = 2.0  # 1/ps
STEP = 0.004  # ps
EVERY = 50  # steps from frame to frame
EQUILIBRATION = 5000  # steps of half the length, by OpenMM
CHUNK = 500  # frames that are read at once
CHECKED = 10  # frames that are compared

PEPTIDE = range(N_ATOMS)
WATER = range(N_ATOMS, N_ATOMS + 3)
"""Atoms of the first; all others are like it."""

# The integrator splits a step as OpenMM's LangevinMiddleIntegrator does.
SETTINGS = f"""\
integrator = sd
dt = {STEP}
nsteps = {{n_steps}}
ld-seed = {{seed}}
tc-grps = System
ref-t = {TEMPERATURE}
tau-t = {1 / FRICTION}
gen-vel = yes
gen-temp = {TEMPERATURE}
gen-seed = {{seed}}
comm-mode = Linear
nstcomm = 100
constraints = none
cutoff-scheme = Verlet
verlet-buffer-tolerance = 0.005
coulombtype = PME
fourierspacing = 0.12
rcoulomb = {{cutoff}}
rvdw = {{cutoff}}
vdw-modifier = None
DispCorr = EnerPres
nstxout = {EVERY}
nstfout = {EVERY}
nstcalcenergy = 100
nstenergy = 1000
nstlog = 250000
"""

# One warning: bonds to hydrogens of 3 Da have periods of 16 fs, less than five steps.
COMMANDS = """\
cd {folder}
gmx grompp -f md.mdp -c start.gro -p topol.top -o md.tpr -maxwarn 1
gmx mdrun -deffnm md -cpi md.cpt -nt 1"""

KINDS = (
    openmm.HarmonicBondForce,
    openmm.HarmonicAngleForce,
    openmm.PeriodicTorsionForce,
    openmm.NonbondedForce,
)

Floats = NDArray[np.floating[Any]]
Forces = Mapping[type[openmm.Force], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="prepare|check|collect")
    command = commands.add_parser("prepare", help="write a folder for GROMACS")
    command.add_argument("system", type=Path, help="an OpenMM System as XML, without its bias")
    command.add_argument("topology", type=Path, help="the same as PDB, with positions")
    command.add_argument("bias", help="none, or a .npy or .npz as for simulate alanine")
    command.add_argument("folder", type=Path)
    command.add_argument("ns", type=float, nargs="?", default=40.0)
    command.add_argument("seed", type=int, nargs="?", default=1)
    command.set_defaults(run=prepare)
    command = commands.add_parser("check", help="compare some frames with OpenMM")
    command.add_argument("folder", type=Path)
    command.set_defaults(run=check)
    command = commands.add_parser("collect", help="write the frames of the peptide")
    command.add_argument("folder", type=Path)
    command.add_argument("output", type=Path, help="a .npz")
    command.add_argument("skip_ps", type=float, nargs="?", default=100.0)
    command.set_defaults(run=collect)
    asked = vars(parser.parse_args())
    run = asked.pop("run")
    try:
        run(**asked)
    except InputError as error:
        parser.error(str(error))


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """What is simulated: a System, its topology, and the table of a bias that is not in it."""

    system: openmm.System
    topology: mdtraj.Topology
    table: Table | None

    @classmethod
    def of(cls, files: RunFiles) -> Model:
        """Return what `prepare` left in a folder."""
        table = files.named(".bias.npz")
        return cls(
            read_system(files.system),
            mdtraj.load_topology(str(files.topology)),
            read_table(table) if table.exists() else None,
        )

    @property
    def acting(self) -> openmm.System:
        """The System with its bias."""
        return self.system if self.table is None else BiasedSystem(self.system, self.table).system

    @property
    def bias(self) -> Spline:
        """The bias of (phi, psi), kJ/mol, as OpenMM would have it; 0 where there is none."""
        table = np.zeros((5, 5)) if self.table is None else self.table
        axis = Axis(-math.pi, math.pi, len(table) - 1, periodic=True)
        weights = spline_filter(table[:-1, :-1], mode="grid-wrap")
        return Spline([axis, axis], torch.from_numpy(weights))


def prepare(system: Path, topology: Path, bias: str, folder: Path, ns: float, seed: int) -> None:
    """Write a folder for GROMACS, and print the commands to run there."""
    files = files_of(folder)
    if files.named(".trr").exists():
        raise InputError(f"{folder} holds a run: give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(system, files.system)
    shutil.copyfile(topology, files.topology)
    files.named(".bias.npz").unlink(missing_ok=True)
    if bias != "none":
        write_table(files.named(".bias.npz"), read_table(Path(bias)), TEMPERATURE)
    model = Model.of(files)
    forces = forces_of(model.system)
    (folder / "topol.top").write_text(topol(model, forces))
    cutoff = forces[openmm.NonbondedForce].getCutoffDistance()._value
    n_steps = round(ns * 1000 / (STEP * EVERY)) * EVERY
    files.named(".mdp").write_text(SETTINGS.format(n_steps=n_steps, seed=seed, cutoff=cutoff))
    start = mdtraj.load(str(files.topology)).xyz[0]
    equilibrated(model, start, seed).save_gro(str(folder / "start.gro"), precision=6)
    print(COMMANDS.format(folder=folder))


def check(folder: Path) -> None:
    """Print how far some frames are from OpenMM, rms, in kJ/mol and kJ/mol/nm."""
    compared = list(differences(files_of(folder)))
    print(f"GROMACS less OpenMM, rms of {len(compared)} frames")
    for name in compared[0]:
        values = np.stack([frame[name] for frame in compared])
        print(f"{name:44s}{np.sqrt(np.square(values).mean()):12.3g}")


def collect(folder: Path, output: Path, skip_ps: float) -> None:
    """Write the frames of the peptide from a time on."""
    began, files = time.perf_counter(), files_of(folder)
    model = Model.of(files)
    box = np.array([vector._value for vector in model.system.getDefaultPeriodicBoxVectors()])
    constants = {"temperature": np.array(TEMPERATURE), "box": box}
    if model.table is not None:
        constants["bias_grid"] = model.table
    frames = SoluteFrames(output, N_ATOMS, constants)
    frames.create()
    peptide, bias = model.topology.subset(PEPTIDE), model.bias
    file = open_trr(files.named(".trr"), unfinished=True)
    n = file.n_frames
    for first in range(0, n, CHUNK):
        times, x, _, f = read(file, peptide, first, min(CHUNK, n - first))
        x -= x[:, [C_ALPHA]]
        angles, energies, f = without_bias(bias, x, f)
        for k in np.flatnonzero(times >= skip_ps):
            frames.append(x[k], f[k], energies[k], *angles[k])
    frames.publish()
    frames.records.unlink()
    if not output.exists():
        raise InputError(f"no frame is later than {skip_ps:g} ps yet: wait, or skip less")
    print(f"{n} frames read, {n / (time.perf_counter() - began):.0f} a second")


def without_bias(bias: Spline, positions: Floats, forces: Floats) -> tuple[Floats, Floats, Floats]:
    """Return phi and psi (n, 2), rad, the bias (n,), kJ/mol, and the forces without it.

    Parameters
    ----------
    positions
        Of the peptide, whole, (n, 22, 3), nm.
    forces
        On it, of as many frames, kJ/mol/nm.
    """
    x = torch.from_numpy(positions).double().requires_grad_()
    angles = torch.stack([dihedral(x[:, list(atoms)]) for atoms in (PHI, PSI)], dim=-1)
    energies, slope = bias(angles.detach())
    (gradient,) = torch.autograd.grad(angles, x, slope)
    return angles.detach().numpy(), energies.numpy(), forces + gradient.numpy()


def differences(files: RunFiles) -> Iterator[dict[str, Floats]]:
    """Yield what GROMACS has more than OpenMM, in frames of which it wrote the energies."""
    model = Model.of(files)
    platform = openmm.Platform.getPlatform("Reference")
    context = open_context(model.acting, openmm.VerletIntegrator(STEP), platform)
    spline = model.bias
    times, biases, potentials = energies_of(files.named(".edr"), model)
    file = open_trr(files.named(".trr"), unfinished=True)
    frames = np.round(times / (STEP * EVERY)).astype(int)
    last = np.searchsorted(frames, file.n_frames) - 1
    for k in np.unique(np.linspace(0, last, CHECKED).astype(int)):
        _, x, box, f = read(file, model.topology, int(frames[k]), 1)
        context.setPeriodicBoxVectors(*box[0].astype(float))
        context.setPositions(x[0].astype(float))
        potential, forces = energy_and_forces(context, UNBIASED)
        bias, pull = energy_and_forces(context, {BIAS_GROUP})
        _, collected, unbiased = without_bias(spline, x[:, PEPTIDE], f[:, PEPTIDE])
        more = f[0] - forces - pull
        yield {
            "potential energy with the bias": potentials[k] - potential - bias,
            "bias": biases[k] - bias,
            "bias, as collected": collected[0] - bias,
            "forces on the peptide with the bias": more[PEPTIDE],
            "forces on the peptide, as collected": unbiased[0] - forces[PEPTIDE],
            "forces on the water": more[N_ATOMS:],
        }


def energy_and_forces(context: openmm.Context, groups: Iterable[int]) -> tuple[float, Floats]:
    """Return the energy, kJ/mol, and forces (n_atoms, 3), kJ/mol/nm, of groups of forces."""
    state = context.getState(energy=True, forces=True, groups=set(groups))
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def energies_of(path: Path, model: Model) -> tuple[Floats, Floats, Floats]:
    """Return times (n,), ps, and the bias (n,) and energy with it (n,) of GROMACS, kJ/mol."""
    names = ["Potential"] if model.table is None else ["CMAP-Dih.", "Potential"]
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "energy.xvg"
        subprocess.run(
            ["gmx", "-quiet", "energy", "-f", path, "-o", table, "-xvg", "none", "-dp"],
            input="\n".join([*names, "", ""]),
            text=True,
            check=True,
            capture_output=True,
        )
        times, *bias, potential = np.loadtxt(table, ndmin=2).T
    return times, bias[0] if bias else np.zeros_like(times), potential


def read(
    file: TrrFile, topology: mdtraj.Topology, first: int, n: int
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return times (n,), positions, boxes (n, 3, 3) and forces of the atoms that a topology has.

    They are the first ones of the file. Molecules are whole; ps, nm, kJ/mol/nm.
    """
    block = next(file.blocks(n, first, first + n))
    times = np.array([frame.time for frame in file.frames[first : first + n]])
    x, f = (values[:, : topology.n_atoms] for values in (block.positions, block.forces))
    return times, make_whole(x, block.box, MoleculeGraph(topology).spanning_tree), block.box, f


def equilibrated(model: Model, positions: Floats, seed: int) -> mdtraj.Trajectory:
    """Return a frame to start from, after a short run of OpenMM."""
    thermostat = Thermostat(TEMPERATURE, FRICTION, STEP / 2, seed, open_platform(), threads=1)
    system = model.acting
    state = minimize(thermostat, system, positions.astype(float))
    context = equilibrate(thermostat, system, state, n_steps=EQUILIBRATION, progress=silent)
    state = context.getState(positions=True)
    frame = mdtraj.Trajectory(state.getPositions(asNumpy=True)._value, model.topology)
    frame.unitcell_vectors = state.getPeriodicBoxVectors(asNumpy=True)._value[None]
    return frame


def topol(model: Model, forces: Forces) -> str:
    """Return a System with its bias as a topology of GROMACS.

    Raises
    ------
    InputError
        Bonds of the peptide are rigid; the table of the bias is of an even width.
    """
    if any(terms(model.system, "Constraint", 2, PEPTIDE)):
        raise InputError("bonds of the peptide are rigid: give a System with --constraints none")
    types = [atom_type(model.system, forces, i) for i in (*PEPTIDE, *WATER)]
    # two distances from the oxygen, and the longest, between the hydrogens
    near, _, far = sorted(length for _, (length,) in terms(model.system, "Constraint", 2, WATER))
    n_waters = (model.system.getNumParticles() - N_ATOMS) // len(WATER)
    bias_types, bias = ([], []) if model.table is None else cmap(model.table)
    return "".join(
        [
            section("defaults", ["1 2 no 1 1"]),
            section("atomtypes", types),
            section("cmaptypes", bias_types),
            molecule(model, forces, "ALA", PEPTIDE),
            section("cmap", bias),
            molecule(model, forces, "WAT", WATER),
            section("settles", [f"1 1 {near:.10g} {far:.10g}"]),
            section("system", ["alanine dipeptide in water"]),
            section("molecules", ["ALA 1", f"WAT {n_waters}"]),
        ]
    )


def section(name: str, rows: list[str]) -> str:
    """Return a part of a topology."""
    return "".join(f"{row}\n" for row in [f"[ {name} ]", *rows])


def molecule(model: Model, forces: Forces, name: str, atoms: range) -> str:
    """Return the sections that say what a molecule is."""
    bonds, angles, torsions, nonbonded = (forces[kind] for kind in KINDS)
    exceptions = list(terms(nonbonded, "Exception", 2, atoms))
    rows = {
        "moleculetype": [f"{name} 0"],  # all pairs that are left out are named below
        "atoms": [
            f"{k} T{i} 1 {model.topology.atom(i).residue.name} {model.topology.atom(i).name} {k}"
            for k, i in enumerate(atoms, 1)
        ],
        "bonds": [f"{at} 1 {r:.10g} {k:.10g}" for at, (r, k) in terms(bonds, "Bond", 2, atoms)],
        "angles": [
            f"{at} 1 {math.degrees(angle):.10g} {k:.10g}"
            for at, (angle, k) in terms(angles, "Angle", 3, atoms)
        ],
        "dihedrals": [
            f"{at} 9 {math.degrees(phase):.10g} {k:.10g} {n}"
            for at, (n, phase, k) in terms(torsions, "Torsion", 4, atoms)
        ],
        "pairs": [
            f"{at} 2 1 {charges:.10g} 1 {sigma:.10g} {epsilon:.10g}"
            for at, (charges, sigma, epsilon) in exceptions
            if charges or epsilon
        ],
        "exclusions": [at for at, _ in exceptions],
    }
    return "".join(section(*item) for item in rows.items())


def atom_type(system: openmm.System, forces: Forces, i: int) -> str:
    """Return the row of an atom's type, of which there is no other."""
    parameters = forces[openmm.NonbondedForce].getParticleParameters(i)
    charge, sigma, epsilon = (value._value for value in parameters)
    mass = system.getParticleMass(i)._value
    return f"T{i} 1 {mass:.10g} {charge:.10g} A {sigma:.10g} {epsilon:.10g}"


def cmap(table: Table) -> tuple[list[str], list[str]]:
    """Return the row of a bias as a type, on the points of its table, and that of where it acts.

    Raises
    ------
    InputError
        The number of points is odd: GROMACS 2022 then takes slopes half a point from their place.
    """
    n = len(table) - 1
    if n % 2:
        raise InputError(
            f"the table of the bias is {n + 1} wide, with both ends: GROMACS needs an odd number"
        )
    atoms = (*PHI, PSI[3])
    lines = [
        f"{' '.join(f'T{i}' for i in atoms)} 1 {n} {n}",
        *(" ".join(f"{value:.10g}" for value in row) for row in table[:-1, :-1]),
    ]
    return ["\\\n".join(lines)], [" ".join(f"{i + 1}" for i in atoms) + " 1"]


def terms(owner: Any, kind: str, n_atoms: int, atoms: range) -> Iterator[tuple[str, list[float]]]:
    """Yield numbers of atoms, from 1, and parameters of the terms within a molecule.

    Parameters
    ----------
    owner
        A force or a System.
    kind
        What it calls a term, of so many atoms.
    """
    parameters_of = getattr(owner, f"get{kind}Parameters")
    for k in range(getattr(owner, f"getNum{kind}s")()):
        values = parameters_of(k)
        if all(i in atoms for i in values[:n_atoms]):
            numbers = " ".join(str(i - atoms.start + 1) for i in values[:n_atoms])
            yield numbers, [getattr(value, "_value", value) for value in values[n_atoms:]]


def forces_of(system: openmm.System) -> Forces:
    """Return the forces of a System by kind.

    Raises
    ------
    InputError
        They are not those of a peptide in explicit water.
    """
    found = {type(force): force for force in system.getForces()}
    found.pop(openmm.CMMotionRemover, None)
    if set(found) != set(KINDS):
        names = ", ".join(kind.__name__ for kind in found)
        raise InputError(f"the System has {names}: give that of explicit water, without a bias")
    return found


def files_of(folder: Path) -> RunFiles:
    """Return the names of files in a folder."""
    return RunFiles(folder, "md")


if __name__ == "__main__":
    main()
