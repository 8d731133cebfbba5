"""Every network kind obeys the physics. A new kind in NETWORKS is tested by being there."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from deepcg.geometry.neighbor_list import Neighbors, find_pairs, neighbors
from deepcg.networks import NETWORKS, SIZES, DeepPotSE, DeepPotSEL, PairSpline
from deepcg.networks.layers import Perceptron
from deepcg.potentials.beads import NetworkPotential, energy_and_forces
from deepcg.runtime.errors import InputError

CUTOFF = 0.6
N = 24
BOX = [[1.4, 0, 0], [0.2, 1.4, 0], [-0.3, 0.1, 1.4]]
few = settings(max_examples=8, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Case:
    kind: str
    n_types: int
    two_sided: bool
    standardized: bool

    def __str__(self) -> str:
        sides = "-two-sided" * self.two_sided
        return f"{self.kind}-{self.n_types}{sides}{'' if self.standardized else '-raw'}"


def cases() -> list[Case]:
    made = []
    for kind, network in sorted(NETWORKS.items()):
        made += [
            Case(kind, 1, False, False),
            Case(kind, 1, False, True),
            Case(kind, 2, False, True),
        ]
        if "two_sided" in inspect.signature(network).parameters:
            made.append(Case(kind, 2, True, True))
    return made


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="module", params=cases(), ids=str)
def potential(request: pytest.FixtureRequest, float64: None) -> NetworkPotential:
    return build(request.param, torch.arange(N) % request.param.n_types)


def build(case: Case, types: Tensor) -> NetworkPotential:
    torch.manual_seed(1)
    options = dict(SIZES[case.kind]["small"])
    if case.two_sided:
        options["two_sided"] = True
    network = NETWORKS[case.kind](CUTOFF, case.n_types, **options)
    if case.standardized:
        network.standardize(neighbors(*liquid(11, n_frames=4), CUTOFF), types)
    return NetworkPotential([network], CUTOFF, types)


def of_types(potential: NetworkPotential, types: Tensor) -> NetworkPotential:
    """Return the same terms for other beads."""
    return NetworkPotential(list(potential.terms), potential.cutoff, types)


def liquid(seed: int, n_frames: int = 2) -> tuple[Tensor, Tensor]:
    """24 beads in a triclinic box, from 0.24 nm apart to farther than the cutoff."""
    generator = torch.Generator().manual_seed(seed)
    line = torch.arange(3)
    grid = 0.36 * torch.cartesian_prod(line, line, line)[:N]
    positions = grid + 0.12 * torch.rand(n_frames, N, 3, generator=generator)
    return positions, torch.tensor(BOX).expand(n_frames, 3, 3)


def orthogonal(seed: int) -> Tensor:
    """A random rotation or reflection, about as often either."""
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)))
    return q


@given(seed=seeds)
@few
def test_forces_are_minus_the_gradient(potential: NetworkPotential, seed: int):
    positions, box = liquid(seed)
    _, forces = energy_and_forces(potential, positions, box)
    direction = torch.randn(positions.shape, generator=torch.Generator().manual_seed(seed))
    h = 1e-5  # splines are only C2: an error of about (h / spacing of 0.01 nm)^2 / 6 = 2e-7
    u = [potential(positions + k * h * direction, box) for k in (-2, -1, 1, 2)]
    numeric = (u[3] - 8 * u[2] + 8 * u[1] - u[0]) / (12 * h)
    scale = float((forces * direction).abs().sum((1, 2)).max())
    torch.testing.assert_close(
        (forces * direction).sum((1, 2)), numeric, rtol=1e-6, atol=1e-6 * scale
    )


@given(seed=seeds)
@few
def test_rotations_and_reflections_turn_forces_only(potential: NetworkPotential, seed: int):
    positions, _ = liquid(seed)
    turn = orthogonal(seed)
    energy, forces = energy_and_forces(potential, positions, None)
    turned, turned_forces = energy_and_forces(potential, positions @ turn, None)
    torch.testing.assert_close(turned, energy, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(turned_forces, forces @ turn, rtol=1e-9, atol=1e-9)


@given(seed=seeds)
@few
def test_the_order_of_beads_does_not_matter(potential: NetworkPotential, seed: int):
    positions, box = liquid(seed)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    shuffled = of_types(potential, potential.types[order])
    energy, forces = energy_and_forces(potential, positions, box)
    same, same_forces = energy_and_forces(shuffled, positions[:, order], box)
    torch.testing.assert_close(same, energy, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(same_forces, forces[:, order], rtol=1e-9, atol=1e-10)


@given(seed=seeds, x=st.floats(-5, 5), y=st.floats(-5, 5), z=st.floats(-5, 5))
@few
def test_translations_and_images_do_not_matter(
    potential: NetworkPotential, seed: int, x: float, y: float, z: float
):
    positions, box = liquid(seed)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(-2, 3, (2, N, 3), generator=generator).to(positions) @ box
    energy, forces = energy_and_forces(potential, positions, box)
    moved = positions + images + torch.tensor([x, y, z])
    same, same_forces = energy_and_forces(potential, moved, box)
    torch.testing.assert_close(same, energy, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(same_forces, forces, rtol=1e-8, atol=1e-8)


def test_there_is_no_net_force(potential: NetworkPotential):
    _, forces = energy_and_forces(potential, *liquid(2))
    assert float(forces.sum(1).abs().max()) < 1e-12 * float(forces.abs().sum())
    assert float(forces.abs().min()) > 0


def test_frames_do_not_see_each_other(potential: NetworkPotential):
    """Neither through what is around nor through the padding, which others make wider."""
    positions, box = liquid(3, n_frames=3)
    dense = positions.clone()
    dense[1] *= 0.8
    energy, forces = energy_and_forces(potential, dense, box)
    for frame in (0, 2):
        alone = slice(frame, frame + 1)
        same, same_forces = energy_and_forces(potential, dense[alone], box[alone])
        torch.testing.assert_close(same, energy[alone], rtol=1e-12, atol=1e-12)
        scale = float(forces.abs().max())
        torch.testing.assert_close(same_forces, forces[alone], rtol=0, atol=1e-12 * scale)


def test_energy_is_extensive(potential: NetworkPotential):
    positions, box = liquid(4)
    doubled = torch.cat([positions, positions + box[:, None, 0]], dim=1)
    wide = box.clone()
    wide[:, 0] *= 2
    twice = of_types(potential, potential.types.repeat(2))
    torch.testing.assert_close(
        twice(doubled, wide), 2 * potential(positions, box), rtol=1e-12, atol=1e-12
    )


def test_a_longer_list_of_pairs_changes_nothing(potential: NetworkPotential):
    positions, box = liquid(5)
    pairs = find_pairs(positions, box, CUTOFF + 0.06)
    near = potential.environments(positions, pairs)
    assert float(near.distance[near.mask].max()) > CUTOFF
    energy, forces = potential.forces(near)
    wanted, wanted_forces = energy_and_forces(potential, positions, box)
    torch.testing.assert_close(energy, wanted, rtol=1e-12, atol=1e-12)
    scale = float(forces.abs().max())
    torch.testing.assert_close(forces, wanted_forces, rtol=0, atol=1e-12 * scale)


def test_forces_need_no_autograd(potential: NetworkPotential):
    """The loops that go from displacements to pulls at once are the derivatives of the energy."""
    positions, box = liquid(4)
    near = potential.environments(positions, find_pairs(positions, box, CUTOFF + 0.05))
    energy, forces = potential.forces(near)
    slow, others = potential.forces(near, create_graph=True)
    assert not energy.requires_grad
    assert not forces.requires_grad
    torch.testing.assert_close(energy, slow.detach(), rtol=1e-12, atol=1e-12)
    atol = 1e-12 * others.abs().max().item()
    torch.testing.assert_close(forces, others.detach(), rtol=1e-11, atol=atol)


def test_two_derivatives_are_continuous_at_the_cutoff(potential: NetworkPotential):
    """A fifth bead nears one of four: the force it adds falls as the square of its depth."""
    positions = torch.tensor([[0, 0, 0], [-0.2, 0.3, 0], [-0.2, -0.1, 0.25], [-0.3, 0, 0]])
    potential = of_types(potential, potential.types[:5])

    def felt(depth: float) -> Tensor:
        last = torch.tensor([[CUTOFF - depth, 0, 0]])
        return energy_and_forces(potential, torch.cat([positions, last])[None], None)[1]

    far = felt(-1e-4)
    torch.testing.assert_close(felt(-0.5), far, rtol=0, atol=1e-12 * float(far.abs().max()))
    small, large = ((felt(depth) - far).abs().max() for depth in (5e-5, 1e-4))
    assert 0 < small < 1e-2 * far.abs().max()
    assert large / small > 3.5  # 4 but for the next order, small this close


def test_a_loss_on_forces_has_a_gradient_in_all_parameters(potential: NetworkPotential):
    potential.zero_grad()
    energy, forces = energy_and_forces(potential, *liquid(7), create_graph=True)
    (forces.square().mean() + energy.square().mean()).backward()
    gradients = {name: p.grad for name, p in potential.named_parameters()}
    assert gradients
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert torch.isfinite(gradient).all(), name
        assert gradient.abs().max() > 0, name
    potential.zero_grad()


def test_the_gradient_of_a_loss_on_forces_is_right(potential: NetworkPotential):
    positions, box = liquid(8)

    def loss(create_graph: bool) -> Tensor:
        _, forces = energy_and_forces(potential, positions, box, create_graph=create_graph)
        return forces.square().mean()

    parameters = list(potential.parameters())
    generator = torch.Generator().manual_seed(9)
    step = [torch.randn(p.shape, generator=generator) * p.detach().abs().mean() for p in parameters]
    gradients = torch.autograd.grad(
        loss(True), parameters, allow_unused=True, materialize_grads=True
    )
    slope = sum((g * s).sum() for g, s in zip(gradients, step, strict=True))
    h, u = 1e-4, []  # a fourth-order stencil: truncation below 1e-8 of the slope
    kept = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for k in (-2, -1, 1, 2):
            for p, p0, s in zip(parameters, kept, step, strict=True):
                p.copy_(p0 + k * h * s)
            u.append(loss(False))
        for p, p0 in zip(parameters, kept, strict=True):
            p.copy_(p0)
    numeric = (u[0] - 8 * u[1] + 8 * u[2] - u[3]) / (12 * h)
    torch.testing.assert_close(slope, numeric, rtol=1e-6, atol=0)


def test_the_number_of_threads_does_not_matter(potential: NetworkPotential):
    positions, box = liquid(10, n_frames=4)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(energy_and_forces(potential, positions, box))
    finally:
        torch.set_num_threads(before)
    (energy, forces), (same, same_forces) = found
    torch.testing.assert_close(same, energy, rtol=1e-12, atol=0)
    scale = float(forces.abs().max())
    torch.testing.assert_close(same_forces, forces, rtol=0, atol=1e-12 * scale)


def test_beads_alone_have_no_forces(potential: NetworkPotential):
    """Nobody near, one bead only, and a type that is not there."""
    alone = of_types(potential, potential.types[:1])
    energy, forces = energy_and_forces(alone, torch.zeros(2, 1, 3), None)
    assert torch.isfinite(energy).all()
    assert not forces.any()
    apart = of_types(potential, torch.zeros(2, dtype=torch.long))
    far = torch.tensor([[[0.0, 0, 0], [3.0, 0, 0]]])
    energy, forces = energy_and_forces(apart, far, None)
    assert torch.isfinite(energy).all()
    assert not forces.any()


@pytest.mark.parametrize("case", cases(), ids=str)
def test_the_same_seed_makes_the_same_network(case: Case):
    types = torch.arange(N) % case.n_types
    first, second = (build(case, types).state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("case", cases(), ids=str)
def test_scales_survive_one_bead_of_a_type_in_one_frame(case: Case):
    types = torch.zeros(N, dtype=torch.long)
    types[5] = case.n_types - 1
    potential = build(Case(case.kind, case.n_types, case.two_sided, False), types)
    positions, box = liquid(12, n_frames=1)
    potential.terms[0].standardize(neighbors(positions, box, CUTOFF), types)
    for name, value in potential.state_dict().items():
        assert torch.isfinite(value).all(), name


@pytest.mark.parametrize("kind", sorted(NETWORKS))
@pytest.mark.parametrize("size", ["small", "deepmd"])
def test_sizes_are_options(kind: str, size: str):
    assert isinstance(NETWORKS[kind](CUTOFF, 1, **SIZES[kind][size]), nn.Module)


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("widths", [(20, 20), (40, 7), (24,), ()])
def test_slopes_of_a_fitting_net_are_those_of_autograd(widths: tuple[int, ...], residual: bool):
    torch.manual_seed(0)
    net = Perceptron(20, widths, residual=residual).double()
    x = torch.randn(9, 20, dtype=torch.float64, requires_grad=True)
    wanted = net(x)
    (slopes,) = torch.autograd.grad(wanted.sum(), x)
    values, found = net.values_and_slopes(x.detach())
    torch.testing.assert_close(values, wanted.detach(), rtol=0, atol=1e-14)
    torch.testing.assert_close(found, slopes, rtol=0, atol=1e-14)


def test_deeppot_se_sees_pairs_and_angles_only_up_to_l_1():
    """A tetrahedron and a square have equal l = 0 and 1 for their center, not equal l = 2."""
    tetrahedron = 0.3 * torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / 3**0.5
    square = 0.3 * torch.tensor([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])
    near = torch.stack([tetrahedron, square])[:, None]  # (f, 1, 4, 3)
    index = torch.zeros(2, 1, 4, dtype=torch.long)
    seen = Neighbors(near, index, torch.full((2, 1), 4))
    types = torch.zeros(1, dtype=torch.long)
    torch.manual_seed(2)
    for network, equal in [
        (PairSpline(CUTOFF, 1), True),
        (DeepPotSE(CUTOFF, 1), True),
        (DeepPotSEL(CUTOFF, 1, l_max=1, plain=True), True),
        (DeepPotSEL(CUTOFF, 1, l_max=2, plain=True), False),
    ]:
        u = network(seen, types)[:, 0]
        assert bool((u[0] - u[1]).abs() < 1e-10 * u.abs().max()) == equal


def test_sensible_sizes_are_demanded():
    with pytest.raises(InputError, match="6 axis neurons need an embedding as wide, not 4"):
        DeepPotSE(CUTOFF, 1, embedding=(2, 4), axis=6)
    with pytest.raises(InputError, match="40 axis neurons need at least as many channels"):
        DeepPotSEL(CUTOFF, 1, axis=40)
    with pytest.raises(InputError, match="triples is 20: choose 0 to the number of channels, 16"):
        DeepPotSEL(CUTOFF, 1, triples=20)
    with pytest.raises(InputError, match="l_max is 5: choose 0 to 4"):
        DeepPotSEL(CUTOFF, 1, l_max=5)
    with pytest.raises(InputError, match=r"the cutoff 0\.2 nm is not above first_knot, 0\.22 nm"):
        DeepPotSEL(0.2, 1)
    with pytest.raises(InputError, match="3 knots are too few"):
        PairSpline(CUTOFF, 1, n_knots=3)
