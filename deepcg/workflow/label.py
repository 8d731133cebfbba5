"""``deepcg label``: the forces of a trajectory of positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deepcg.labels import Labels, label
from deepcg.progress import Progress, silent


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """Compute the forces on the atoms in every frame from an OpenMM System.

    Parameters
    ----------
    trajectory
        Positions: anything that MDTraj reads.
    output
        Folder for TRAJ.forces.npy; by default beside the trajectory.
    topology
        Topology file; by default that beside the trajectory, TRAJ.pdb.
    system
        OpenMM System; by default that beside the trajectory, TRAJ.system.xml.
    platform
        OpenMM platform: auto, CPU, CUDA, OpenCL, HIP or Reference.
    threads
        Threads of the CPU platform; by default all.
    """

    trajectory: Path
    output: Path | None = None
    topology: Path | None = None
    system: Path | None = None
    platform: str = "auto"
    threads: int | None = None


def label_trajectory(
    config: LabelConfig,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> Labels:
    """Write the forces of every frame, once; what was cut off goes on where it was.

    Raises
    ------
    InputError
        As ``deepcg.labels.label``.
    """
    labels = label(
        config.trajectory,
        topology=config.topology,
        system=config.system,
        output=config.output,
        platform=config.platform,
        threads=config.threads,
        progress=progress,
    )
    tell(f"forces in {labels.forces}")
    return labels
