"""DeepPot-SE weights carried to and from DeePMD-kit's neutral model format.

The format is what ``serialize`` of DeePMD-kit's ``dpmodel`` returns and its ``.dp`` files hold:
nested dicts of numbers and NumPy arrays, in angstrom and eV. DeePMD-kit itself is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepcg.networks.deeppot_se.model import DeepPotSE
from deepcg.networks.layers import Perceptron, Residual
from deepcg.runtime.errors import InputError
from deepcg.units import ANGSTROM

ELECTRONVOLT = 96.48533212331  # kJ/mol, CODATA 2018 (exact)

Part = Mapping[str, Any]

_MODEL = {"type": "standard", "atom_exclude_types": [], "pair_exclude_types": []}
_DESCRIPTOR = {
    "type": "se_e2_a",
    "exclude_types": [],
    "env_protection": 0.0,
    "resnet_dt": False,
    "activation_function": "tanh",
    "spin": None,
    "compress": None,
}
_FITTING = {
    "type": "ener",
    "numb_fparam": 0,
    "numb_aparam": 0,
    "dim_case_embd": 0,
    "exclude_types": [],
    "activation_function": "tanh",
    "spin": None,
}


def from_deepmd(source: Part | Path) -> tuple[DeepPotSE, tuple[str, ...]]:
    """Return a float64 network with the weights of a DeePMD-kit model, and its type names.

    Energies are those of the model in kJ/mol, the constant of each type included. A bead with
    more neighbors than the model's ``sel`` keeps them all here; DeePMD-kit drops the farthest.

    Parameters
    ----------
    source
        What ``serialize`` of a ``dpmodel`` energy model returns, or a ``.dp`` file
        (``dp convert-backend`` makes one from any other kind).

    Raises
    ------
    InputError
        If the file cannot be read or the model has something that ``DeepPotSE`` has not.
    """
    content = _read(source) if isinstance(source, Path) else source
    model = content.get("model", content)
    _demand(model, "model", _MODEL)
    descriptor, fitting = model["descriptor"], model["fitting"]
    _demand(descriptor, "descriptor", _DESCRIPTOR)
    _demand(descriptor.get("env_mat", {}), "environment matrix", {"use_exp_switch": False})
    _demand(fitting, "fitting net", _FITTING)
    if any(energy is not None for energy in fitting.get("atom_ener") or []):
        raise InputError("the fitting net of the DeePMD-kit model has atom_ener: leave it out")
    network = DeepPotSE(
        descriptor["rcut"] * ANGSTROM,
        len(descriptor["sel"]),
        embedding=descriptor["neuron"],
        axis=descriptor["axis_neuron"],
        fitting=fitting["neuron"],
        two_sided=not descriptor["type_one_side"],
        switch_on=descriptor["rcut_smth"] * ANGSTROM,
        n_neighbors=descriptor["sel"],
    ).double()
    with torch.no_grad():
        _take_scales(network, descriptor["@variables"])
        _take_embeddings(network, descriptor["embeddings"]["networks"])
        _take_fitting(network, fitting["nets"]["networks"], _constants(model))
    names = model.get("type_map") or [str(kind) for kind in range(network.n_types)]
    return network, tuple(names)


def to_deepmd(network: DeepPotSE, type_map: Sequence[str]) -> dict[str, Any]:
    """Return what ``deserialize`` of DeePMD-kit's ``dpmodel`` ``EnergyModel`` takes, in float64.

    Its energies are in eV and its lengths in angstrom.

    Raises
    ------
    InputError
        If there is not a name for every type.
    """
    n = network.n_types
    if len(type_map) != n:
        raise InputError(f"the type map {list(type_map)} has not one name for each of {n} types")
    return {
        "@class": "Model",
        "@version": 2,
        "type": "standard",
        "type_map": list(type_map),
        "atom_exclude_types": [],
        "pair_exclude_types": [],
        "preset_out_bias": None,
        "rcond": None,
        "descriptor": _descriptor(network, list(type_map)),
        "fitting": _fitting(network, list(type_map)),
        "@variables": {"out_bias": np.zeros((1, n, 1)), "out_std": np.ones((1, n, 1))},
    }


def _read(path: Path) -> dict[str, Any]:
    """Return the nested dict of a ``.dp`` file, the names of its arrays replaced by arrays."""
    try:
        with h5py.File(path) as file:
            content: dict[str, Any] = _filled(json.loads(file.attrs["json"]), file, False)
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path} is not a DeePMD-kit .dp file ({error}): make one by dp convert-backend"
        ) from error
    return content


def _filled(item: Any, file: h5py.File, variable: bool) -> Any:
    if isinstance(item, dict):
        return {k: _filled(v, file, variable or k == "@variables") for k, v in item.items()}
    if isinstance(item, list):
        return [_filled(v, file, variable) for v in item]
    return file[item][()] if variable and isinstance(item, str) else item


def _demand(part: Part, name: str, wanted: Part) -> None:
    """Refuse settings other than those ``wanted``; what is empty or absent is not set."""
    for key, value in wanted.items():
        found = part.get(key, value)
        if found != value and (found or value):
            raise InputError(
                f"the {name} of the DeePMD-kit model has {key} = {found!r}: only {value!r} is known"
            )


def _take_scales(network: DeepPotSE, variables: Part) -> None:
    """Set mean and spread of the environment, which must be the same for all neighbors."""
    mean, spread = _tensor(variables["davg"]), _tensor(variables["dstd"])  # (types, sel, 4)
    if (mean != mean[:, :1]).any() or (spread != spread[:, :1]).any():
        raise InputError("davg or dstd of the DeePMD-kit model differ between neighbors of a bead")
    mean, spread = mean[:, 0], spread[:, 0]
    if mean[:, 1:].any() or (spread[:, 1:] != spread[:, 1:2]).any():
        raise InputError("davg or dstd of the DeePMD-kit model differ between x, y and z")
    network.get_buffer("mean").copy_(mean[:, 0] / ANGSTROM)
    network.get_buffer("spread").copy_(spread[:, :2] / ANGSTROM)


def _take_embeddings(network: DeepPotSE, nets: Sequence[Part]) -> None:
    for number, net in zip(_order(network), nets, strict=True):
        for own, layer in zip(_dense(network.embeddings[number]), net["layers"], strict=True):
            _take(*own, layer)


def _take_fitting(network: DeepPotSE, nets: Sequence[Part], constants: Tensor) -> None:
    """Set the fitting nets; a single net of mixed types serves every type."""
    nets = list(nets) * network.n_types if len(nets) == 1 else nets
    for fitting, net, constant in zip(network.fitting, nets, constants, strict=True):
        layers = _dense(fitting)
        for own, layer in zip(layers, net["layers"], strict=True):
            _take(*own, layer)
        last, _ = layers[-1]
        last.weight.mul_(ELECTRONVOLT)
        last.bias.copy_((last.bias + constant) * ELECTRONVOLT)


def _take(linear: nn.Linear, timestep: Tensor | None, layer: Part) -> None:
    variables = layer["@variables"]
    weight = _tensor(variables["w"]).T
    residual = timestep is not None or weight.shape[0] in (weight.shape[1], 2 * weight.shape[1])
    if residual and layer["activation_function"] == "tanh" and not layer["resnet"]:
        raise InputError("a layer of the DeePMD-kit model has no residual although widths allow it")
    linear.weight.copy_(weight)
    bias = variables.get("b")
    linear.bias.copy_(torch.zeros(len(weight)) if bias is None else _tensor(bias).flatten())
    if timestep is not None:
        step = variables.get("idt")
        timestep.copy_(torch.ones(len(weight)) if step is None else _tensor(step).flatten())


def _constants(model: Part) -> Tensor:
    """Return the energy (n_types,), eV, that is added to the fitting net of each type."""
    of_net = _tensor(model["fitting"]["@variables"]["bias_atom_e"]).reshape(-1)
    return of_net + _tensor(model["@variables"]["out_bias"]).reshape(-1)


def _descriptor(network: DeepPotSE, type_map: list[str]) -> dict[str, Any]:
    sel = [round(float(slots)) for slots in network.get_buffer("slots")]
    mean = _array(network.get_buffer("mean")) * ANGSTROM
    spread = _array(network.get_buffer("spread")) * ANGSTROM
    davg = np.zeros((network.n_types, sum(sel), 4))
    davg[..., 0] = mean[:, None]
    dstd = np.repeat(spread[:, None, [0, 1, 1, 1]], sum(sel), axis=1)
    rcut, rcut_smth = network.cutoff / ANGSTROM, network.switch_on / ANGSTROM
    neuron = [linear.out_features for linear, _ in _dense(network.embeddings[0])]
    nets = [_net(_dense(network.embeddings[number])) for number in _order(network)]
    for net in nets:
        net |= {"@class": "EmbeddingNetwork", "@version": 2, "neuron": neuron, "bias": True}
        net |= {"in_dim": 1, "resnet_dt": False}
    return {
        "@class": "Descriptor",
        "@version": 2,
        "type": "se_e2_a",
        "rcut": rcut,
        "rcut_smth": rcut_smth,
        "sel": sel,
        "neuron": neuron,
        "axis_neuron": network.axis,
        "resnet_dt": False,
        "trainable": True,
        "type_one_side": not network.two_sided,
        "exclude_types": [],
        "env_protection": 0.0,
        "set_davg_zero": False,
        "activation_function": "tanh",
        "precision": "float64",
        "spin": None,
        "type_map": type_map,
        "env_mat": {
            "rcut": rcut,
            "rcut_smth": rcut_smth,
            "protection": 0.0,
            "use_exp_switch": False,
        },
        "embeddings": _collection(nets, network.n_types, "embedding_network"),
        "@variables": {"davg": davg, "dstd": dstd},
    }


def _fitting(network: DeepPotSE, type_map: list[str]) -> dict[str, Any]:
    first = _dense(network.fitting[0])
    neuron = [linear.out_features for linear, _ in first[:-1]]
    n_in = first[0][0].in_features
    nets = [_net(_dense(fitting)) for fitting in network.fitting]
    for net in nets:
        net |= {"@class": "FittingNetwork", "@version": 1, "neuron": neuron, "bias_out": True}
        net |= {"in_dim": n_in, "out_dim": 1, "resnet_dt": True}
        last = net["layers"][-1]
        last |= {"activation_function": "none", "resnet": False}
        last["@variables"]["w"] = last["@variables"]["w"] / ELECTRONVOLT
        last["@variables"]["b"] = last["@variables"]["b"] / ELECTRONVOLT
    return {
        "@class": "Fitting",
        "@version": 4,
        "type": "ener",
        "var_name": "energy",
        "ntypes": network.n_types,
        "dim_descrpt": n_in,
        "dim_out": 1,
        "neuron": neuron,
        "resnet_dt": True,
        "numb_fparam": 0,
        "numb_aparam": 0,
        "dim_case_embd": 0,
        "default_fparam": None,
        "rcond": None,
        "activation_function": "tanh",
        "precision": "float64",
        "mixed_types": False,
        "exclude_types": [],
        "atom_ener": None,
        "tot_ener_zero": False,
        "trainable": [True] * (len(neuron) + 1),
        "layer_name": None,
        "use_aparam_as_mask": False,
        "spin": None,
        "type_map": type_map,
        "nets": _collection(nets, network.n_types, "fitting_network"),
        "@variables": {
            "bias_atom_e": np.zeros((network.n_types, 1)),
            "case_embd": None,
            "fparam_avg": None,
            "fparam_inv_std": None,
            "aparam_avg": None,
            "aparam_inv_std": None,
        },
    }


def _collection(nets: list[dict[str, Any]], n_types: int, kind: str) -> dict[str, Any]:
    return {
        "@class": "NetworkCollection",
        "@version": 1,
        "ndim": 1 if len(nets) == n_types else 2,
        "ntypes": n_types,
        "network_type": kind,
        "networks": nets,
    }


def _net(layers: list[tuple[nn.Linear, Tensor | None]]) -> dict[str, Any]:
    return {
        "activation_function": "tanh",
        "precision": "float64",
        "layers": [_layer(*layer) for layer in layers],
    }


def _layer(linear: nn.Linear, timestep: Tensor | None) -> dict[str, Any]:
    return {
        "@class": "Layer",
        "@version": 2,
        "bias": True,
        "use_timestep": timestep is not None,
        "activation_function": "tanh",
        "resnet": True,
        "precision": "float64",
        "trainable": True,
        "@variables": {
            "w": _array(linear.weight.T),
            "b": _array(linear.bias),
            "idt": None if timestep is None else _array(timestep),
        },
    }


def _order(network: DeepPotSE) -> list[int]:
    """Return our numbers of the embedding nets in DeePMD-kit's order: the center runs fastest."""
    if not network.two_sided:
        return list(range(network.n_types))
    n = network.n_types
    return [center * n + neighbor for neighbor in range(n) for center in range(n)]


def _dense(net: nn.Module) -> list[tuple[nn.Linear, Tensor | None]]:
    """Return the linear maps of a net with the time steps of their residuals."""
    layers = net.layers if isinstance(net, Perceptron) else net
    assert isinstance(layers, nn.Sequential)
    dense: list[tuple[nn.Linear, Tensor | None]] = []
    for layer in layers:
        if isinstance(layer, Residual):
            dense.append((layer.linear, layer.timestep))
        elif isinstance(layer, nn.Linear):
            dense.append((layer, None))
    return dense


def _tensor(values: Any) -> Tensor:
    return torch.as_tensor(np.asarray(values, np.float64))


def _array(values: Tensor) -> NDArray[np.float64]:
    return values.detach().cpu().double().numpy().copy()
