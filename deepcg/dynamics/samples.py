"""The files of a sampling run, one frame of each replica and one row of the log at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mdtraj
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import sampling
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import (
    make_folder,
    read_tensors,
    replacing,
    to_disk,
    write_bytes,
    write_tensors,
    writing,
)
from deepcg.trajectory.formats import open_trajectory_file
from deepcg.trajectory.formats.dcd_writer import DcdFormat
from deepcg.trajectory.pdb_writer import save_pdb

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Samples:
    """The folder ``samples/``: ``000.dcd`` ..., ``topology.pdb``, ``log.csv``, ``checkpoint.pt``.

    The checkpoint before the last is kept as ``checkpoint.previous.pt``, should the last
    be damaged. Row k of the log is frame k of every replica. Nothing stays open between frames,
    so a run that is killed leaves whole frames up to the last.
    """

    folder: Path
    trajectories: list[Path]
    topology: mdtraj.Topology
    box: NDArray[np.float64] | None
    format: DcdFormat

    @classmethod
    def of(
        cls,
        folder: Path,
        names: Sequence[str],
        topology: mdtraj.Topology,
        box: Tensor | None,
        *,
        dt: float,
        first_step: int,
        every: int,
    ) -> Samples:
        """Return the files of a run in ``box``, (3, 3) in nm; ``dt`` in ps; writes nothing.

        ``names`` are those of the replicas' trajectories.
        """
        cell = None if box is None else box.detach().cpu().double().numpy()
        dcd = DcdFormat.of(topology, cell, dt=dt, first_step=first_step, every=every)
        trajectories = [folder / f"{name}.dcd" for name in names]
        return cls(folder, trajectories, topology, cell, dcd)

    @property
    def n_target(self) -> int:
        """Number of the replicas, the first ones, that are at the temperature of the samples."""
        return sum(not path.name.startswith("hot") for path in self.trajectories)

    @property
    def log(self) -> Path:
        """The table of energies and temperatures."""
        return self.folder / "log.csv"

    @property
    def checkpoint(self) -> Path:
        """Where a run goes on from."""
        return self.folder / "checkpoint.pt"

    @property
    def previous(self) -> Path:
        """Where a run goes on from if the checkpoint is damaged."""
        return self.folder / "checkpoint.previous.pt"

    def create(self, positions: Tensor) -> None:
        """Make all files, without frames; ``topology.pdb`` shows ``positions`` (n_beads, 3)."""
        for path in self.trajectories:
            self.format.create(path)
        numbers = [path.stem for path in self.trajectories]
        names = ["time_ps", "energy_kJ_mol", "temperature_K"]
        names += [f"energy_{i}" for i in numbers] + [f"temperature_{i}" for i in numbers]
        with writing(self.log):
            self.log.write_text(",".join(names) + "\n")
        frame = mdtraj.Trajectory(positions.cpu().float().numpy()[None], self.topology)
        if self.box is not None:
            frame.unitcell_vectors = self.box[None].astype(np.float32)
        with replacing(self.folder / "topology.pdb") as part:
            save_pdb(part, frame)

    def kept(self, dropped: frozenset[int]) -> list[Path]:
        """Return the trajectories of all replicas but those that were dropped."""
        return [path for i, path in enumerate(self.trajectories) if i not in dropped]

    def drop(self, dropped: frozenset[int]) -> None:
        """Give the trajectories of dropped replicas another name, where that is not done yet."""
        for i in dropped:
            path = self.trajectories[i]
            if path.exists():
                path.replace(_dropped_name(path))

    def take_back(self, dropped: frozenset[int]) -> None:
        """Give trajectories their names again that are not dropped: an old checkpoint knew them."""
        for path in self.kept(dropped):
            if _dropped_name(path).exists() and not path.exists():
                _dropped_name(path).replace(path)

    def append(
        self,
        time: float,
        positions: Tensor,
        energy: Tensor,
        kinetic: Tensor,
        dropped: frozenset[int] = frozenset(),
    ) -> None:
        """Write a frame of every replica and the row of the log.

        ``positions`` (n_replicas, n_beads, 3), nm; ``energy`` and the temperature ``kinetic``
        (n_replicas,), kJ/mol and K; ``time`` in ps. Of ``dropped`` replicas the log has NaN.
        """
        frames = positions.cpu().float().numpy()
        for i, path in enumerate(self.trajectories):
            if i not in dropped:
                self.format.append(path, frames[i])
        e, t, n = energy.double().clone(), kinetic.double().clone(), self.n_target
        e[list(dropped)], t[list(dropped)] = torch.nan, torch.nan
        means = [float(values[:n].nanmean()) for values in (e, t)]
        row = [time, *means, *e.tolist(), *t.tolist()]
        with writing(self.log), self.log.open("a") as file:
            file.write(",".join(f"{value:.6f}" for value in row) + "\n")

    def truncate(self, n_frames: int, dropped: frozenset[int] = frozenset()) -> None:
        """Cut all files back to ``n_frames``.

        Raises
        ------
        ValueError
            A file holds fewer frames; names it.
        """
        lines = self.log.read_bytes().splitlines(keepends=True)
        if len(lines) < n_frames + 1:
            raise ValueError(f"{self.log} holds {len(lines) - 1} rows, not {n_frames}")
        for path in self.kept(dropped):
            self.format.truncate(path, n_frames)
        with self.log.open("r+b") as file:
            file.truncate(sum(map(len, lines[: n_frames + 1])))

    def save(self, checkpoint: sampling.Checkpoint) -> None:
        """Write the checkpoint once all frames that it counts on are on the disk."""
        make_folder(self.folder)
        for path in (*self.trajectories, self.log):
            if path.exists():  # before the first frame they need not
                to_disk(path)
        if self.checkpoint.exists():
            write_bytes(self.previous, self.checkpoint.read_bytes())
        write_tensors(self.checkpoint, sampling.pack(checkpoint))

    def load(self, device: torch.device) -> sampling.Checkpoint:
        """Return the checkpoint, its state on ``device``: the one before it if it is damaged.

        Raises
        ------
        ValueError
            Neither is whole, or they hold something else.
        """
        try:
            return _read(self.checkpoint, device)
        except ValueError as error:
            try:
                before = _read(self.previous, device)
            except ValueError:
                raise error from None  # the last one is what the user knows of
            _log.warning("%s; going on from %s, step %d", error, self.previous.name, before.step)
            write_bytes(self.checkpoint, self.previous.read_bytes())
            return before


def _dropped_name(trajectory: Path) -> Path:
    return trajectory.with_name(f"dropped-{trajectory.name}")


def _read(path: Path, device: torch.device) -> sampling.Checkpoint:
    try:
        return sampling.unpack(read_tensors(path, device))
    except InputError as error:
        raise ValueError(str(error)) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a checkpoint of a sampler") from error


def read_samples(trajectory: Path) -> tuple[Tensor, Tensor | None]:
    """Return positions (n_frames, n_beads, 3) and boxes (n_frames, 3, 3), nm, float32, of a file.

    Boxes are ``None`` in the open.
    """
    file = open_trajectory_file(trajectory)
    block = next(file.blocks(file.n_frames, 0, file.n_frames))
    positions = torch.from_numpy(np.array(block.positions, np.float32))
    box = None if block.box is None else torch.from_numpy(np.array(block.box, np.float32))
    return positions, box


def trajectories_in(folder: Path) -> list[Path]:
    """Return the trajectories of a folder of samples, in the order of their numbers."""
    return sorted(folder.glob("[0-9]*.dcd"), key=lambda path: int(path.stem))
