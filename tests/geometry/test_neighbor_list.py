"""Who is near whom: two searches and two other packages agree, in any reduced box."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import freud
import numpy as np
import pytest
import torch
import vesin
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from deepcg.geometry.box import box_heights, reduced
from deepcg.geometry.neighbor_list import (
    Neighbors,
    PairList,
    all_pairs,
    environments,
    find_pairs,
    neighbors,
)
from deepcg.networks import PairSpline
from deepcg.potentials.beads import NetworkPotential, energy_and_forces
from deepcg.potentials.verlet_list import VerletForces
from deepcg.runtime.errors import InputError

Search = Callable[[Tensor, Tensor | None, float], PairList]
Found = list[tuple[int, int, tuple[float, ...]]]
few = settings(max_examples=25, deadline=None, derandomize=True, database=None)


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@st.composite
def systems(draw: st.DrawFn) -> tuple[Tensor, Tensor, float]:
    """Draw positions (n, 3), some far outside the box, a reduced box and a fitting cutoff."""
    seed = draw(st.integers(0, 2**32 - 1))
    n = draw(st.integers(1, 30))
    random = np.random.default_rng(seed)
    lengths = random.uniform(1, 2.5, 3)
    tilt = np.tril(random.uniform(-2, 2, (3, 3)), -1)
    box = torch.from_numpy(reduced((np.diag(lengths) + tilt)[None])[0])
    cutoff = 0.999 * float(box_heights(box).min()) / 2 * random.uniform(0.4, 1)
    positions = torch.from_numpy(random.uniform(-2, 3, (n, 3))) @ box[0]
    return positions, box[0], cutoff


def listed(pairs: PairList, positions: Tensor, frame: int = 0) -> Found:
    """Return what is listed for a frame, as sorted (i, j, r_ij rounded)."""
    near = environments(positions[None] if positions.ndim == 2 else positions, pairs, 100.0)
    found = []
    for i in range(pairs.index.shape[1]):
        for slot in range(int(pairs.count[frame, i])):
            r = near.displacement[frame, i, slot].tolist()
            found.append((i, int(pairs.index[frame, i, slot]), tuple(np.round(r, 6) + 0.0)))
    return sorted(found)


def brute_force(positions: Tensor, box: Tensor | None, cutoff: float) -> Found:
    """Try every image of every bead: no rounding trick is trusted."""
    x = positions.numpy()
    shifts = np.zeros((1, 3))
    if box is not None:
        around = np.stack(np.meshgrid(*[np.arange(-9, 10)] * 3), -1).reshape(-1, 3)
        shifts = around @ box.numpy()
    found = []
    for i, j in np.ndindex(len(x), len(x)):
        if i != j:
            r = x[j] - x[i] + shifts
            r = r[np.linalg.norm(r, axis=1) < cutoff]
            found += [(i, j, tuple(np.round(one, 6) + 0.0)) for one in r.tolist()]
    return sorted(found)


def of_vesin(positions: Tensor, box: Tensor | None, cutoff: float) -> Found:
    cell = np.zeros((3, 3)) if box is None else box.numpy()
    search = vesin.NeighborList(cutoff=cutoff, full_list=True)
    i, j, r = search.compute(
        points=positions.numpy(), box=cell, periodic=box is not None, quantities="ijD"
    )
    return sorted(
        (int(a), int(b), tuple(np.round(d, 6) + 0.0))
        for a, b, d in zip(i, j, np.asarray(r), strict=True)
    )


def assert_equal(found: Found, wanted: Found) -> None:
    assert [pair[:2] for pair in found] == [pair[:2] for pair in wanted]
    if wanted:
        np.testing.assert_allclose([p[2] for p in found], [p[2] for p in wanted], atol=3e-6)


@given(systems())
@few
def test_all_searches_agree_in_triclinic_boxes(system: tuple[Tensor, Tensor, float]):
    positions, box, cutoff = system
    wanted = of_vesin(positions, box, cutoff)
    assert_equal(listed(find_pairs(positions[None], box[None], cutoff), positions), wanted)
    assert_equal(listed(all_pairs(positions[None], box[None], cutoff), positions), wanted)


@given(systems())
@settings(few, max_examples=10)
def test_they_agree_with_every_image_tried(system: tuple[Tensor, Tensor, float]):
    positions, box, cutoff = system
    positions = positions[:12] - torch.floor(positions[:12] @ torch.linalg.inv(box)) @ box
    wanted = brute_force(positions, box, cutoff)
    assert_equal(listed(find_pairs(positions[None], box[None], cutoff), positions), wanted)


@given(systems())
@few
def test_all_searches_agree_in_the_open(system: tuple[Tensor, Tensor, float]):
    positions, _, cutoff = system
    wanted = brute_force(positions, None, cutoff)
    assert_equal(listed(find_pairs(positions[None], None, cutoff), positions), wanted)
    assert_equal(listed(all_pairs(positions[None], None, cutoff), positions), wanted)
    assert_equal(of_vesin(positions, None, cutoff), wanted)


def test_distances_are_those_of_freud():
    box = torch.tensor([[2.0, 0, 0], [0.6, 1.9, 0], [-0.7, 0.4, 1.8]])
    positions = torch.rand(40, 3, generator=torch.Generator().manual_seed(1)) @ box
    near = neighbors(positions[None], box[None], 0.7)
    cell = freud.box.Box.from_matrix(box.T.numpy())
    query = freud.locality.AABBQuery(cell, cell.wrap(positions.numpy()))
    found = query.query(cell.wrap(positions.numpy()), {"r_max": 0.7, "exclude_ii": True})
    wanted = np.sort(found.toNeighborList().distances)
    np.testing.assert_allclose(np.sort(near.distance[near.mask]), wanted, atol=1e-6)  # float32


def test_single_precision_finds_the_same_pairs():
    box = torch.tensor([[2.0, 0, 0], [0.6, 1.9, 0], [-0.7, 0.4, 1.8]])
    positions = torch.rand(3, 50, 3, generator=torch.Generator().manual_seed(2)) @ box
    wanted = find_pairs(positions, box.expand(3, 3, 3), 0.7)
    found = find_pairs(positions.float(), box.expand(3, 3, 3), 0.7)
    assert found.shift.dtype == torch.float32
    assert torch.equal(found.index, wanted.index)  # no distance is within 1e-6 of the cutoff
    torch.testing.assert_close(found.shift.double(), wanted.shift, rtol=0, atol=1e-6)


def test_padding_comes_last_and_names_the_bead_itself():
    positions = torch.tensor([[[0.0, 0, 0], [0.3, 0, 0], [0.6, 0, 0], [3.0, 0, 0]]])
    pairs = find_pairs(positions, None, 0.5)
    assert pairs.index.tolist() == [[[1, 0], [0, 2], [1, 2], [3, 3]]]
    assert pairs.count.tolist() == [[1, 2, 1, 0]]
    near = environments(positions, pairs, 1.0)
    assert near.mask.tolist() == [[[True, False], [True, True], [True, False], [False, False]]]
    assert not (near.distance[~near.mask] != 1.0).any()
    types = torch.tensor([0, 1, 0, 1])
    assert near.neighbor_types(types).tolist() == [[[1, -1], [0, 0], [1, -1], [-1, -1]]]


@pytest.mark.parametrize("search", [find_pairs, all_pairs])
def test_one_bead_and_beads_without_neighbors(search: Search):
    for positions in (torch.zeros(1, 1, 3), torch.tensor([[[0.0, 0, 0], [5.0, 0, 0]]])):
        n = positions.shape[1]
        for box in (None, 20 * torch.eye(3)[None]):
            pairs = search(positions, box, 0.5)
            assert pairs.count.tolist() == [[0] * n]
            assert pairs.index.tolist() == [[[i] for i in range(n)]]
            assert tuple(pairs.shift.shape) == (1, n, 1, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1.0, 1.0, 1.0), (2.5, 0.9, 0.4), (0.3, 3.0, 1.1)])
def test_many_cells_hold_the_pairs_of_one(shape: tuple[float, ...], dtype: torch.dtype):
    """Boxes of 1 to 14 cells a side, also a sparse one; beads are up to two boxes away."""
    box = (
        torch.tensor([[4.2, 0, 0], [1.3, 4.0, 0], [-1.5, 0.8, 3.8]]) * torch.tensor(shape)[:, None]
    )
    boxes = torch.stack([box, 1.1 * box, 4 * box]).to(dtype)
    cutoff = min(0.6, 0.499 * float(box_heights(boxes).min()))
    generator = torch.Generator().manual_seed(3)
    positions = (4 * torch.rand(3, 700, 3, generator=generator) - 2).to(dtype) @ boxes
    for boundary in (boxes, None):
        found, wanted = (f(positions, boundary, cutoff) for f in (find_pairs, all_pairs))
        assert torch.equal(found.count, wanted.count)
        assert int(wanted.count.sum()) > 0
        by_number, same = found.index.sort(dim=2), wanted.index.sort(dim=2)
        assert torch.equal(by_number.values, same.values)
        shifts = [
            p.shift.gather(2, s.indices[..., None].expand_as(p.shift))
            for p, s in ((found, by_number), (wanted, same))
        ]
        torch.testing.assert_close(*shifts, rtol=0, atol=1e-5)


def test_what_is_not_finite_is_near_nothing_and_hides_nothing():
    positions = 4 * torch.rand(1, 300, 3, generator=torch.Generator().manual_seed(4))
    boxes = 4 * torch.eye(3)[None]
    for boundary in (boxes, None):
        lost = positions.clone()
        lost[0, 7], lost[0, 9] = torch.nan, torch.inf
        pairs = find_pairs(lost, boundary, 0.6)
        assert pairs.count[0, [7, 9]].tolist() == [0, 0]
        rest = [i for i in range(300) if i not in (7, 9)]
        alone = find_pairs(positions[:, rest], boundary, 0.6)
        assert torch.equal(pairs.count[:, rest], alone.count)


def test_lists_are_joined_at_the_width_of_the_widest():
    generator = torch.Generator().manual_seed(4)
    positions = [torch.rand(2, 20, 3, generator=generator) * scale for scale in (3, 1, 2)]
    parts = [find_pairs(x, None, 0.5) for x in positions]
    joined = PairList.join(parts)
    assert joined.index.shape[2] == max(part.index.shape[2] for part in parts)
    wanted = find_pairs(torch.cat(positions), None, 0.5)
    assert torch.equal(joined.index, wanted.index)
    assert torch.equal(joined.count, wanted.count)
    assert torch.equal(joined[2:4].index, wanted[2:4].index)


def test_displacements_can_be_differentiated():
    positions = torch.rand(1, 6, 3, generator=torch.Generator().manual_seed(5))
    pairs = find_pairs(positions, torch.eye(3)[None], 0.49)

    def squares(x: Tensor) -> Tensor:
        near = environments(x, pairs, 1.0)
        return near.displacement[near.mask].square().sum()

    assert torch.autograd.gradcheck(squares, positions.requires_grad_())


def test_a_box_too_small_for_the_cutoff_is_refused():
    box = torch.tensor([[2.0, 0, 0], [1.0, 1.5, 0], [0, 0, 3.0]])[None]
    height = 1.5 * 2 / np.hypot(1.0, 1.5)  # of the face across a: area / |b| = 1.664
    np.testing.assert_allclose(box_heights(box)[0], [height, 1.5, 3.0])
    positions = torch.zeros(1, 2, 3)
    with pytest.raises(InputError, match=r"0\.8 nm .* shortest box height 1\.500 nm.* 0\.750 nm"):
        find_pairs(positions, box, 0.8)
    find_pairs(positions + torch.tensor([[[0.0], [0.1]]]), box, 0.75)
    growing = torch.cat([2 * box, box])
    with pytest.raises(InputError, match=r"1\.500 nm"):
        find_pairs(positions.expand(2, 2, 3), growing, 0.8)


@pytest.mark.parametrize(("side", "skin"), [(3.0, 0.1), (1.25, 0.025), (1.2, 0.0), (None, 0.1)])
def test_forces_along_a_walk_are_those_of_fresh_lists(side: float | None, skin: float):
    """In a small box the skin shrinks to the room that is left."""
    torch.manual_seed(6)
    potential = NetworkPotential([PairSpline(0.6, 1)], 0.6, torch.zeros(30, dtype=torch.long))
    box = None if side is None else side * torch.eye(3)
    force_field = VerletForces(potential, box, skin=0.1)
    assert force_field.skin == pytest.approx(skin, abs=1e-4)
    generator = torch.Generator().manual_seed(7)
    positions = (side or 1.5) * torch.rand(2, 30, 3, generator=generator)
    lists = set()
    for _ in range(40):
        positions = positions + 0.01 * torch.randn(2, 30, 3, generator=generator)
        energy, forces = force_field(positions)
        lists.add(id(force_field.pairs))
        boxes = None if box is None else box.expand(2, 3, 3)
        wanted, wanted_forces = energy_and_forces(potential, positions, boxes)
        torch.testing.assert_close(energy, wanted, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(forces, wanted_forces, rtol=0, atol=1e-10)
    if skin == 0.1:
        assert len(lists) < 30  # the list outlives steps, or the test shows nothing


def test_a_list_is_renewed_on_demand_and_for_another_number_of_replicas():
    potential = NetworkPotential([_Count()], 0.6, torch.zeros(5, dtype=torch.long))
    force_field = VerletForces(potential, None, skin=0.1)
    positions = 0.1 * torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(8))
    force_field(positions)
    first = force_field.pairs
    force_field(positions + 0.01)
    assert force_field.pairs is first
    force_field(positions[:1])
    second = force_field.pairs
    assert second is not first
    force_field.renew()
    force_field(positions[:1])
    assert force_field.pairs is not second


def test_what_is_not_finite_renews_the_list():
    potential = NetworkPotential([_Count()], 0.6, torch.zeros(5, dtype=torch.long))
    force_field = VerletForces(potential, None, skin=0.1)
    positions = 0.1 * torch.rand(1, 5, 3, generator=torch.Generator().manual_seed(9))
    force_field(positions)
    first = force_field.pairs
    positions[0, 2, 1] = torch.nan
    force_field(positions)
    assert force_field.pairs is not first


class _Count(nn.Module):
    def forward(self, near: Neighbors, types: Tensor) -> Tensor:
        return (near.displacement.square().sum(-1) * near.mask).sum(-1)
