"""``deepcg sample``: Langevin dynamics on a fitted free energy."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import mdtraj
import torch
from torch import Tensor

from deepcg.compute.allocator import keep_freed_memory
from deepcg.compute.device import device_of
from deepcg.dynamics.bias_files import write_bias, write_values
from deepcg.dynamics.config import DynamicsConfig
from deepcg.dynamics.enhanced_sampling import BiasConfig, enhance
from deepcg.dynamics.model_deviation import ModelDeviationConfig, trust, write_spread
from deepcg.dynamics.run import Replicas, Summary, run_dynamics
from deepcg.dynamics.samples import trajectories_in
from deepcg.dynamics.time_step import fastest, time_step
from deepcg.potentials.beads import ShortRanged
from deepcg.potentials.model_file import Model, load_model
from deepcg.potentials.torch_compile import CompiledPotential
from deepcg.potentials.verlet_list import VerletForces
from deepcg.runtime.config import to_flat
from deepcg.runtime.errors import InputError, pick
from deepcg.runtime.files import write_whole
from deepcg.runtime.locks import folder_locked
from deepcg.runtime.progress import Progress, silent
from deepcg.runtime.provenance import file_hash, versions
from deepcg.workflow.fit.run_folder import starts

_log = logging.getLogger(__name__)

COMPILE = ("auto", "on", "off")

MASSES = ("model", "uniform")

FREQUENCY_FRAMES = 16
"""On which the stiffest motion is looked for."""


@dataclass(frozen=True, slots=True)
class SampleConfig:
    """Sample a fitted model by Langevin dynamics, several replicas at once.

    Parameters
    ----------
    run
        Folder that 'deepcg fit' made.
    replicas
        Number of independent replicas, started from frames of the data.
    dynamics
        How they move.
    masses
        model (those of the beads) or uniform (all the mean mass, which averages do not depend on
        and which allows longer time steps); by default uniform for a molecule in the open.
    enhanced
        A bias or replica exchange.
    uncertainty
        Of an ensemble: which of its members, and where they are not to be trusted.
    drop_blown_up
        Go on without replicas that blow up; not with a bias or replica exchange.
    skin
        How far the list of neighbors reaches beyond the cutoff, nm.
    compile
        Compile the forces by PyTorch before the first step: on, off or auto: on CUDA, which
        takes a while; the CPU has faster loops. What is compiled is kept in the folder
        TORCHINDUCTOR_CACHE_DIR of the environment, or torchinductor_USER among temporary files.
    device
        auto, cpu or cuda.
    threads
        CPU threads; by default all cores.
    resume
        Go on with an interrupted run, or lengthen a finished one.
    """

    run: Path
    replicas: int = 8
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    masses: str | None = None
    enhanced: BiasConfig = field(default_factory=BiasConfig)
    uncertainty: ModelDeviationConfig = field(default_factory=ModelDeviationConfig)
    drop_blown_up: bool = False
    skin: float = 0.08
    compile: str = "auto"
    device: str = "auto"
    threads: int | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        pick(dict.fromkeys(COMPILE), self.compile, "choice of compile")


def sample(
    config: SampleConfig,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> Summary:
    """Run the replicas and write RUN/samples; see ``deepcg.dynamics.run.run_dynamics``.

    Raises
    ------
    InputError
        If there is no model, samples are there already, another process works on them, or a
        replica blows up.
    """
    if config.replicas < 1:
        raise InputError(f"{config.replicas} replicas: use 1 or more")
    keep_freed_memory()
    device = device_of(config.device, config.threads)
    model = load_model(config.run, device)
    if abs(config.dynamics.temperature - model.temperature) > 0.1:
        raise InputError(
            f"{config.run} is a free energy at {model.temperature:g} K, not at "
            f"{config.dynamics.temperature:g} K: give --temperature {model.temperature:g}"
        )
    with folder_locked(config.run / "samples"):
        return _sample(config, model, device, progress, tell)


def _sample(
    config: SampleConfig,
    model: Model,
    device: torch.device,
    progress: Progress,
    tell: Callable[[str], None],
) -> Summary:
    trusted = trust(config.uncertainty, config.run, device)
    frames, box = starts(config.run, model, device)
    masses = _masses(config.masses, model.masses.to(frames), box)
    dynamics = _dynamics(config, trusted.potential, frames, masses, box, tell)
    potential = _moving(config.compile, trusted.potential, device, tell)
    forces = VerletForces(potential, box, skin=config.skin)
    topology = mdtraj.load_topology(str(config.run / "beads.pdb"))
    enhanced = enhance(
        config.enhanced,
        forces,
        frames,
        topology,
        box=box,
        replicas=config.replicas,
        temperature=model.temperature,
        dt=dynamics.step,
    )
    output = config.run / "samples"
    method = trusted.limited(box, enhanced.method)
    with trusted.explained(config.run):
        summary = run_dynamics(
            Replicas(
                enhanced.force_field, enhanced.start, masses, box, topology, method, forces.renew
            ),
            dynamics,
            output,
            settings=config.enhanced.settings | config.uncertainty.settings,
            resume=config.resume,
            progress=progress,
            drop_blown_up=config.drop_blown_up,
        )
    write_bias(output / "bias.npz", enhanced, model.temperature)
    trajectories = trajectories_in(output)
    write_values(output / "values.npz", enhanced, trajectories)
    if trusted.ensemble is not None:
        tell(write_spread(output / "spread.npy", trusted.ensemble, trajectories, box))
    record = {
        "model": file_hash(config.run / "model.pt"),
        "settings": to_flat(replace(config, dynamics=replace(config.dynamics, dt=dynamics.step))),
        "versions": versions(),
    }
    write_whole(output / "sample.json", json.dumps(record, indent=1, default=str) + "\n")
    tell(_in_words(summary, config))
    if summary.temperature_warning is not None:
        _log.warning("%s", summary.temperature_warning)
    return summary


def _masses(choice: str | None, masses: Tensor, box: Tensor | None) -> Tensor:
    choice = choice or ("uniform" if box is None else "model")
    pick(dict.fromkeys(MASSES), choice, "masses")
    return masses if choice == "model" else masses.mean().expand(len(masses)).clone()


def _moving(
    choice: str, potential: ShortRanged, device: torch.device, tell: Callable[[str], None]
) -> ShortRanged:
    """Return the potential that moves replicas, compiled or as it is."""
    compiles = choice == "on" or (choice == "auto" and device.type == "cuda")
    return CompiledPotential(potential, tell) if compiles else potential


def _dynamics(
    config: SampleConfig,
    potential: ShortRanged,
    frames: Tensor,
    masses: Tensor,
    box: Tensor | None,
    tell: Callable[[str], None],
) -> DynamicsConfig:
    """Return the dynamics with their time step, and with the time for which a bias grows."""
    dynamics = config.dynamics
    if dynamics.dt is None and box is None:
        some = frames[torch.linspace(0, len(frames) - 1, FREQUENCY_FRAMES).round().long()]
        forces = VerletForces(potential, box, skin=config.skin)
        frequency = fastest(forces, some, masses)
        friction = dynamics.friction if dynamics.integrator == "overdamped" else None
        dt = time_step(frequency, dynamics.interval_ps, overdamped_at=friction)
        tell(f"time step {1000 * dt:.3g} fs: the stiffest motion is at {frequency:.0f} rad/ps")
        dynamics = replace(dynamics, dt=dt)
    before = dynamics.equilibration_ps + config.enhanced.growing_ps
    return replace(dynamics, equilibration_ps=before)


def _in_words(summary: Summary, config: SampleConfig) -> str:
    text = f"{summary.n_replicas} replicas of {summary.ps:g} ps in {config.run / 'samples'}"
    if summary.temperature is not None:
        error = "" if summary.temperature_error is None else f" +- {summary.temperature_error:.1f}"
        text += f"; temperature {summary.temperature:.1f}{error} K"
    if summary.dropped:
        text += f"; {len(summary.dropped)} of them blew up and were dropped"
    return f"{text}; {summary.ns_per_day:.0f} ns/day in all"
