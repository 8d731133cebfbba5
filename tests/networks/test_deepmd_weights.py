"""The same weights give the same energies and forces here and in DeePMD-kit's NumPy backend."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import pytest
import torch
from paths import SHARED
from torch import Tensor

from deepcg.geometry.neighbor_list import neighbors
from deepcg.networks import DeepPotSE
from deepcg.networks.deeppot_se.deepmd_weights import ELECTRONVOLT, from_deepmd, to_deepmd
from deepcg.potentials.beads import NetworkPotential, energy_and_forces
from deepcg.runtime.errors import InputError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the import of another package says is its own affair
    from deepmd.dpmodel.descriptor import DescrptSeA
    from deepmd.dpmodel.fitting import EnergyFittingNet
    from deepmd.dpmodel.model.ener_model import EnergyModel
    from deepmd.dpmodel.utils.serialization import save_dp_model

WATER = SHARED / "water"
NAMES = ["A", "B"]


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def model(
    n_types: int,
    *,
    two_sided: bool = False,
    mixed: bool = False,
    fitting: tuple[int, ...] = (10, 20, 20),
    resnet_dt: bool = True,
) -> EnergyModel:
    """Random weights and scales; the sum of sel differs from the number of neighbors."""
    random = np.random.default_rng(n_types + two_sided)
    descriptor = DescrptSeA(
        5.5,
        1.0,
        [23, 31][:n_types],
        neuron=[5, 10],
        axis_neuron=3,
        type_one_side=not two_sided,
        precision="float64",
        seed=1,
    )
    descriptor.davg[..., 0] = random.normal(0, 0.1, (n_types, 1))
    descriptor.dstd[..., 0] = random.uniform(0.05, 0.2, (n_types, 1))
    descriptor.dstd[..., 1:] = random.uniform(0.05, 0.2, (n_types, 1, 1))
    net = EnergyFittingNet(
        n_types,
        descriptor.get_dim_out(),
        neuron=list(fitting),
        resnet_dt=resnet_dt,
        mixed_types=mixed,
        precision="float64",
        seed=2,
    )
    net.bias_atom_e = random.normal(size=(n_types, 1))
    made = EnergyModel(descriptor, net, type_map=NAMES[:n_types])
    made.atomic_model.out_bias = random.normal(size=(1, n_types, 1))
    return made


def liquid(n_types: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two frames of 27 beads in a triclinic box; a bead has up to 22 neighbors in 0.55 nm."""
    generator = torch.Generator().manual_seed(3)
    grid = torch.tensor(list(itertools.product(range(3), repeat=3))) * 0.4
    positions = grid + 0.12 * torch.rand(2, 27, 3, generator=generator)
    box = torch.tensor([[1.2, 0, 0], [0.15, 1.2, 0], [-0.2, 0.1, 1.2]]).expand(2, 3, 3)
    return positions, box, torch.arange(27) % n_types


def theirs(
    made: EnergyModel, positions: Tensor, box: Tensor | None, types: Tensor
) -> tuple[Tensor, Tensor]:
    """Return U, kJ/mol, and -dU/dR, kJ/mol/nm, of DeePMD-kit's array code fed with tensors."""
    made = _with_tensors(made)
    x = (positions.detach() * 10).requires_grad_()
    atype = types.expand(len(x), -1)
    cell = None if box is None else (box * 10).reshape(len(x), 9)
    energy = made.call(x.flatten(1), atype, cell)["energy"].squeeze(-1)
    (gradient,) = torch.autograd.grad(energy.sum(), x)
    return energy.detach() * ELECTRONVOLT, -gradient * ELECTRONVOLT * 10


def _with_tensors(made: EnergyModel) -> EnergyModel:
    """Return a copy that autograd can follow."""
    made = EnergyModel.deserialize(made.serialize())
    atomic = made.atomic_model
    atomic.out_bias = torch.as_tensor(atomic.out_bias)
    atomic.out_std = torch.as_tensor(atomic.out_std)
    atomic.descriptor.davg = torch.as_tensor(atomic.descriptor.davg)
    atomic.descriptor.dstd = torch.as_tensor(atomic.descriptor.dstd)
    return made


def ours(
    network: DeepPotSE, positions: Tensor, box: Tensor | None, types: Tensor
) -> tuple[Tensor, Tensor]:
    return energy_and_forces(NetworkPotential([network], network.cutoff, types), positions, box)


def assert_same(found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> None:
    """Agreement to 1e-10 of the energy and of the largest force."""
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-10, atol=0)
    scale = float(wanted[1].abs().max())
    assert scale > 1e-3
    torch.testing.assert_close(found[1], wanted[1], rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize(("n_types", "two_sided"), [(1, False), (2, False), (2, True)])
@pytest.mark.parametrize("periodic", [True, False])
def test_their_weights_give_their_energies_and_forces(
    n_types: int, two_sided: bool, periodic: bool
):
    made = model(n_types, two_sided=two_sided)
    positions, box, types = liquid(n_types)
    network, names = from_deepmd(made.serialize())
    assert names == tuple(NAMES[:n_types])
    boundary = box if periodic else None
    wanted = theirs(made, positions, boundary, types)
    assert_same(ours(network, positions, boundary, types), wanted)


def test_tensors_go_through_the_same_code_as_arrays():
    made = model(2)
    positions, box, types = liquid(2)
    x, cell = (10 * positions).flatten(1).numpy(), (10 * box).reshape(2, 9).numpy()
    energy = made.call(x, np.tile(types.numpy(), (2, 1)), cell)["energy"]
    found, _ = theirs(made, positions, box, types)
    np.testing.assert_allclose(found, energy[:, 0] * ELECTRONVOLT, rtol=1e-13)


@pytest.mark.parametrize(
    ("fitting", "resnet_dt", "mixed"),
    [
        ((30, 30), True, False),
        ((15, 30, 60), True, False),
        ((20, 20), False, True),
        ((7,), True, False),
    ],
)
def test_residuals_are_where_theirs_are(fitting: tuple[int, ...], resnet_dt: bool, mixed: bool):
    """The descriptor is 30 wide: residuals of the first layer and of doubled widths count."""
    made = model(2, fitting=fitting, resnet_dt=resnet_dt, mixed=mixed)
    system = liquid(2)
    network, _ = from_deepmd(made.serialize())
    assert_same(ours(network, *system), theirs(made, *system))


@pytest.mark.parametrize(("n_types", "two_sided"), [(1, False), (2, False), (2, True)])
def test_our_weights_go_there_and_back(n_types: int, two_sided: bool):
    torch.manual_seed(4)
    positions, box, types = liquid(n_types)
    network = DeepPotSE(0.55, n_types, two_sided=two_sided)
    potential = NetworkPotential([network], 0.55, types)
    network.standardize(neighbors(positions, box, 0.55), types)
    wanted = energy_and_forces(potential, positions, box)
    made = EnergyModel.deserialize(to_deepmd(network, NAMES[:n_types]))
    assert_same(theirs(made, positions, box, types), wanted)
    back, names = from_deepmd(made.serialize())
    assert names == tuple(NAMES[:n_types])
    assert_same(ours(back, positions, box, types), wanted)


def test_single_precision_networks_are_written_in_double():
    network = DeepPotSE(0.55, 1).float()
    written = to_deepmd(network, ["O"])
    assert written["descriptor"]["@variables"]["davg"].dtype == np.float64
    EnergyModel.deserialize(written)


def test_water_in_its_box():
    if not (WATER / "tip3p216.dcd").is_file():
        pytest.skip("the water trajectory of the shared data is not here")
    frame = mdtraj.load_frame(WATER / "tip3p216.dcd", 1000, top=WATER / "tip3p216.pdb")
    oxygens = frame.topology.select("element O")
    positions = torch.as_tensor(frame.xyz[:, oxygens]).double()
    box = torch.as_tensor(frame.unitcell_vectors).double()
    types = torch.zeros(len(oxygens), dtype=torch.long)
    made = EnergyModel.deserialize(_with_sel(model(1).serialize(), 40))
    network, _ = from_deepmd(made.serialize())
    assert_same(ours(network, positions, box, types), theirs(made, positions, box, types))


def _with_sel(data: dict[str, Any], sel: int) -> dict[str, Any]:
    descriptor = data["descriptor"]
    descriptor["sel"] = [sel]
    for key, value in descriptor["@variables"].items():
        descriptor["@variables"][key] = np.repeat(value[:, :1], sel, axis=1)
    return data


def test_files_of_theirs_are_read(tmp_path: Path):
    made = model(2)
    system = liquid(2)
    save_dp_model(str(tmp_path / "model.dp"), {"model": made.serialize(), "backend": "dpmodel"})
    network, names = from_deepmd(tmp_path / "model.dp")
    assert names == ("A", "B")
    assert_same(ours(network, *system), theirs(made, *system))


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("descriptor", {"exclude_types": [[0, 1]]}, r"descriptor.*exclude_types = \[\[0, 1\]\]"),
        ("descriptor", {"resnet_dt": True}, "descriptor.*resnet_dt = True: only False"),
        ("descriptor", {"activation_function": "gelu"}, "activation_function = 'gelu'"),
        ("descriptor", {"type": "se_atten"}, "type = 'se_atten': only 'se_e2_a'"),
        ("descriptor", {"env_protection": 0.1}, "env_protection = 0.1"),
        ("fitting", {"activation_function": "relu"}, "fitting net.*'relu'"),
        ("fitting", {"numb_fparam": 2}, "numb_fparam = 2"),
        ("fitting", {"atom_ener": [1.0, None]}, "atom_ener"),
        (None, {"pair_exclude_types": [[0, 0]]}, "pair_exclude_types"),
        (None, {"type": "zbl"}, "type = 'zbl'"),
    ],
)
def test_what_we_do_not_have_is_refused(part: str | None, change: dict[str, Any], message: str):
    data = copy.deepcopy(model(2).serialize())
    (data[part] if part else data).update(change)
    with pytest.raises(InputError, match=message):
        from_deepmd(data)


def test_scales_of_each_neighbor_are_refused():
    made = model(1)
    made.atomic_model.descriptor.davg[0, 3, 0] += 0.1
    with pytest.raises(InputError, match="differ between neighbors"):
        from_deepmd(made.serialize())
    made = model(1)
    made.atomic_model.descriptor.dstd[..., 2] *= 2
    with pytest.raises(InputError, match="differ between x, y and z"):
        from_deepmd(made.serialize())


def test_a_layer_without_its_residual_is_refused():
    data = model(1).serialize()
    data["fitting"]["nets"]["networks"][0]["layers"][1]["resnet"] = False
    with pytest.raises(InputError, match="no residual although"):
        from_deepmd(data)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path):
    (tmp_path / "model.dp").write_text("no model")
    with pytest.raises(InputError, match=r"model\.dp is not a DeePMD-kit \.dp file"):
        from_deepmd(tmp_path / "model.dp")
    with pytest.raises(InputError, match="not one name for each of 2 types"):
        to_deepmd(DeepPotSE(0.5, 2), ["O"])
