"""Every network kind obeys the physics, by its definition and by each fast path that it has.

A new kind in NETWORKS is tested by being there. Numbers are in double precision but for a path that
single precision alone has: there, what rounding may change is a tenth of a per mille of the largest
force or energy, and ten times as much where distances are worked out from other coordinates.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from deepcg.geometry.neighbor_list import Neighbors, find_pairs, neighbors
from deepcg.networks import COMPRESSED, NETWORKS, SIZES, DeepPotSE, DeepPotSEL, PairSpline, sizes_of
from deepcg.networks.deeppot_se.compressed import compressed
from deepcg.networks.fast_path import FastPath, HasFastPath
from deepcg.networks.layers import Perceptron
from deepcg.potentials.beads import NetworkPotential, energy_and_forces
from deepcg.runtime.errors import InputError

F32, F64 = torch.float32, torch.float64
CUTOFF = 0.6
N = 24
BOX = [[1.4, 0, 0], [0.2, 1.4, 0], [-0.3, 0.1, 1.4]]
few = settings(max_examples=3, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Case:
    kind: str
    n_types: int
    two_sided: bool
    standardized: bool
    path: str = "definition"
    dtype: torch.dtype = F64

    def __str__(self) -> str:
        sides = "-two-sided" * self.two_sided
        raw = "" if self.standardized else "-raw"
        return f"{self.kind}-{self.n_types}{sides}{raw}-{self.path}"


def build(case: Case) -> nn.Module:
    torch.manual_seed(1)
    kind = case.kind.removesuffix("-compressed")
    options = dict(sizes_of(kind)["small"])
    if case.two_sided:
        options["two_sided"] = True
    network = NETWORKS[kind](CUTOFF, case.n_types, **options).double()
    if case.standardized:
        types = torch.arange(N) % case.n_types
        network.standardize(neighbors(*liquid(11, n_frames=4), CUTOFF), types)
    return network if kind == case.kind else compressed(network, 0.1, 1e-6)[0]


def liquid(seed: int, n_frames: int = 2) -> tuple[Tensor, Tensor]:
    """24 beads in a triclinic box, from 0.24 nm apart to farther than the cutoff."""
    generator = torch.Generator().manual_seed(seed)
    line = torch.arange(3)
    grid = 0.36 * torch.cartesian_prod(line, line, line)[:N]
    positions = grid + 0.12 * torch.rand(n_frames, N, 3, generator=generator, dtype=F64)
    return positions, torch.tensor(BOX, dtype=F64).expand(n_frames, 3, 3)


def kinds() -> list[Case]:
    made = []
    for kind, network in sorted(NETWORKS.items()):
        made += [Case(kind, 1, False, False), Case(kind, 2, False, True)]
        if "two_sided" in inspect.signature(network).parameters:
            made.append(Case(kind, 2, True, True))
    return made


def cases() -> list[Case]:
    """All kinds by their definitions, and by each path that they offer."""
    made = [*kinds(), *(Case(kind, 2, False, True) for kind in COMPRESSED)]
    return [replace(case, path=p, dtype=d) for case in made for p, d in paths(case)]


def paths(case: Case) -> list[tuple[str, torch.dtype]]:
    """Return the paths to a network's energies, with the precision to look at each in."""
    found, network = [("definition", F64)], build(replace(case, standardized=False))
    if not isinstance(network, HasFastPath):
        return found
    offers = {dtype: network.fast_path(torch.empty(0, dtype=dtype)) for dtype in (F64, F32)}
    if offers[F64] is not None and case.kind in NETWORKS:
        found.append(("training", F64))
    infer = (d for d, offer in offers.items() if offer and offer.energies_and_pair_gradients)
    return [*found, *(("inference", dtype) for dtype in list(infer)[:1])]


class OnePath(nn.Module):
    """A network that is evaluated in one way alone."""

    def __init__(self, network: nn.Module, path: str) -> None:
        super().__init__()
        self.network, self.path = network, path

    def forward(self, near: Neighbors, types: Tensor) -> Tensor:
        assert self.path == "definition"
        energies: Tensor = self.network(near, types)
        return energies

    def fast_path(self, like: Tensor) -> FastPath | None:
        if self.path == "definition":
            return None
        offer = self.network.fast_path(like)
        return FastPath(offer.energies) if self.path == "training" else offer


@dataclass(frozen=True)
class Subject:
    """A network on one of its paths, asked and answering in double precision."""

    potential: NetworkPotential
    case: Case

    @property
    def types(self) -> Tensor:
        return self.potential.types

    @property
    def rounding(self) -> float:
        return 1e-12 if self.case.dtype == F64 else 1e-4

    def of(self, types: Tensor) -> Subject:
        """Return the same for other beads."""
        terms = list(self.potential.terms)
        return Subject(NetworkPotential(terms, CUTOFF, types), self.case)

    def __call__(self, positions: Tensor, box: Tensor | None) -> tuple[Tensor, Tensor]:
        box = None if box is None else box.to(self.case.dtype)
        energy, forces = energy_and_forces(self.potential, positions.to(self.case.dtype), box)
        return energy.double(), forces.double()

    def assert_same(
        self, found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor], times: float = 1
    ) -> None:
        for one, other in zip(found, wanted, strict=True):
            atol = times * self.rounding * float(other.abs().max())
            torch.testing.assert_close(one, other, rtol=0, atol=atol)


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="module", params=cases(), ids=str)
def subject(request: pytest.FixtureRequest, float64: None) -> Subject:
    return make(request.param)


@pytest.fixture(
    scope="module",
    params=[c for c in cases() if c.path != "inference" and c.kind in NETWORKS],
    ids=str,
)
def potential(request: pytest.FixtureRequest, float64: None) -> NetworkPotential:
    """What can be trained."""
    return make(request.param).potential


def make(case: Case) -> Subject:
    types = torch.arange(N) % case.n_types
    network = OnePath(build(case), case.path).to(case.dtype)
    return Subject(NetworkPotential([network], CUTOFF, types), case)


def orthogonal(seed: int) -> Tensor:
    """A random rotation or reflection, about as often either."""
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)))
    return q


@given(seed=seeds)
@few
def test_forces_are_minus_the_gradient(subject: Subject, seed: int):
    positions, box = liquid(seed)
    _, forces = subject(positions, box)
    direction = torch.randn(positions.shape, generator=torch.Generator().manual_seed(seed))
    # splines are only C2: an error of about (h / spacing of 0.01 nm)^2 / 6 = 2e-7 of the slope, in
    # single precision, where rounding of the energies over h is another, of some 1e-3
    h, limit = (1e-5, 1e-6) if subject.case.dtype == F64 else (1e-3, 1e-2)
    u = [subject(positions + k * h * direction, box)[0] for k in (-2, -1, 1, 2)]
    numeric = (u[3] - 8 * u[2] + 8 * u[1] - u[0]) / (12 * h)
    scale = float((forces * direction).abs().sum((1, 2)).max())
    torch.testing.assert_close(
        (forces * direction).sum((1, 2)), numeric, rtol=limit, atol=limit * scale
    )


@given(seed=seeds)
@few
def test_rotations_and_reflections_turn_forces_only(subject: Subject, seed: int):
    positions, _ = liquid(seed)
    turn = orthogonal(seed)
    energy, forces = subject(positions, None)
    subject.assert_same(subject(positions @ turn, None), (energy, forces @ turn), times=10)


@given(seed=seeds)
@few
def test_the_order_of_beads_does_not_matter(subject: Subject, seed: int):
    positions, box = liquid(seed)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    energy, forces = subject(positions, box)
    shuffled = subject.of(subject.types[order])(positions[:, order], box)
    subject.assert_same(shuffled, (energy, forces[:, order]))


@given(seed=seeds, x=st.floats(-5, 5), y=st.floats(-5, 5), z=st.floats(-5, 5))
@few
def test_translations_and_images_do_not_matter(
    subject: Subject, seed: int, x: float, y: float, z: float
):
    positions, box = liquid(seed)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(-2, 3, (2, N, 3), generator=generator).to(positions) @ box
    moved = positions + images + torch.tensor([x, y, z])
    subject.assert_same(subject(moved, box), subject(positions, box), times=10)


def test_there_is_no_net_force(subject: Subject):
    _, forces = subject(*liquid(2))
    assert float(forces.sum(1).abs().max()) < subject.rounding * float(forces.abs().sum())
    assert float(forces.abs().min()) > 0


def test_frames_do_not_see_each_other(subject: Subject):
    """Neither through what is around nor through the padding, which others make wider."""
    positions, box = liquid(3, n_frames=3)
    dense = positions.clone()
    dense[1] *= 0.8
    energy, forces = subject(dense, box)
    for frame in (0, 2):
        alone = slice(frame, frame + 1)
        subject.assert_same(subject(dense[alone], box[alone]), (energy[alone], forces[alone]))


def test_energy_is_extensive(subject: Subject):
    positions, box = liquid(4)
    doubled = torch.cat([positions, positions + box[:, None, 0]], dim=1)
    wide = box.clone()
    wide[:, 0] *= 2
    energy, forces = subject(positions, box)
    twice = subject.of(subject.types.repeat(2))(doubled, wide)
    subject.assert_same(twice, (2 * energy, forces.repeat(1, 2, 1)), times=10)


def test_a_longer_list_of_pairs_changes_nothing(subject: Subject):
    positions, box = (x.to(subject.case.dtype) for x in liquid(5))
    pairs = find_pairs(positions, box, CUTOFF + 0.06)
    near = subject.potential.environments(positions, pairs)
    assert float(near.distance[near.mask].max()) > CUTOFF
    energy, forces = subject.potential.forces(near)
    subject.assert_same((energy.double(), forces.double()), subject(positions, box))


@pytest.mark.parametrize("case", [c for c in cases() if c.path != "definition"], ids=str)
def test_every_path_gives_what_the_definition_says(case: Case):
    wanted = make(replace(case, path="definition", dtype=F64))(*liquid(4))
    energy, forces = make(case)(*liquid(4))
    assert not energy.requires_grad
    assert not forces.requires_grad
    make(case).assert_same((energy, forces), wanted, times=10)


def test_two_derivatives_are_continuous_at_the_cutoff(subject: Subject):
    """A fifth bead nears one of four: the force it adds falls as the square of its depth."""
    positions = torch.tensor([[0, 0, 0], [-0.2, 0.3, 0], [-0.2, -0.1, 0.25], [-0.3, 0, 0]])
    subject = subject.of(subject.types[:5])
    # in single precision rounding would hide a force so small: the next order shows more
    depths, least = ((5e-5, 1e-4), 3.5) if subject.case.dtype == F64 else ((1e-3, 2e-3), 2.5)

    def felt(depth: float) -> Tensor:
        last = torch.tensor([[CUTOFF - depth, 0, 0]])
        return subject(torch.cat([positions, last])[None], None)[1]

    far = felt(-1e-4)
    atol = subject.rounding * float(far.abs().max())
    torch.testing.assert_close(felt(-0.5), far, rtol=0, atol=atol)
    small, large = ((felt(depth) - far).abs().max() for depth in depths)
    assert 0 < small < 1e-2 * far.abs().max()
    assert large / small > least  # 4 but for the next order, small this close


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


def test_the_number_of_threads_does_not_matter(subject: Subject):
    positions, box = liquid(10, n_frames=4)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(subject(positions, box))
    finally:
        torch.set_num_threads(before)
    subject.assert_same(*found)


def test_beads_alone_have_no_forces(subject: Subject):
    """Nobody near, one bead only, and a type that is not there."""
    energy, forces = subject.of(subject.types[:1])(torch.zeros(2, 1, 3), None)
    assert torch.isfinite(energy).all()
    assert not forces.any()
    far = torch.tensor([[[0.0, 0, 0], [3.0, 0, 0]]])
    energy, forces = subject.of(torch.zeros(2, dtype=torch.long))(far, None)
    assert torch.isfinite(energy).all()
    assert not forces.any()


@pytest.mark.parametrize("case", kinds(), ids=str)
def test_the_same_seed_makes_the_same_network(case: Case):
    first, second = (build(case).state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("case", kinds(), ids=str)
def test_scales_survive_one_bead_of_a_type_in_one_frame(case: Case):
    types = torch.zeros(N, dtype=torch.long)
    types[5] = case.n_types - 1
    network = build(replace(case, standardized=False))
    positions, box = liquid(12, n_frames=1)
    network.standardize(neighbors(positions, box, CUTOFF), types)
    for name, value in network.state_dict().items():
        assert torch.isfinite(value).all(), name


@pytest.mark.parametrize("kind", sorted(NETWORKS))
def test_sizes_are_options(kind: str):
    assert "small" in sizes_of(kind)
    for options in sizes_of(kind).values():
        assert isinstance(NETWORKS[kind](CUTOFF, 1, **options), nn.Module)
    assert SIZES.keys() <= NETWORKS.keys()


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
        (DeepPotSEL(CUTOFF, 1, l_max=1), True),
        (DeepPotSEL(CUTOFF, 1, l_max=2), False),
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
