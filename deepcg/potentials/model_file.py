"""A fitted model: the potential and what is needed to use it, in one file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepcg.networks import COMPRESSED, NETWORKS
from deepcg.potentials.beads import NetworkPotential
from deepcg.potentials.collective_variables import CVPotential
from deepcg.potentials.priors import KINDS, ForceField, Repulsion, Table
from deepcg.runtime.config import plain
from deepcg.runtime.errors import InputError, pick
from deepcg.runtime.files import read_tensors, write_tensors
from deepcg.units import thermal_energy

BEADS, VARIABLES, MOLECULES = 1, 2, 3
"""Formats of a model file: of beads, of collective variables, of beads with a force field."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a potential is made of, before any weight is known.

    Parameters
    ----------
    network
        A name in ``NETWORKS`` or ``COMPRESSED``.
    options
        Its keyword arguments.
    cutoff
        nm.
    n_types
        Number of bead types.
    repulsion
        Whether there is a short-range repulsion beside the network.
    """

    network: str
    options: Mapping[str, Any]
    cutoff: float
    n_types: int
    repulsion: bool

    def build(
        self, types: Tensor, temperature: float, molecular: ForceField | None = None
    ) -> NetworkPotential:
        """Return the potential with fresh weights and no repulsion yet (onset 0).

        Beads are of ``types`` (n_beads,); those that ``molecular`` joins by a bond or an angle will
        not repel each other.

        Raises
        ------
        InputError
            If the network is unknown or does not take one of the options.
        """
        kind = pick(NETWORKS | COMPRESSED, self.network, "network")
        known = list(inspect.signature(kind).parameters)[2:]
        for name in self.options:
            pick(dict.fromkeys(known), name, f"option of the network {self.network!r}:")
        try:
            terms: list[torch.nn.Module] = [kind(self.cutoff, self.n_types, **self.options)]
        except (TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            given = ", ".join(f"{name} = {value!r}" for name, value in self.options.items())
            raise InputError(
                f"the network {self.network!r} takes none of such options: {given} ({error}): give "
                f"whole numbers above 0, and lists of them for layers"
            ) from error
        if self.repulsion:
            onset = torch.zeros(self.n_types, self.n_types)
            excluded = None if molecular is None else molecular.excluded
            terms.append(Repulsion(onset, thermal_energy(temperature), excluded=excluded))
        return NetworkPotential(terms, self.cutoff, types, molecular)


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A potential with its beads.

    ``masses`` are (n_beads,), Da; ``type_names`` name types 0, 1 ...; ``mapping`` is the name of
    the map; ``temperature``, K, is that of the data: U is a free energy and holds there only.
    """

    architecture: Architecture
    potential: NetworkPotential
    type_names: tuple[str, ...]
    masses: Tensor
    mapping: str
    temperature: float


@dataclass(frozen=True, slots=True, eq=False)
class CVModel:
    """U of collective variables, with their names and units.

    ``mapping`` is what they are called together; ``temperature``, K, is that of the data.
    """

    potential: CVPotential
    names: tuple[str, ...]
    units: tuple[str, ...]
    mapping: str
    temperature: float


def save_model(path: Path, model: Model | CVModel) -> None:
    """Write a model; ``path`` holds the old one or the new one, whole, at any moment."""
    content = _surface_content(model) if isinstance(model, CVModel) else _bead_content(model)
    state = {k: v.cpu() for k, v in model.potential.state_dict().items()}
    common = {"mapping": model.mapping, "temperature": model.temperature, "state": state}
    write_tensors(path, content | common)


def load_model(path: Path, device: torch.device | str = "cpu") -> Model:
    """Return the model of beads in a file that ``save_model`` wrote, or in a run folder.

    Raises
    ------
    InputError
        If there is no model, it is damaged, a later version wrote it, or it is of collective
        variables.
    """
    model = load_any(path, device)
    if isinstance(model, CVModel):
        raise InputError(
            f"{path} is a free energy of collective variables ({', '.join(model.names)}), not of "
            f"beads: look at its surface.npz, or fit beads, as with --map solute"
        )
    return model


def load_any(path: Path, device: torch.device | str = "cpu") -> Model | CVModel:
    """Return the model in a file that ``save_model`` wrote, or in a run folder.

    Raises
    ------
    InputError
        If there is no model, it is damaged, or a later version wrote it.
    """
    path = path / "model.pt" if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"there is no model {path}: fit one with 'deepcg fit'")
    try:
        saved = read_tensors(path, device)
        version = saved["format"]
    except (InputError, KeyError) as error:
        raise InputError(f"{path} is not a whole model file of deepcg ({error})") from error
    if not isinstance(version, int) or version not in _LOADERS:
        raise InputError(
            f"{path} has format {version}, this version reads {BEADS} to {MOLECULES}: "
            f"use a later deepcg"
        )
    try:
        return _LOADERS[version](saved, device)
    except Exception as error:  # whatever a file from elsewhere makes of the parts of a model
        reason = " ".join(str(error).split())[:150]
        if reason.startswith("unknown network"):
            reason += "; import the file that registers a network of your own first"
        raise InputError(f"{path} does not describe a model of deepcg: {reason}") from error


def _bead_content(model: Model) -> dict[str, Any]:
    architecture = model.architecture
    return {
        # an earlier version would leave out a force field without a word
        "format": BEADS if model.potential.molecular is None else MOLECULES,
        "network": architecture.network,
        "options": plain(architecture.options),
        "cutoff": architecture.cutoff,
        "n_types": architecture.n_types,
        "repulsion": architecture.repulsion,
        "type_names": list(model.type_names),
        "masses": model.masses.cpu(),
    }


def _surface_content(model: CVModel) -> dict[str, Any]:
    potential = model.potential
    return {
        "format": VARIABLES,
        "names": list(model.names),
        "units": list(model.units),
        "periods": list(potential.periods),
        "widths": list(potential.widths),
        "harmonics": potential.harmonics,
    }


def _bead_model(saved: dict[str, Any], device: torch.device | str) -> Model:
    names = ("network", "options", "cutoff", "n_types", "repulsion")
    architecture = Architecture(**{name: saved[name] for name in names})
    state = saved["state"]
    molecular = _force_field(state) if saved["format"] == MOLECULES else None
    potential = architecture.build(state["types"], saved["temperature"], molecular)
    _fill(potential, state, device)
    return Model(
        architecture,
        potential,
        tuple(saved["type_names"]),
        saved["masses"],
        saved["mapping"],
        saved["temperature"],
    )


def _surface_model(saved: dict[str, Any], device: torch.device | str) -> CVModel:
    potential = CVPotential(saved["periods"], widths=saved["widths"], harmonics=saved["harmonics"])
    _fill(potential, saved["state"], device)
    names, units = tuple(saved["names"]), tuple(saved["units"])
    return CVModel(potential, names, units, saved["mapping"], saved["temperature"])


def _force_field(state: dict[str, Tensor]) -> ForceField:
    names = {kind: f"molecular.{kind}" for kind in KINDS if f"molecular.{kind}_atoms" in state}
    return ForceField(
        {
            kind: Table(state[f"{name}_atoms"], state[f"{name}_parameters"])
            for kind, name in names.items()
        }
    )


def _fill(potential: torch.nn.Module, state: dict[str, Tensor], device: torch.device | str) -> None:
    potential.to(device, next(v.dtype for v in state.values() if v.is_floating_point()))
    potential.load_state_dict(state)


_LOADERS: dict[int, Callable[[dict[str, Any], torch.device | str], Model | CVModel]] = {
    BEADS: _bead_model,
    VARIABLES: _surface_model,
    MOLECULES: _bead_model,
}
