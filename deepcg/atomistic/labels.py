"""Labels: the forces of a trajectory of positions, computed from the System that made it.

A force is minus the gradient of the System's energy, without the forces of constraints. A virtual
site has no motion of its own: what acts on it is passed on to the atoms that place it, and its own
force is 0, so that the forces of a molecule's particles add up to the force on the molecule.
(OpenMM passes the force on but leaves it in place as well: such sums would count it twice.)
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
from numpy.typing import NDArray

from deepcg import __version__
from deepcg.atomistic.system import open_context, open_platform, read_system
from deepcg.potentials.priors.system_forces import without_bias
from deepcg.runtime.arrays import Doubles
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import to_disk, write_whole, writing
from deepcg.runtime.locks import folder_locked
from deepcg.runtime.progress import Progress, silent
from deepcg.runtime.provenance import file_hash
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.reader import Trajectory, iter_numbered_frames, open_trajectory
from deepcg.trajectory.skipped_frames import SkippedFrames

_log = logging.getLogger(__name__)


class FrameError(InputError):
    """A frame cannot be labelled."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The files of a labelled trajectory: forces and energies as ``.npy``, provenance as JSON.

    ``forces`` holds (n_frames, n_atoms, 3), kJ/mol/nm, and ``energies`` (n_frames,), kJ/mol, of
    the whole System; both can be memory-mapped.
    """

    forces: Path
    energies: Path
    provenance: Path

    @classmethod
    def of(cls, trajectory: Path, folder: Path | None = None) -> Labels:
        """Return where the labels of a trajectory are: beside it, or in another folder."""
        stem = trajectory.name if trajectory.is_dir() else trajectory.stem
        folder = trajectory.parent if folder is None else folder
        return cls(
            folder / f"{stem}.forces.npy",
            folder / f"{stem}.energies.npy",
            folder / f"{stem}.forces.json",
        )

    @property
    def parts(self) -> Labels:
        """Those that are not complete."""
        stem = self.forces.name.removesuffix(".forces.npy")
        return Labels.of(self.forces.with_name(stem + ".partial.dcd"))

    @property
    def lock(self) -> Path:
        """The lock file of who makes them."""
        return self.forces.with_name(f".{self.forces.name}.lock")

    @property
    def files(self) -> tuple[Path, Path, Path]:
        """Forces, energies, provenance."""
        return self.forces, self.energies, self.provenance

    def remove(self) -> None:
        """Delete the files that are there."""
        for file in self.files:
            file.unlink(missing_ok=True)


def label(
    trajectory: str | Path,
    *,
    topology: str | Path | None = None,
    system: str | Path | None = None,
    output: Path | None = None,
    chunk: int | None = None,
    platform: str = "auto",
    threads: int | None = None,
    bonds: str = "auto",
    trust: bool = False,
    forces_without: Sequence[str] = (),
    forces_with: Sequence[str] = (),
    skip_frames: str | None = None,
    progress: Progress = silent,
) -> Labels:
    """Compute the forces of every frame, once, and return the files that hold them.

    Labels of this trajectory and System that are there already are kept, beside the trajectory
    or in ``output``. Others are replaced, with a note in the log. What was cut off goes on
    where it was.

    Parameters
    ----------
    output
        Folder for the files, where the trajectory's own is not to be written.
    chunk
        Frames in memory at a time; by default 500, or fewer where these are above 50 MB.
    threads
        Threads of the CPU platform; by default all.
    bonds
        Beside those of the topology, as of `deepcg.trajectory.reader.open_trajectory`.
    trust
        Whether code in the System may be run.
    forces_without, forces_with
        Forces of the System to leave out, and to keep although they look like a bias.
    skip_frames
        Frames that are not computed, in the form of ``--skip-frames``: their forces are NaN.

    Raises
    ------
    InputError
        There is no System, it has a bias, or it has other particles than the trajectory; a frame
        has no finite energy (it is named); a file of forces is in the way that was not computed
        here; another process computes these labels.
    """
    path = Path(trajectory)
    system_path = _system_path(path, system)
    skipped = SkippedFrames.of(skip_frames)
    chosen = {"forces_without": [*forces_without], "forces_with": [*forces_with]}
    task = _task(path, system_path, chosen, skip_frames)
    beside, labels = Labels.of(path), Labels.of(path, output)
    if _are_done(beside, task):
        _tidy(beside)
        return beside
    with _locked(labels):
        if _are_done(labels, task):
            labels.parts.remove()
            return labels
        _make_room(labels)
        source = open_trajectory(
            path,
            topology=topology,
            system=system_path,
            bonds=bonds,
            trust=trust,
            skipped=skipped,
        )
        whole = read_system(system_path, trust=trust)
        used = without_bias(whole, forces_without, forces_with, system_path)
        work = _Work.on(source, used, task, labels, open_platform(platform), threads)
        try:
            work.run(chunk or min(500, max(1, 4_000_000 // source.n_atoms)), progress)
        except FrameError:
            work.parts.remove()
            raise
    return labels


def _take_room(file: Path) -> None:
    """Take all that a file will need from the disk: to write a full one by memory is to die."""
    if not hasattr(os, "posix_fallocate"):
        return
    with file.open("r+b") as opened:
        try:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # some file systems cannot
                raise


def _system_path(trajectory: Path, named: str | Path | None) -> Path:
    stem = trajectory if trajectory.is_dir() else trajectory.with_suffix("")
    path = stem.with_name(stem.name + ".system.xml") if named is None else Path(named)
    if not trajectory.exists():
        raise InputError(f"there is no trajectory {trajectory}")
    if not path.is_file():
        raise InputError(f"there is no System {path}: give --system FILE (an OpenMM System)")
    return path


def _task(
    trajectory: Path, system: Path, chosen: dict[str, list[str]], skip_frames: str | None
) -> dict[str, object]:
    """Return what tells these labels from those of other files."""
    with system.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "made_by": "deepcg label",
        "units": "kJ/mol/nm",
        "energy_units": "kJ/mol",
        "system_sha256": digest,
        "trajectory_hash": file_hash(trajectory),
        **{key: names for key, names in chosen.items() if names},
        "skip_frames": skip_frames or "",
    }


def _record(path: Path) -> dict[str, object]:
    """Return what a provenance file says; nothing if it is not there or not whole."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _describes(provenance: Path, task: dict[str, object]) -> bool:
    """Whether labels serve a task: its own, or those that leave out no frame."""
    return _is_of(provenance, task) or _is_of(provenance, {**task, "skip_frames": ""})


def _is_of(provenance: Path, task: dict[str, object]) -> bool:
    record = {"skip_frames": "", **_record(provenance)}  # older ones left out none
    chosen = ("forces_without", "forces_with")
    return all(record.get(key) == task.get(key) for key in (*task, *chosen))


def _are_done(labels: Labels, task: dict[str, object]) -> bool:
    return _describes(labels.provenance, task) and labels.forces.exists()


def _locked(labels: Labels) -> AbstractContextManager[None]:
    return folder_locked(labels.lock.parent, labels.lock.name)


def _tidy(labels: Labels) -> None:
    """Remove what a process left that was killed when all was done."""
    if labels.lock.exists():
        with suppress(InputError), _locked(labels):
            labels.parts.remove()


def _make_room(labels: Labels) -> None:
    """Remove labels of other files, but no forces that somebody else put there."""
    if not labels.forces.exists():
        return
    if _record(labels.provenance).get("made_by") != "deepcg label":
        raise InputError(
            f"{labels.forces} was not computed here: move it away, or give another output folder"
        )
    _log.warning("%s belongs to other files: it is computed again", labels.forces)
    labels.remove()


@dataclass(frozen=True, slots=True)
class _Work:
    """A labelling under way: its results lie in ``parts`` until they are complete."""

    source: Trajectory
    task: dict[str, object]
    labels: Labels
    parts: Labels
    context: openmm.Context
    virtual_sites: list[int]

    @classmethod
    def on(
        cls,
        source: Trajectory,
        system: openmm.System,
        task: dict[str, object],
        labels: Labels,
        platform: openmm.Platform,
        threads: int | None,
    ) -> _Work:
        """Return the work on a source, none of it done."""
        n_particles = system.getNumParticles()
        if n_particles != source.n_atoms:
            raise InputError(
                f"{source.trajectory} has {source.n_atoms} atoms, its System {n_particles} "
                "particles: forces need the positions of all"
            )
        context = open_context(system, openmm.VerletIntegrator(0.001), platform, threads)
        sites = [i for i in range(n_particles) if system.isVirtualSite(i)]
        return cls(source, task, labels, labels.parts, context, sites)

    def run(self, chunk: int, progress: Progress) -> None:
        """Do what is not done yet."""
        done = self.begin()
        forces = np.lib.format.open_memmap(self.parts.forces, mode="r+")
        energies = np.lib.format.open_memmap(self.parts.energies, mode="r+")
        parts = iter_numbered_frames(self.source, chunk=chunk, start=done, with_forces=False)
        for first, frames in parts:
            block = slice(first, first + len(frames))
            energies[block], forces[block] = self.evaluate(frames, first=first)
            energies.flush()
            forces.flush()
            done = first + len(frames)
            write_whole(self.parts.provenance, json.dumps({**self.task, "frames_done": done}))
            progress(done, self.source.n_frames, "compute forces")
        self.finish()

    def begin(self) -> int:
        """Return how many frames are done; make files for all of them where none are."""
        record = _record(self.parts.provenance)
        files = (self.parts.forces, self.parts.energies)
        if self.parts.forces.exists() and not self.parts.energies.exists():
            with suppress(FileNotFoundError):  # what finished was killed between the two
                os.replace(self.labels.energies, self.parts.energies)
        if _is_of(self.parts.provenance, self.task) and all(file.exists() for file in files):
            return int(str(record["frames_done"]))
        self.parts.remove()
        n_frames, n_atoms = self.source.n_frames, self.source.n_atoms
        for file, shape in zip(files, ((n_frames, n_atoms, 3), (n_frames,)), strict=True):
            dtype = np.float32 if file == self.parts.forces else np.float64
            with writing(file):
                table = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
                _take_room(file)
                table[~self.source.skipped.kept(0, n_frames)] = np.nan
                table.flush()
        return 0

    def evaluate(self, frames: Frames, *, first: int) -> tuple[Doubles, NDArray[np.float32]]:
        """Return energies (f,), kJ/mol, and forces (f, n, 3), kJ/mol/nm; ``first`` is a number."""
        energies = np.empty(len(frames))
        forces = np.empty(frames.positions.shape, np.float32)
        # the neighbor list outlives a frame: with a new one a block's numbers are its own
        self.context.reinitialize()
        for i, positions in enumerate(frames.positions.double().numpy()):
            box = None if frames.box is None else frames.box[i].double().numpy()
            energies[i], forces[i] = self.evaluate_frame(positions, box, first + i)
        return energies, forces

    def evaluate_frame(
        self, positions: Doubles, box: Doubles | None, number: int
    ) -> tuple[float, Doubles]:
        """Return the energy, kJ/mol, and forces (n, 3), kJ/mol/nm, of a frame."""
        where = f"frame {number} (from 0) of {self.source.trajectory}"
        # arrays, never lists of Vec3 with units: these cost more than the forces do
        if box is not None:
            self.context.setPeriodicBoxVectors(*box)
        elif self.context.getSystem().usesPeriodicBoundaryConditions():
            raise FrameError(f"{where} has no box, but its System is periodic")
        self.context.setPositions(positions)
        self.context.computeVirtualSites()
        try:
            state = self.context.getState(energy=True, forces=True)
        except openmm.OpenMMException as error:
            raise FrameError(f"{where}: {str(error).splitlines()[0]}") from error
        energy: float = state.getPotentialEnergy()._value
        forces: Doubles = state.getForces(asNumpy=True)._value
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise FrameError(
                f"{where}: energy {energy:g} kJ/mol, or a force, is not finite: do atoms overlap?"
            )
        forces[self.virtual_sites] = 0
        return energy, forces

    def finish(self) -> None:
        """Give the files their names, the forces last: without them there are no labels."""
        record = {
            **self.task,
            "n_frames": self.source.n_frames,
            "n_atoms": self.source.n_atoms,
            "versions": {"deepcg": __version__, "openmm": openmm.version.full_version},
            "platform": self.context.getPlatform().getName(),
        }
        to_disk(self.parts.energies)
        to_disk(self.parts.forces)
        os.replace(self.parts.energies, self.labels.energies)
        write_whole(self.labels.provenance, json.dumps(record, indent=2) + "\n")
        os.replace(self.parts.forces, self.labels.forces)
        self.parts.remove()
