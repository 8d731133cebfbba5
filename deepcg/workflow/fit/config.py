"""The settings of ``deepcg fit``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, ClassVar

import torch

from deepcg.analysis.style import check_formats
from deepcg.compute.matmul_precision import EXACT
from deepcg.mapping.collective_variables import is_collective
from deepcg.networks import NETWORKS, QUALITY, sizes_of
from deepcg.potentials.collective_variables import CVPotential
from deepcg.runtime.errors import InputError, pick
from deepcg.training.config import TrainingConfig, rate_for
from deepcg.training.members import MembersConfig
from deepcg.trajectory.bias_weights import resolved_bias
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.fit.prior import PRIORS

DTYPES = {"float32": torch.float32, "float64": torch.float64}

QUALITY_STEPS = 9_000
"""Of a training with ``--quality``, which also sets options of the network."""


SURFACE: dict[str, Any] = {"steps": 1_000, "batch_size": 512, "learning_rate": 2e-2}
"""How to train on collective variables where the user does not say: frames are cheap there."""


SURFACE_WIDTHS: tuple[int, ...] = signature(CVPotential).parameters["widths"].default
"""Those of layers for which that rate of learning is."""


OF_BEADS = ("network", "network_size", "cutoff", "prior", "repulsion", "force_achiral", "quality")
"""Settings that fits on collective variables have no use for."""


def list_networks() -> str:
    """Return the kinds of networks, for the help."""
    return ", ".join(NETWORKS)


def list_sizes() -> str:
    """Return the sizes of each kind of network, for the help."""
    return "; ".join(f"{name}: {', '.join(sizes_of(name))}" for name in NETWORKS)


def list_options() -> str:
    """Return the options of each kind of network and their values in a small one, for the help."""
    lines = []
    for name, kind in {**NETWORKS, "collective variables": CVPotential}.items():
        options = {o.name: o.default for o in signature(kind).parameters.values()}
        options |= sizes_of(name)["small"]
        told = [f"{o} {json.dumps(v)}" for o, v in options.items() if v is not Parameter.empty]
        lines.append(f"{name}: {', '.join(told)}")
    return "; ".join(lines)


@dataclass(frozen=True, slots=True)
class FitConfig:
    """Fit a coarse-grained free energy to the forces of an atomistic trajectory.

    Parameters
    ----------
    trajectory
        Anything that MDTraj reads; .npz, .trr, LAMMPS dump, extended XYZ or DeePMD folder.
    output
        Run folder.
    data
        Files and mapping.
    network
        Kind of network.
    network_size
        Widths of its layers; auto is molecule where there is no box and the network has that size,
        else small; fast leaves products of three out, deepmd is DeePMD-kit's default. The sizes of
        each network.
    network_options
        Single options of the network, which override its size. What they are in a small one.
    cutoff
        Beads farther apart than this do not interact through the network, nm; by default 0.6,
        or 0.9 where there is no box.
    prior
        Energy of molecules that the network need not learn: implicit (the System's terms of a
        solute, where all of its atoms are beads, and OBC2 water), force-field (these terms alone),
        statistical (bonds, angles and planes as stiff as in the data), none, or auto: the first
        of these that fits the data.
    repulsion
        Keep beads from coming closer than they ever do in the data; a force field does that itself.
    force_achiral
        Take a map although it hides the handedness of a molecule, which is then mixed with its
        mirror image.
    temperature
        Temperature of the data, K.
    training
        How to train.
    members
        How many fits, and what they begin with.
    validation_fraction
        Part of the frames, the last ones, that is kept for validation.
    figures
        Formats of the files of figures: png, svg, pdf.
    quality
        More angular resolution and a longer training, at about three times the cost.
    device
        auto, cpu or cuda.
    dtype
        float32 or float64.
    threads
        CPU threads; by default all cores.
    resume
        Go on with an interrupted fit in the same folder, or add members to its ensemble.
    """

    LISTS: ClassVar[Mapping[str, Callable[[], str]]] = {
        "network": list_networks,
        "network_size": list_sizes,
        "network_options": list_options,
    }

    trajectory: Path
    output: Path = Path("run")
    data: DataConfig = field(default_factory=DataConfig)
    network: str = "deeppot-se-l"
    network_size: str = "auto"
    network_options: dict[str, Any] = field(default_factory=dict)
    cutoff: float | None = None
    prior: str = "auto"
    repulsion: bool = True
    force_achiral: bool = False
    temperature: float = 300.0
    training: TrainingConfig = field(default_factory=TrainingConfig)
    members: MembersConfig = field(default_factory=MembersConfig)
    validation_fraction: float = 0.1
    figures: tuple[str, ...] = ("png",)
    quality: bool = False
    device: str = "auto"
    dtype: str = "float32"
    threads: int | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        pick(NETWORKS, self.network, "network")
        check_formats(self.figures)
        pick({"auto": {}, **sizes_of(self.network)}, self.network_size, "network size")
        pick(DTYPES, self.dtype, "dtype")
        if not 0 < self.validation_fraction < 1:
            raise InputError(
                f"validation_fraction is {self.validation_fraction}: choose between 0 and 1"
            )
        pick(PRIORS, self.prior, "prior")
        for name in ("cutoff", "temperature"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} is {value}: it must be positive")


def with_preset(config: FitConfig) -> FitConfig:
    """Return a config with the settings of its kind of fit where the user said nothing else.

    These are what ``quality`` stands for, and how to train on collective variables.

    Raises
    ------
    InputError
        A setting is of no use for this kind of network or coordinates.
    """
    if is_collective(config.data.map):
        return _for_variables(config)
    if not config.quality:
        return config
    if config.network not in QUALITY:
        raise InputError(f"there are no settings of --quality for the network {config.network!r}")
    training, plain = config.training, TrainingConfig()
    if training.steps == plain.steps:
        training = replace(training, steps=QUALITY_STEPS)
    options = {**QUALITY[config.network], **config.network_options}
    return replace(config, training=training, network_options=options)


def absolute(config: FitConfig) -> FitConfig:
    """Return a config whose files are found from any folder; what to trust is not kept."""

    def resolved(path: Path | None) -> Path | None:
        return None if path is None else path.resolve()

    data = replace(
        config.data,
        topology=resolved(config.data.topology),
        system=resolved(config.data.system),
        forces=resolved(config.data.forces),
        also=tuple(path.resolve() for path in config.data.also),
        bias=tuple(resolved_bias(text) for text in config.data.bias),
        trust=False,
    )
    members = replace(config.members, start_from=resolved(config.members.start_from))
    return replace(config, trajectory=config.trajectory.resolve(), data=data, members=members)


def _for_variables(config: FitConfig) -> FitConfig:
    defaults = {field.name: field.default for field in fields(FitConfig)}
    for name in OF_BEADS:
        if getattr(config, name) != defaults[name]:
            raise InputError(
                f"{name} = {getattr(config, name)} is a setting for beads, and "
                f"{config.data.map!r} are collective variables: leave it out"
            )
    if config.training.matmul != EXACT:
        raise InputError(
            f"matmul = {config.training.matmul} is a setting for beads: products are small for "
            f"{config.data.map!r}, which are collective variables; leave it out"
        )
    plain = TrainingConfig()
    widths = {"widths": SURFACE_WIDTHS, **config.network_options}["widths"]
    rate = rate_for(widths, SURFACE_WIDTHS, SURFACE["learning_rate"])
    preset = SURFACE | {"learning_rate": rate}
    unsaid = {k: v for k, v in preset.items() if getattr(config.training, k) == getattr(plain, k)}
    return replace(config, training=replace(config.training, **unsaid))
