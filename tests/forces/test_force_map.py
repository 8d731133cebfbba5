from __future__ import annotations

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from openmm import app, unit
from paths import SHARED
from scipy.optimize import minimize
from scipy.sparse import csr_array

from deepcg.forces.bead_estimators import ESTIMATORS
from deepcg.forces.constraints import Constraints, from_system, from_water
from deepcg.forces.force_map import least_noise_map, project, projected_map
from deepcg.mapping.beads import LinearMapping, build_mapping
from deepcg.runtime.errors import InputError
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.topology import MoleculeGraph

DATA = SHARED
NONE: Constraints = frozenset()


def linear(weights: object, **options: object) -> LinearMapping:
    m = np.asarray(weights, dtype=float)
    return LinearMapping(
        csr_array(m), torch.arange(len(m)), torch.ones(len(m)), ("?",) * len(m), **options
    )


def groups(*lists: list[int]) -> Constraints:
    return frozenset(frozenset(group) for group in lists)


def frames(forces: torch.Tensor, positions: torch.Tensor | None = None) -> Frames:
    types = torch.zeros(forces.shape[1], dtype=torch.long)
    return Frames(forces if positions is None else positions, None, forces, types)


def waters(n: int, generator: torch.Generator, n_frames: int) -> tuple[LinearMapping, Frames]:
    """Oxygens of molecules whose forces are soft as wholes and stiff inside."""
    mapping = linear(
        np.eye(3 * n)[::3],
        molecules=np.arange(3 * n) // 3,
        atom_names=("HOH O", "HOH H", "HOH H") * n,
    )
    soft, one, two = torch.randn(3, n_frames, n, 3, generator=generator, dtype=torch.float64)
    forces = torch.stack([soft + 9 * (one + two), 2 * soft - 9 * one, soft - 9 * two], 2)
    return mapping, frames(forces.reshape(n_frames, 3 * n, 3))


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_mean_force_of_gaussian_atoms(name):
    # the exact mean force is -kT (M K^-1 M^T)^-1 R / kT; four slopes, false alarm 3e-4 a test
    generator = torch.Generator().manual_seed(0)
    n, n_atoms, kT = 20_000, 6, 2.5
    a = torch.randn(n_atoms, n_atoms, generator=generator, dtype=torch.float64)
    k = a @ a.T + torch.eye(n_atoms)
    root = torch.linalg.cholesky(kT * k.inverse())
    x = torch.randn(n, 3, n_atoms, generator=generator, dtype=torch.float64) @ root.T
    m = torch.tensor([[0.5, 0.3, 0.2, 0, 0, 0], [0, 0, 0, 0.1, 0.1, 0.8]], dtype=torch.float64)
    mapping = linear(m)
    atoms = frames(-(x @ k).mT, x.mT)
    estimate = ESTIMATORS[name](mapping, [atoms[:2000], atoms[2000:5000]], NONE, 300.0)
    beads = Frames.join(project([atoms[:7000], atoms[7000:]], mapping, estimate))
    r, f = (value.mT.reshape(-1, 2) for value in (beads.positions, beads.forces))
    slope = torch.linalg.lstsq(r, f).solution
    exact = -(m @ k.inverse() @ m.T).inverse()
    noise = (f - r @ exact).std(0) * (r.T @ r).inverse().diagonal().sqrt()[:, None]
    assert ((slope - exact) / noise).abs().max() < 4


def rigid_dimer(n: int) -> tuple[Frames, torch.Tensor]:
    """A bead R on one end of a rigid rod, the other end R + d u, and a third atom R + g.

    V = (k_a |R|^2 + k_b |R + d u|^2 + k_c |g|^2) / 2, so that U(R) = (k_a + k_b) |R|^2 / 2
    - kT ln(sinh x / x), x = k_b d |R| / kT, and given R, u is von Mises-Fisher about -R.
    Return exact samples and -dU/dR (n, 3).
    """
    k_a, k_b, k_c, d, kT = 40.0, 25.0, 400.0, 0.5, 2.5
    generator = torch.Generator().manual_seed(3)
    r = 0.5 * torch.randn(n, 3, generator=generator, dtype=torch.float64)  # any law: U is given R
    length = r.norm(dim=1, keepdim=True)
    x = k_b * d * length / kT
    uniform = torch.rand(n, 1, generator=generator, dtype=torch.float64)
    cosine = 1 + torch.log(uniform + (1 - uniform) * torch.exp(-2 * x)) / x
    toward = -r / length
    across = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    across = across - (across * toward).sum(1, keepdim=True) * toward
    u = cosine * toward + (1 - cosine**2).sqrt() * across / across.norm(dim=1, keepdim=True)
    g = (kT / k_c) ** 0.5 * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    forces = torch.stack([-k_a * r + k_c * g, -k_b * (r + d * u), -k_c * g], 1)
    positions = torch.stack([r, r + d * u, r + g], 1)
    exact = -(k_a + k_b) * r - k_b * d * (1 / torch.tanh(x) - 1 / x) * toward
    return frames(forces, positions), exact


def test_mean_force_under_a_rigid_constraint():
    # one slope of the residual: false alarm 6e-5; of the bond's own end alone it fails by far
    atoms, exact = rigid_dimer(20_000)
    mapping = linear([[1, 0, 0]])

    def z(constraints: Constraints) -> float:
        estimate = least_noise_map(mapping, [atoms[:5000]], constraints)
        residual = estimate(atoms)[:, 0] - exact
        product = (residual * atoms.positions[:, 0]).sum(1)
        return float(product.mean() / product.std() * len(product) ** 0.5)

    assert abs(z(groups([0, 1]))) < 4
    assert abs(z(NONE)) > 50


def test_free_atoms_take_over_what_is_noise():
    # f_c = -k_c g, and the optimum cancels g: w_c = 1; w_b = w_a = 1 by the constraint
    atoms, _ = rigid_dimer(20_000)
    weights = least_noise_map(linear([[1, 0, 0]]), [atoms], groups([0, 1])).weights.toarray()
    assert weights[0, :2].tolist() == pytest.approx([1, 1], abs=1e-12)
    # standard error of a regression: noise 12 on the rest of the force, signal 31, 60 000 values
    assert weights[0, 2] == pytest.approx(1, abs=4 * 45 / 31 / 60_000**0.5)


def test_flexible_water_gets_the_exact_optimum():
    # with w_O = 1 the two stretches vanish for w_H = 1 and leave soft motions of variance 16;
    # w_H = 1 + x, 1 + y: (4 + 2 x + y)^2 + 81 (x^2 + y^2) is least at x = -8/86, y = -4/86
    mapping, sample = waters(50, torch.Generator().manual_seed(1), 400)
    built = least_noise_map(mapping, [sample], NONE)
    # standard error: residual rms 3.9 over stretches of 9 in 60 000 values
    error = 3.9 / 9 / 60_000**0.5
    assert built.weights.toarray()[0, :3] == pytest.approx([1, 78 / 86, 82 / 86], abs=4 * error)
    assert built.noise == pytest.approx((16 - 80 / 86) ** 0.5, rel=4 / (2 * 60_000) ** 0.5)
    assert built.mapped_noise == pytest.approx(163**0.5, rel=4 / (2 * 60_000) ** 0.5)
    assert "50 x HOH (atoms: 3, beads: 1): rms bead force 3.8" in built.describe()


def random_molecules(seed: int) -> tuple[LinearMapping, Frames, Constraints]:
    """Two molecules of one kind and one of another, two beads each, held atoms in both kinds."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(2, 5, generator=generator, dtype=torch.float64)
    rows[0, 3], rows[1, 0] = 0, 0
    m = torch.block_diag(rows, rows, torch.eye(4, dtype=torch.float64)[:2])
    m = (m / m.sum(1, keepdim=True)).numpy()
    molecules = np.repeat([0, 1, 2], [5, 5, 4])
    names = ("A x",) * 10 + ("B x",) * 4
    mix = torch.randn(14, 14, generator=generator, dtype=torch.float64)
    forces = torch.randn(40, 3, 14, generator=generator, dtype=torch.float64) @ mix
    mapping = linear(m, molecules=molecules, atom_names=names)
    return mapping, frames(forces.mT), groups([1, 2], [6, 7], [11, 12, 13])


def pooled_covariance(sample: Frames) -> NDArray[np.float64]:
    """The covariance that the blocks of `random_molecules` stand for, ridge included."""
    f = sample.forces.mT.reshape(-1, 14).numpy()
    c = f.T @ f / len(f)
    first = (c[:5, :5] + c[5:10, 5:10]) / 2
    first = first + np.trace(first) / (2 * len(f)) * np.eye(5)
    last = c[10:, 10:] + np.trace(c[10:, 10:]) / len(f) * np.eye(4)
    blocks = (torch.as_tensor(block) for block in (first, first, last))
    return torch.block_diag(*blocks).numpy()


def test_blocks_give_the_weights_of_one_dense_solve():
    mapping, sample, constraints = random_molecules(0)
    built = least_noise_map(mapping, [sample[:11], sample[11:]], constraints)
    assert sorted(len(block.atoms) for block in built.blocks) == [1, 2]
    c, m = pooled_covariance(sample), mapping.weights.toarray()
    equal = np.array(
        [np.eye(14)[i] - np.eye(14)[j] for i, j in [(1, 2), (6, 7), (11, 12), (12, 13)]]
    )
    conditions = np.vstack([m, equal])
    kkt = np.block([[c, conditions.T], [conditions, np.zeros((10, 10))]])
    right = np.vstack([np.zeros((14, 6)), np.eye(6), np.zeros((4, 6))])
    expected = np.linalg.solve(kkt, right)[:14].T
    np.testing.assert_allclose(built.weights.toarray(), expected, atol=1e-10)


def test_an_independent_optimizer_agrees():
    mapping, sample, constraints = random_molecules(5)
    weights = least_noise_map(mapping, [sample], constraints).weights.toarray()
    c, m = pooled_covariance(sample), mapping.weights.toarray()
    for bead in (0, 5):
        conditions = [{"type": "eq", "fun": lambda w, b=bead: m @ w - np.eye(6)[b]}]
        conditions += [
            {"type": "eq", "fun": lambda w, i=i, j=j: w[i] - w[j]}
            for i, j in [(1, 2), (6, 7), (11, 12), (12, 13)]
        ]
        found = minimize(
            lambda w: w @ c @ w,
            np.zeros(14),
            jac=lambda w: 2 * c @ w,
            method="SLSQP",
            constraints=conditions,
            options={"ftol": 1e-14, "maxiter": 1000},
        )
        np.testing.assert_allclose(weights[bead], found.x, atol=1e-5)


def test_projected_weights_are_the_pseudoinverse():
    mapping, sample, _ = random_molecules(2)
    m = mapping.weights.toarray()
    expected = np.linalg.solve(m @ m.T, m)
    built = projected_map(mapping, [sample], NONE)
    np.testing.assert_allclose(built.weights.toarray(), expected, atol=1e-12)
    assert built.noise == built.mapped_noise
    assert least_noise_map(mapping, [sample], NONE).noise < built.noise


def test_equal_molecules_that_are_held_differently_have_their_own_weights():
    mapping, sample = waters(2, torch.Generator().manual_seed(6), 50)
    built = least_noise_map(mapping, [sample], groups([0, 1]))
    assert len(built.blocks) == 2
    w = built.weights.toarray()
    assert w[0, 1] == pytest.approx(1, abs=1e-12)
    assert w[1, 4] < 0.99


def test_constraints_between_molecules_are_respected():
    mapping, sample = waters(2, torch.Generator().manual_seed(6), 50)
    w = least_noise_map(mapping, [sample], groups([1, 5])).weights.toarray()
    np.testing.assert_allclose(w[:, 1], w[:, 5], atol=1e-12)
    np.testing.assert_allclose(w[:, [0, 3]], np.eye(2), atol=1e-12)
    assert np.abs(w[:, 1]).min() > 0.01


def test_few_samples_draw_the_weights_towards_the_least():
    generator = torch.Generator().manual_seed(4)
    mapping = linear(np.eye(40)[:1])
    forces = torch.randn(500, 40, 3, generator=generator, dtype=torch.float64)
    fresh = forces[100:]
    # independent forces: all other weights are zero at the optimum, of rms 1
    built = least_noise_map(mapping, [frames(forces[:4])], NONE)
    assert built(frames(fresh)).square().mean().sqrt() < 1.5
    # tried on frames that they were not made from, weights of two frames do worse than none
    assert 1 < built.noise < 1.5


def test_rigid_water_gets_the_net_force_exactly():
    topology = pdb("water/tip3p216").topology
    constraints = from_water(MoleculeGraph(topology))
    forces = torch.randn(2, 648, 3)
    for name in ("oxygens", "com"):
        built = least_noise_map(build_mapping(name, topology), [frames(forces)], constraints)
        assert built.weights.nnz == 648
        # masses over their sum add up to 1 within rounding only
        assert np.abs(built.weights.data - 1).max() <= (0 if name == "oxygens" else 1e-15)
        net = forces.reshape(2, 216, 3, 3).sum(2)
        torch.testing.assert_close(built(frames(forces)), net)


def test_noise_of_tip3p_is_that_of_molecules():
    # 4 frames of 1944 forces each: rms within 4 standard errors of 1/sqrt(2 * 7776) = 0.8 %
    pdb("water/tip3p216")
    system = openmm.XmlSerializer.deserialize((DATA / "water/tip3p216.system.xml").read_text())
    topology = pdb("water/tip3p216").topology
    positions = mdtraj.load_dcd(str(DATA / "water/tip3p216.dcd"), top=topology, stride=500).xyz
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("CPU")
    )
    forces = []
    for x in positions:
        context.setPositions(x.astype(float))
        forces.append(context.getState(getForces=True).getForces(asNumpy=True)._value)
    sample = frames(torch.tensor(np.array(forces), dtype=torch.float32))
    built = least_noise_map(build_mapping("oxygens", topology), [sample], from_system(system))
    assert built.noise == pytest.approx(223, rel=0.032)
    assert built.mapped_noise == pytest.approx(804, rel=0.032)
    assert "216 x HOH" in built.describe()
    assert "weights 1 O + 1 H + 1 H" in built.describe()


@pytest.fixture(scope="module")
def four_site() -> tuple[mdtraj.Topology, openmm.Context, NDArray[np.float64]]:
    field = app.ForceField("tip4pew.xml")
    modeller = app.Modeller(app.Topology(), [])
    modeller.addSolvent(field, model="tip4pew", numAdded=8)
    system = field.createSystem(modeller.topology)
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    return mdtraj.Topology.from_openmm(modeller.topology), context, positions


@pytest.mark.parametrize("query", ["name O", "name M"])
def test_four_site_water_feels_what_moving_it_costs(four_site, query):
    topology, context, x = four_site
    context.setPositions(x)
    state = context.getState(getForces=True)
    forces = torch.tensor(state.getForces(asNumpy=True)._value)[None]
    built = least_noise_map(
        build_mapping(f"select:{query}", topology),
        [frames(forces)],
        from_system(context.getSystem()),
    )
    bead = built(frames(forces))[0]
    h = 1e-5
    for axis in range(3):
        energies = []
        for sign in (1, -1):
            moved = x.copy()
            moved[:4, axis] += sign * h
            context.setPositions(moved)
            energy = context.getState(getEnergy=True).getPotentialEnergy()._value
            energies.append(energy)
        # central differences: truncation h^2 U'''/6, rounding 1e-12 |U| / h
        numeric = (energies[1] - energies[0]) / (2 * h)
        assert bead[0, axis].item() == pytest.approx(numeric, rel=1e-5, abs=1e-2)


def test_a_bead_on_a_site_that_nothing_holds_is_refused(four_site):
    topology = four_site[0]
    mapping = build_mapping("select:name M", topology)
    for build in ESTIMATORS.values():
        with pytest.raises(InputError):
            build(mapping, [frames(torch.randn(2, 32, 3))], NONE, 300.0)


@pytest.mark.parametrize("name", ["oxygens", "com"])
def test_projected_refuses_a_part_of_a_rigid_molecule(name):
    topology = pdb("water/tip3p216").topology
    message = r"'projected' would weight atoms 0 \(HOH O\), 1 .*use 'linear' or 'least-noise'"
    with pytest.raises(InputError, match=message) as caught:
        projected_map(
            build_mapping(name, topology),
            [frames(torch.randn(1, 648, 3))],
            from_water(MoleculeGraph(topology)),
        )
    assert "constraint forces between them" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_projected_takes_whole_rigid_groups():
    mapping = linear([[1 / 3, 1 / 3, 1 / 3]])
    built = projected_map(mapping, [frames(torch.randn(1, 3, 3))], groups([0, 1, 2]))
    np.testing.assert_allclose(built.weights.toarray(), [[1, 1, 1]])


@pytest.mark.parametrize(
    ("weights", "constraints", "message"),
    [
        (np.eye(3), groups([0, 1, 2]), "constraints join atoms 0 .*put one bead on such a group"),
        ([[1, 0, 0], [0.5, 0.5, 0]], groups([0, 1]), "cannot move one by one"),
        ([[1, 0, 0], [1, 0, 0]], NONE, "beads 0, 1 are not independent"),
        ([[1, 0, 0]], groups([2, 3]), "constraints hold atom 3, but the mapping is of 3 atoms"),
    ],
)
def test_no_legal_weights_are_an_error_with_the_reason(weights, constraints, message):
    with pytest.raises(InputError, match=message) as caught:
        least_noise_map(linear(weights), [frames(torch.randn(5, 3, 3))], constraints)
    assert "\n" not in str(caught.value)


def test_useless_samples_are_refused():
    mapping = linear([[1, 0, 0]])
    forces = torch.randn(2, 3, 3)
    bare = Frames(forces, None, None, torch.zeros(3, dtype=torch.long))
    for sample, message in [
        ([], "has no frames"),
        ([bare], "no forces"),
        ([frames(torch.randn(2, 4, 3))], "sample has 4 atoms, but the mapping is of 3"),
        ([frames(forces * torch.nan)], "all zero or not finite"),
        ([frames(forces * 0)], "all zero or not finite"),
    ]:
        with pytest.raises(InputError, match=message):
            least_noise_map(mapping, sample, NONE)
    with pytest.raises(InputError, match="no forces"):
        list(project([bare], mapping, least_noise_map(mapping, [frames(forces)], NONE)))
    with pytest.raises(InputError, match="not linear in the atoms"):
        least_noise_map(lambda x: x, [frames(forces)], NONE)


def test_bead_frames_keep_box_weights_and_precision():
    mapping, sample = waters(4, torch.Generator().manual_seed(0), 6)
    box, weight = torch.eye(3).repeat(6, 1, 1), torch.arange(6.0)
    atoms = Frames(sample.positions.float(), box, sample.forces.float(), sample.types, weight)
    estimate = least_noise_map(mapping, [atoms], NONE)
    beads = Frames.join(project([atoms[:4], atoms[4:]], mapping, estimate))
    assert beads.positions.dtype == beads.forces.dtype == torch.float32
    assert torch.equal(beads.positions, atoms.positions[:, ::3])
    assert torch.equal(beads.types, mapping.types)
    assert torch.equal(beads.weights, weight)
    assert torch.equal(beads.box, box)


def test_flexible_ab_initio_water_finds_how_much_of_the_hydrogens_to_take():
    folder = DATA / "aimd-water" / "data_0" / "set.000"
    if not folder.is_dir():
        pytest.skip("aimd-water of the shared data is not here")
    x, f = (np.load(folder / f"{name}.npy").reshape(-1, 192, 3) for name in ("coord", "force"))
    length = np.load(folder / "box.npy")[0, 0]
    apart = x[0, 64:, None] - x[0, None, :64]
    apart -= length * np.round(apart / length)
    molecules = np.concatenate([np.arange(64), np.linalg.norm(apart, axis=-1).argmin(1)])
    assert (np.bincount(molecules) == 3).all()
    names = ("HOH O",) * 64 + ("HOH H",) * 128
    sample = frames(torch.tensor(f * 964.853))
    built = least_noise_map(
        linear(np.eye(192)[:64], molecules=molecules, atom_names=names), [sample], NONE
    )
    net = least_noise_map(
        linear(np.eye(192)[:64], molecules=molecules, atom_names=names),
        [sample],
        groups(*(np.flatnonzero(molecules == i).tolist() for i in range(64))),
    )
    (block,) = built.blocks
    assert built.noise < net.noise < built.mapped_noise
    assert block.weights[0, 0] == pytest.approx(1, abs=1e-12)
    # hydrogens are equivalent: standard error of a weight is about 1/sqrt(15 360 samples)
    assert block.weights[0, 1] == pytest.approx(block.weights[0, 2], abs=8 / 15_360**0.5)
    assert 0.5 < block.weights[0, 1] < 1.2


def test_alanine_maps_build_in_one_block_per_molecule():
    topology = pdb("alanine/alanine").topology
    forces = torch.randn(40, topology.n_atoms, 3)
    constraints = from_water(MoleculeGraph(topology))
    built = least_noise_map(build_mapping("solute", topology), [frames(forces)], constraints)
    assert [block.atoms.shape for block in built.blocks] == [(1, 22)]
    torch.testing.assert_close(built(frames(forces)), forces[:, :22])
    built = least_noise_map(build_mapping("heavy", topology), [frames(forces)], constraints)
    assert [block.weights.shape for block in built.blocks] == [(10, 22), (1, 3)]


def test_memory_grows_with_the_atoms_and_not_their_square():
    n = 20_000  # 60 000 atoms: a dense W would take 10 GB
    rows = np.arange(n)
    mapping = LinearMapping(
        csr_array((np.ones(n), (rows, 3 * rows)), shape=(n, 3 * n)),
        torch.zeros(n, dtype=torch.long),
        torch.ones(n),
        ("O",),
        np.arange(3 * n) // 3,
        ("HOH O", "HOH H", "HOH H") * n,
    )
    forces = torch.randn(2, 3 * n, 3)
    constraints = frozenset(frozenset(range(i, i + 3)) for i in range(0, 3 * n, 3))
    built = least_noise_map(mapping, [frames(forces)], constraints)
    net = forces.reshape(2, n, 3, 3).sum(2)
    torch.testing.assert_close(built(frames(forces)), net)


def pdb(stem: str) -> mdtraj.Trajectory:
    if not (DATA / f"{stem}.pdb").is_file():
        pytest.skip(f"{stem} of the shared data is not here")
    return mdtraj.load_pdb(DATA / f"{stem}.pdb")
