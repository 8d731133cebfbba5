"""A potential works for any number of beads of types that it knows, and refuses all others.

Compiled loops do not look at sizes: what their callers let through ends the process. So all that
may is run in one process of its own first, whose exit status tells.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepcg.geometry.neighbor_list import Neighbors, PairList, environments, find_pairs, neighbors
from deepcg.networks import COMPRESSED, NETWORKS, sizes_of
from deepcg.networks.deeppot_se.compressed import compressed
from deepcg.networks.fast_path import evaluation
from deepcg.potentials.beads import NetworkPotential, energy_and_forces
from deepcg.potentials.ensemble import EnsemblePotential
from deepcg.potentials.priors import ForceField, Repulsion, Table
from deepcg.potentials.verlet_list import VerletForces, force_field
from deepcg.runtime.errors import InputError
from deepcg.workflow.model import BeadModel

CUTOFF, N = 0.5, 27
KINDS = [*NETWORKS, *COMPRESSED, "repulsion"]
DTYPES = [torch.float32, torch.float64]


def term(kind: str, dtype: torch.dtype) -> nn.Module:
    """Return a network of two types, or the repulsion."""
    torch.manual_seed(1)
    if kind == "repulsion":
        return Repulsion(torch.full((2, 2), 0.4, dtype=dtype), 2.5)
    trained = kind.removesuffix("-compressed")
    network = NETWORKS[trained](CUTOFF, 2, **sizes_of(trained)["small"]).to(dtype)
    network.standardize(neighbors(*liquid(3, dtype), CUTOFF), types(3))
    return network if kind == trained else compressed(network, 0.1, 1e-5)[0]


def liquid(edge: int, dtype: torch.dtype, n_frames: int = 2) -> tuple[Tensor, Tensor]:
    """Return edge^3 beads on a shaken lattice, and its boxes."""
    generator = torch.Generator().manual_seed(edge)
    grid = 0.36 * torch.cartesian_prod(*[torch.arange(edge)] * 3).view(-1, 3)
    shaken = grid + 0.1 * torch.rand(n_frames, edge**3, 3, generator=generator)
    box = 0.36 * max(edge, 3) * torch.eye(3)
    return shaken.to(dtype), box.to(dtype).expand(n_frames, 3, 3)


def types(edge: int) -> Tensor:
    return torch.arange(edge**3) % 2


def potential(kind: str, dtype: torch.dtype = torch.float32) -> NetworkPotential:
    return NetworkPotential([term(kind, dtype)], CUTOFF, types(3))


def wrong_environments(near: Neighbors) -> list[tuple[Neighbors, Tensor]]:
    """Return what no loop may see: other numbers of beads than types, none, unknown types."""
    good = types(3)
    unknown, negative = good.clone(), good.clone()
    unknown[5], negative[5] = 2, -1
    few = Neighbors(*(part[:, :8] for part in (near.displacement, near.index, near.count)))
    none = Neighbors(*(part[:, :0] for part in (near.displacement, near.index, near.count)))
    return [
        (near, good[:8]),
        (near, torch.cat([good] * 4)),
        (near, good[:0]),
        (near, good[None]),
        (near, unknown),
        (near, negative),
        (near, good.double()),
        (few, good),
        (none, good[:0]),
        (near[:0], good),
        (replace(near, count=near.count[:, :8]), good),
        (replace(near, displacement=near.displacement[:, :, :1]), good),
        (replace(near, kinds=torch.full(near.index.shape, 7, dtype=torch.int32)), good),
        (replace(near, kinds=near.index[:, :8].to(torch.int32)), good),
    ]


def refuse_wrong_environments(kind: str, dtype: torch.dtype) -> None:
    near = neighbors(*liquid(3, dtype), CUTOFF)
    for ways in evaluation(term(kind, dtype), near.displacement):
        for seen, of in wrong_environments(near):
            with pytest.raises(InputError) as refused:
                ways(seen, of)
            assert "\n" not in str(refused.value)


def refuse_wrong_beads(kind: str, dtype: torch.dtype) -> None:
    """All ways into a potential of 27 beads, with 8, 64 and none."""
    one = potential(kind, dtype)
    others = energy_and_forces, lambda u, x, box: u(x, box), given_a_list, along_a_run
    for of in (one, EnsemblePotential([one, potential(kind, dtype)])):
        for edge in (2, 4, 0):
            for evaluate in others:
                with pytest.raises(InputError, match="27 beads") as refused:
                    evaluate(of, *liquid(edge, dtype))
                assert "\n" not in str(refused.value)


def given_a_list(u: NetworkPotential, positions: Tensor, box: Tensor) -> object:
    return u.all_forces(positions, find_pairs(positions, box, CUTOFF))


def along_a_run(u: NetworkPotential, positions: Tensor, box: Tensor) -> object:
    forces = VerletForces(u, box[0], skin=0.01)
    forces(liquid(3, positions.dtype)[0])  # a list that is there already must not be used
    return forces(positions)


def refuse_wrong_lists() -> None:
    """Lists, boxes, types and force fields of other sizes than the positions."""
    positions, box = liquid(3, torch.float32)
    pairs = find_pairs(positions, box, CUTOFF)
    shift = pairs.shift[:, :, :1]
    table = Table(torch.tensor([[0, 40]]), torch.tensor([[0.1, 1.0]]))
    wrong = [
        lambda: find_pairs(positions[0], box, CUTOFF),
        lambda: find_pairs(positions[..., :2], box, CUTOFF),
        lambda: find_pairs(positions, box[:1], CUTOFF),
        lambda: environments(positions[:, :8], pairs, 1.0),
        lambda: environments(torch.cat([positions] * 2), pairs, 1.0),
        lambda: environments(positions, replace(pairs, shift=shift), 1.0),
        lambda: pairs.with_types(types(2)),
        lambda: pairs.with_types(types(4)),
        lambda: environments(positions, pairs, 1.0).neighbor_types(types(2)),
        lambda: ForceField({"bonds": table}).forces(positions),
        lambda: ForceField({"bonds": table}).forces(positions[:, :0]),
    ]
    for refused in wrong:
        with pytest.raises(InputError):
            refused()


def test_nothing_that_is_given_ends_the_process() -> None:
    path = Path(__file__)
    code = (
        f"import sys; sys.path.insert(0, {str(path.parent)!r}); import {path.stem} as all_of_it; "
    )
    done = subprocess.run(
        [sys.executable, "-c", code + "all_of_it.refuse_all()"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


def refuse_all() -> None:
    refuse_wrong_lists()
    for dtype in DTYPES:
        for kind in KINDS:
            refuse_wrong_environments(kind, dtype)
            refuse_wrong_beads(kind, dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_other_numbers_of_beads_are_like_those_of_the_fit(kind: str) -> None:
    """Two boxes side by side have twice the energy of one, and the same forces."""
    positions, box = liquid(3, torch.float64)
    u = potential(kind, torch.float64)
    energy, forces = energy_and_forces(u, positions, box)
    twice = torch.cat([positions, positions + box[:, :1]], dim=1)
    longer = box.clone()
    longer[:, 0] *= 2
    both = torch.cat([types(3)] * 2)
    found = [
        energy_and_forces(u, twice, longer, both),
        energy_and_forces(EnsemblePotential([u, u]), twice, longer, both),
        force_field(u, longer[0], both, skin=0.0)(twice),
    ]
    scale = 1e-12 * float(forces.abs().max())
    for more, of_both in found:
        torch.testing.assert_close(more, 2 * energy, rtol=1e-12, atol=1e-9)
        torch.testing.assert_close(of_both, torch.cat([forces] * 2, 1), rtol=0, atol=100 * scale)


@pytest.mark.parametrize("wrong", [torch.tensor([0, 1, 2]), torch.tensor([-1]), torch.empty(0)])
def test_beads_of_unknown_types_and_none_are_refused(wrong: Tensor) -> None:
    u = potential("pair-spline")
    with pytest.raises(InputError, match="type"):
        u.of_beads(wrong)


def test_a_force_field_holds_for_its_own_beads_alone() -> None:
    field = ForceField({"bonds": Table(torch.tensor([[0, 1]]), torch.tensor([[0.1, 1.0]]))})
    u = NetworkPotential([term("pair-spline", torch.float32)], CUTOFF, types(3), field)
    assert torch.equal(u.of_beads(types(3)).types, u.types)
    with pytest.raises(InputError, match="27 beads that it was fitted to"):
        u.of_beads(types(2))


def test_a_model_takes_names_of_types() -> None:
    u = potential("deeppot-se-l", torch.float64)
    names = tuple("AB"[k] for k in types(3).tolist())
    model = BeadModel(u, names, np.array([1.0, 2.0])[types(3)], 300.0, "beads", True)
    positions, box = (part.numpy() for part in liquid(4, torch.float64))
    with pytest.raises(InputError, match=r"has 27 beads: give .* or the types of others"):
        model.energy(positions, box)
    for none in ([], ["A"] * 63, ["C"] * 64, "A"):
        with pytest.raises(InputError):
            model.forces(positions, box, none)
    mixed = ["AB"[k] for k in types(4).tolist()]
    wanted = energy_and_forces(u, *liquid(4, torch.float64), types(4))[1].numpy()
    np.testing.assert_allclose(model.forces(positions, box, mixed), wanted, rtol=1e-12, atol=1e-12)
    assert model.of_beads(mixed).masses.tolist() == [1.0, 2.0] * 32


def test_a_list_that_is_widened_stays_whole() -> None:
    positions, box = liquid(3, torch.float32)
    pairs: PairList = find_pairs(positions, box, CUTOFF).widened(40)
    assert environments(positions, pairs, 1.0).displacement.shape == (2, N, 40, 3)
