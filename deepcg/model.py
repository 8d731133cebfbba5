"""A fitted model: the potential and what is needed to sample it, in one file."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepcg.errors import InputError, pick
from deepcg.files import write_tensors
from deepcg.networks import NETWORKS
from deepcg.potential import NetworkPotential
from deepcg.priors import Repulsion
from deepcg.units import thermal_energy

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a potential is made of, before any weight is known.

    Parameters
    ----------
    network
        A name in ``NETWORKS``.
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

    def build(self, types: Tensor, temperature: float) -> NetworkPotential:
        """Return the potential with fresh weights and no repulsion yet (onset 0).

        Raises
        ------
        InputError
            If the network is unknown or does not take one of the options.
        """
        kind = pick(NETWORKS, self.network, "network")
        known = list(inspect.signature(kind).parameters)[2:]
        for name in self.options:
            pick(dict.fromkeys(known), name, f"option of the network {self.network!r}:")
        try:
            terms: list[torch.nn.Module] = [kind(self.cutoff, self.n_types, **self.options)]
        except TypeError as error:
            raise InputError(f"an option of the network {self.network!r}: {error}") from error
        if self.repulsion:
            onset = torch.zeros(self.n_types, self.n_types)
            terms.append(Repulsion(onset, thermal_energy(temperature)))
        return NetworkPotential(terms, self.cutoff, types)


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


def save_model(path: Path, model: Model) -> None:
    """Write a model; ``path`` holds the old one or the new one, whole, at any moment."""
    architecture = model.architecture
    content = {
        "format": FORMAT,
        "network": architecture.network,
        "options": _plain(architecture.options),
        "cutoff": architecture.cutoff,
        "n_types": architecture.n_types,
        "repulsion": architecture.repulsion,
        "type_names": list(model.type_names),
        "masses": model.masses.cpu(),
        "mapping": model.mapping,
        "temperature": model.temperature,
        "state": {k: v.cpu() for k, v in model.potential.state_dict().items()},
    }
    write_tensors(path, content)


def load_model(path: Path, device: torch.device | str = "cpu") -> Model:
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
        saved = torch.load(path, map_location=device, weights_only=True)
        version = saved["format"]
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a whole model file of deepcg") from error
    if version != FORMAT:
        raise InputError(
            f"{path} has format {version}, this version reads {FORMAT}: use a later deepcg"
        )
    names = ("network", "options", "cutoff", "n_types", "repulsion")
    architecture = Architecture(**{name: saved[name] for name in names})
    state = saved["state"]
    potential = architecture.build(state["types"], saved["temperature"])
    potential.to(device, next(v.dtype for v in state.values() if v.is_floating_point()))
    potential.load_state_dict(state)
    return Model(
        architecture,
        potential,
        tuple(saved["type_names"]),
        saved["masses"],
        saved["mapping"],
        saved["temperature"],
    )


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
