"""``deepcg label``: the forces of a trajectory of positions, or mean forces at some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from deepcg.atomistic.labels import Labels, label
from deepcg.runtime.errors import InputError
from deepcg.runtime.progress import Progress, silent
from deepcg.workflow.label.restrain import Files, label_restrained
from deepcg.workflow.label.restrain_config import RestrainConfig


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """Compute the forces on the atoms in every frame from an OpenMM System.

    Parameters
    ----------
    trajectory
        Positions: anything that MDTraj reads.
    output
        Folder for TRAJ.forces.npy or TRAJ.labels.npz; by default beside the trajectory.
    topology
        Topology file; by default that beside the trajectory, TRAJ.pdb.
    system
        OpenMM System; by default that beside the trajectory, TRAJ.system.xml.
    skip_frames
        Frames to leave out: numbers and ranges from 0, such as 0,5,100-200. Their forces are not
        numbers, and fits must leave them out, too.
    bonds
        Bonds beside those of the topology: auto (where it evidently lacks some; refused where
        distances leave that open), guess (all atoms that are near enough) or none.
    trust
        Run the code of a PythonForce in the System: of files whose maker you trust.
    forces_without
        Forces of the System to leave out, by name, kind or group (a number): a bias, restraints.
    forces_with
        Forces to keep although they look like a bias.
    platform
        OpenMM platform: auto, CPU, CUDA, OpenCL, HIP or Reference.
    threads
        Threads of the CPU platform; by default all.
    restrain
        Compute mean forces on coarse coordinates instead, from restrained dynamics at some of the
        frames.
    restraints
        How to restrain.
    """

    trajectory: Path
    output: Path | None = None
    topology: Path | None = None
    system: Path | None = None
    skip_frames: str | None = None
    bonds: str = "auto"
    trust: bool = False
    forces_without: tuple[str, ...] = ()
    forces_with: tuple[str, ...] = ()
    platform: str = "auto"
    threads: int | None = None
    restrain: bool = False
    restraints: RestrainConfig = field(default_factory=RestrainConfig)

    def __post_init__(self) -> None:
        if not self.restrain and self.restraints != RestrainConfig():
            raise InputError("the coordinates and how to restrain them need --restrain")


def label_trajectory(
    config: LabelConfig,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> Labels | Path:
    """Write the forces of every frame, once, or mean forces at some of them.

    What was cut off goes on where it was.

    Raises
    ------
    InputError
        As ``deepcg.atomistic.labels.label`` and ``label_restrained``.
    """
    if config.restrain:
        files = Files(
            config.trajectory,
            config.output,
            config.topology,
            config.system,
            config.trust,
            config.forces_without,
            config.forces_with,
            config.skip_frames,
            config.bonds,
        )
        return label_restrained(
            files, config.restraints, config.platform, config.threads, progress, tell
        )
    labels = label(
        config.trajectory,
        topology=config.topology,
        system=config.system,
        output=config.output,
        bonds=config.bonds,
        platform=config.platform,
        threads=config.threads,
        trust=config.trust,
        forces_without=config.forces_without,
        forces_with=config.forces_with,
        skip_frames=config.skip_frames,
        progress=progress,
    )
    tell(f"forces in {labels.forces}")
    return labels
