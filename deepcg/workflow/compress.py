"""``deepcg compress``: tables in place of the embedding nets of a fitted model."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from deepcg.compute.device import device_of
from deepcg.geometry.neighbor_list import Neighbors, find_pairs
from deepcg.networks import COMPRESSED, DeepPotSE
from deepcg.networks.deeppot_se.compressed import compressed
from deepcg.potentials.beads import NetworkPotential
from deepcg.potentials.ensemble import load_members, member_folder
from deepcg.potentials.model_file import Architecture, CVModel, Model, save_model
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import check_place, make_folder, write_json, writing
from deepcg.runtime.locks import folder_locked
from deepcg.runtime.progress import Progress, silent
from deepcg.runtime.provenance import file_hash, versions
from deepcg.workflow.fit.run_folder import COMPRESSION, starts

LIMIT = 1e-4
"""Largest rms error of the forces, over their rms, with which a compressed model is kept."""

KEPT = ("config.toml", "start.npz", "beads.pdb", "run.json", "metrics.jsonl", "learning-curve.png")
"""What of a run folder goes with a model."""

NAME = next(iter(COMPRESSED))

CHUNK = 8
"""Frames that are evaluated at a time."""


@dataclass(frozen=True, slots=True)
class CompressConfig:
    """Replace the embedding nets of a fitted deeppot-se by tables, for faster sampling.

    Parameters
    ----------
    run
        Folder that 'deepcg fit --network deeppot-se' made.
    output
        Folder for the compressed model; by default RUN-compressed.
    min_distance
        Distance, nm, down to which nets are tabulated: of beads that are nearer they go on as
        straight lines in s(r); by default half of the smallest distance in the frames of the run.
    accuracy
        Largest error of the slopes of a table, over the largest slope.
    threads
        CPU threads; by default all cores.
    """

    run: Path
    output: Path | None = None
    min_distance: float | None = None
    accuracy: float = 1e-4
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("min_distance", "accuracy"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value}: it must be positive")


@dataclass(frozen=True, slots=True)
class Compression:
    """How well a member was compressed.

    ``closest``, nm, is the distance that tables of so many ``intervals`` reach down to;
    ``slope_error`` the largest error of a table's slopes, over the largest slope; ``force_error``
    the rms error of forces, over their rms.
    """

    closest: float
    intervals: int
    slope_error: float
    force_error: float


def compress(
    config: CompressConfig,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Compression]:
    """Write a run folder with compressed members that gives the same forces; return how well.

    Raises
    ------
    InputError
        There is nothing to compress, the output is there already, or the forces differ.
    """
    device = device_of("cpu", config.threads)
    run = config.run
    output = run.with_name(run.name + "-compressed") if config.output is None else config.output
    check_place(output)
    with folder_locked(output):
        if (output / "model.pt").exists():
            raise InputError(f"{output} holds a model: give another --output")
        members = [_bead_model(model, run) for model in load_members(run, device)]
        frames, box = starts(run, members[0], device)
        made = []
        for k, model in enumerate(members):
            progress(k, len(members), "members")
            made.append(_compressed(model, frames, box, config))
            tell(_in_words(made[-1][1]))
        _write(output, run, made)
    tell(f"compressed model in {output}: sample it by 'deepcg sample {output}'")
    return [compression for _, compression in made]


def _bead_model(model: Model | CVModel, run: Path) -> Model:
    """Refuse what has no embedding nets."""
    if isinstance(model, CVModel):
        raise InputError(f"{run} is of collective variables: there is nothing to compress")
    network = model.architecture.network
    if network in COMPRESSED:
        raise InputError(f"{run} is compressed already: there is nothing to compress")
    if not isinstance(model.potential.terms[0], DeepPotSE):
        raise InputError(
            f"{run} has the network {network}, whose radial functions are splines already: there "
            f"is nothing to compress"
        )
    return model


def _compressed(
    model: Model, frames: Tensor, box: Tensor | None, config: CompressConfig
) -> tuple[Model, Compression]:
    potential, network = model.potential, model.potential.terms[0]
    assert isinstance(network, DeepPotSE)
    parts = [_environments(potential, some, box) for some in frames.split(CHUNK)]
    closest = config.min_distance or _smallest(parts, network.cutoff) / 2
    if closest >= network.cutoff:
        raise InputError(
            f"min_distance is {closest:g} nm: it must be below the cutoff {network.cutoff}"
        )
    small, slope_error = compressed(network, closest, config.accuracy)
    others = list(potential.terms)[1:]
    other = NetworkPotential(
        [small, *others], potential.cutoff, potential.types, potential.molecular
    )
    error = _force_error(other, potential, parts)
    if not error <= LIMIT:
        raise InputError(
            f"the forces of the compressed model differ by {error:.1e} of their rms, more than "
            f"{LIMIT:g}: give a smaller --accuracy (now {config.accuracy:g}) or --min-distance"
        )
    old = model.architecture
    architecture = Architecture(NAME, small.options, old.cutoff, old.n_types, old.repulsion)
    compression = Compression(closest, small.knots.intervals, slope_error, error)
    return replace(model, architecture=architecture, potential=other), compression


def _environments(potential: NetworkPotential, frames: Tensor, box: Tensor | None) -> Neighbors:
    boxes = None if box is None else box.expand(len(frames), 3, 3)
    return potential.environments(frames, find_pairs(frames, boxes, potential.cutoff))


def _smallest(parts: list[Neighbors], cutoff: float) -> float:
    """Return the smallest distance in frames, nm; of beads without neighbors, the cutoff."""
    return min(cutoff, *(float(near.distance.min()) for near in parts))


def _force_error(one: NetworkPotential, other: NetworkPotential, parts: list[Neighbors]) -> float:
    """Return the rms difference of the forces of two potentials, over the rms of the latter's."""
    difference = total = 0.0
    for near in parts:
        wanted = other.forces(near)[1].double()
        difference += float((one.forces(near)[1].double() - wanted).square().sum())
        total += float(wanted.square().sum())
    return math.sqrt(difference / total) if total else math.sqrt(difference)


def _write(output: Path, run: Path, made: list[tuple[Model, Compression]]) -> None:
    make_folder(output)
    for name in KEPT:
        if (run / name).is_file():
            with writing(output / name):
                shutil.copyfile(run / name, output / name)
    content = {
        "model": file_hash(run / "model.pt"),
        "members": [asdict(compression) for _, compression in made],
        "versions": versions(),
    }
    write_json(output / COMPRESSION, content)
    # the first comes last: a folder with a model is whole
    for k, (model, _) in reversed(list(enumerate(made))):
        make_folder(member_folder(output, k))
        save_model(member_folder(output, k) / "model.pt", model)


def _in_words(compression: Compression) -> str:
    return (
        f"tables of {compression.intervals} intervals, down to {compression.closest:.3g} nm, "
        f"slopes to {compression.slope_error:.1e}; the forces differ by "
        f"{compression.force_error:.1e} of their rms"
    )
