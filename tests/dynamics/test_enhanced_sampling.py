"""Biased samples of beads: the way from options to files that are reweighted.

Statistical tests accept 4 standard errors: false alarms once in 16 000 seeds.
"""

import json
import math
import shutil
from dataclasses import replace

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from openmm import app

from deepcg.atomistic.alanine.molecule import alanine as alanine_dipeptide
from deepcg.atomistic.alanine.molecule import alanine_system, torsions
from deepcg.atomistic.alanine.torsion_bias import read_table
from deepcg.dynamics.bias_files import write_bias, write_values
from deepcg.dynamics.config import DynamicsConfig
from deepcg.dynamics.enhanced_sampling import BiasConfig, enhance
from deepcg.dynamics.run import Replicas, run_dynamics
from deepcg.dynamics.time_step import fastest, time_step
from deepcg.mapping.collective_variables import build_variables, dihedral
from deepcg.potentials.model_file import Architecture, Model, save_model
from deepcg.potentials.priors.force_field import ForceField
from deepcg.potentials.priors.from_system import system_tables
from deepcg.runtime.config import read_toml
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import read_tensors, write_tensors
from deepcg.units import BOLTZMANN
from deepcg.workflow.compare import CompareConfig, compare
from deepcg.workflow.sample import SampleConfig, sample
from sampling import HarmonicBias, Metadynamics, ReplicaExchange

KT = BOLTZMANN * 300
F64 = torch.float64
TORSION = "dihedral:0,1,2,3"
BENT = torch.tensor([[0.1, 0.1, 0], [0, 0.1, 0], [0, 0, 0], [0.05, 0, 0.1]], dtype=F64)
SHORT = {"dt": 0.004, "ps": 0.4, "equilibration_ps": 0.08, "interval_ps": 0.04, "friction": 5.0}


@pytest.fixture(autouse=True)
def _one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


def butane():
    topology = mdtraj.Topology()
    residue = topology.add_residue("BUT", topology.add_chain())
    for i in range(4):
        topology.add_atom(f"C{i}", mdtraj.element.carbon, residue)
    return topology


def chain(x):
    """Bonds of 0.1 nm and right angles, both stiff, and a torsion with two valleys."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        steps = x.diff(dim=1)
        lengths = steps.norm(dim=-1)
        cosines = (steps[:, 1:] * steps[:, :-1]).sum(-1) / lengths[:, 1:] / lengths[:, :-1]
        phi = dihedral(x)
        energy = 2e4 * (lengths - 0.1).square().sum(1) + 100 * cosines.square().sum(1)
        energy = energy + 8 * torch.cos(2 * phi) + 2 * torch.sin(phi)
        (gradient,) = torch.autograd.grad(energy.sum(), x)
    return energy.detach(), -gradient


def frames(n):
    """Chains with torsions all around."""
    x = BENT.repeat(n, 1, 1)
    angle = torch.arange(n, dtype=F64) * 2 * math.pi / n
    x[:, 3] = torch.stack([0.1 * angle.cos(), 0 * angle, 0.1 * angle.sin()], -1)
    return x


def go(output, config, n=4, resume=False, force_field=chain, start=None, **options):
    dynamics = DynamicsConfig(**(SHORT | options))
    dynamics = replace(dynamics, equilibration_ps=dynamics.equilibration_ps + config.growing_ps)
    start = frames(24) if start is None else start
    enhanced = enhance(
        config, force_field, start, butane(), replicas=n, temperature=300.0, dt=dynamics.step
    )
    masses = torch.full((4,), 12.0)
    replicas = Replicas(
        enhanced.force_field, enhanced.start, masses, None, butane(), enhanced.method
    )
    summary = run_dynamics(replicas, dynamics, output, settings=config.settings, resume=resume)
    write_bias(output / "bias.npz", enhanced, 300.0)
    write_values(output / "values.npz", enhanced, sorted(output.glob("[0-9]*.dcd")))
    return summary, enhanced


def content(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".dcd", ".csv")}


class Interrupt:
    def __init__(self, n):
        self.n = n

    def __call__(self, x):
        self.n -= 1
        if self.n < 0:
            raise KeyboardInterrupt
        return chain(x)


FILLING = BiasConfig("metadynamics", TORSION, hill_every_ps=0.02, freeze_after_ps=0.2)
WINDOWS = BiasConfig("umbrella", TORSION, windows=(4,))
LADDER = BiasConfig(temperatures=(300.0, 360.0), swap_every_ps=0.02)


@pytest.mark.parametrize("config", [FILLING, WINDOWS, LADDER])
@pytest.mark.parametrize("calls", [33, 110])
def test_a_run_that_is_interrupted_ends_with_the_same_bytes(config, calls, tmp_path):
    """While a bias grows, and after."""
    go(tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "cut", config, force_field=Interrupt(calls))
    assert content(tmp_path / "cut") != content(tmp_path / "whole")
    go(tmp_path / "cut", config, resume=True)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    if config is not LADDER:
        for name in ("bias.npz", "values.npz"):
            one, other = (np.load(tmp_path / run / name) for run in ("cut", "whole"))
            assert all(np.array_equal(one[k], other[k], equal_nan=k == "periods") for k in one)


def test_a_checkpoint_with_old_names_of_settings_is_resumed(tmp_path):
    config = replace(WINDOWS, force_constant=(40.0,))
    go(tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "cut", config, force_field=Interrupt(110))
    file = tmp_path / "cut" / "checkpoint.pt"
    saved = read_tensors(file)
    for old, new in (("on", "cv"), ("spring", "force_constant")):
        saved["notes"][old] = saved["notes"].pop(new)
    write_tensors(file, saved)
    with pytest.raises(InputError, match=r"of a run with force_constant = \(40.0,\), not \(4.0,\)"):
        go(tmp_path / "cut", replace(config, force_constant=(4.0,)), resume=True)
    go(tmp_path / "cut", config, resume=True)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_another_bias_is_not_resumed(tmp_path):
    go(tmp_path, FILLING)
    with pytest.raises(InputError, match=r"of a run with bias = metadynamics, not none"):
        go(tmp_path, BiasConfig(), equilibration_ps=0.28, resume=True)
    with pytest.raises(InputError, match=r"with bias_factor = 6\.0, not 9\.0"):
        go(tmp_path, replace(FILLING, bias_factor=9.0), resume=True)


def test_energies_in_the_log_are_those_of_the_model(tmp_path):
    for config in (FILLING, WINDOWS):
        folder = tmp_path / config.bias
        go(folder, config)
        log = np.genfromtxt(folder / "log.csv", delimiter=",", names=True)
        x = mdtraj.load(str(folder / "001.dcd"), top=butane()).xyz
        energy, _ = chain(torch.tensor(x, dtype=F64))
        assert np.allclose(energy, log["energy_001"], atol=2e-3)
        assert np.load(folder / "values.npz")["bias"][1].max() > 0.01


def test_values_and_bias_are_those_of_the_frames(tmp_path):
    go(tmp_path, FILLING)
    saved, table = np.load(tmp_path / "values.npz"), np.load(tmp_path / "bias.npz")
    assert saved["values"].shape == (4, 10, 1)
    assert saved["names"].tolist() == ["dihedral 0-1-2-3"]
    assert saved["units"].tolist() == ["rad"]
    assert saved["periods"].tolist() == [2 * math.pi]
    x = mdtraj.load(str(tmp_path / "002.dcd"), top=butane())
    phi = mdtraj.compute_dihedrals(x, [[0, 1, 2, 3]])[:, 0]
    assert np.allclose(np.cos(phi - saved["values"][2, :, 0]), 1, atol=1e-8)
    axis = table["dihedral"]
    assert axis[0] == -math.pi
    assert axis[-1] == math.pi
    assert table["bias"][0] == pytest.approx(table["bias"][-1])
    assert np.allclose(
        np.interp(saved["values"], axis, table["bias"])[..., 0], saved["bias"], atol=0.1
    )
    assert float(table["temperature"]) == 300.0


def test_windows_are_filled_from_the_nearest_frames(tmp_path):
    _, enhanced = go(tmp_path, WINDOWS, n=8)
    saved = np.load(tmp_path / "bias.npz")
    assert np.allclose(saved["centres"][:, 0], np.repeat([-1, -0.5, 0, 0.5], 2) * math.pi)
    assert saved["springs"] == pytest.approx(4 * KT / (math.pi / 2) ** 2)
    phi = build_variables(TORSION, butane())(enhanced.start)[:, 0].numpy()
    assert np.cos(phi - saved["centres"][:, 0]) == pytest.approx(1, abs=0.01)


def test_a_distance_is_sampled_where_frames_are():
    x = frames(24)
    variables = build_variables("distance:0,3", butane())
    low, high = (float(f(variables(x))) for f in (torch.min, torch.max))
    config = BiasConfig("metadynamics", "distance:0,3")
    made = enhance(config, chain, x, butane(), replicas=4, temperature=300.0, dt=0.004)
    assert isinstance(made.method, Metadynamics)
    (axis,) = made.method.axes
    assert (axis.low, axis.high) == pytest.approx((low - (high - low) / 4, high + (high - low) / 4))
    config = BiasConfig("umbrella", "distance:0,3", windows=(5,))
    made = enhance(config, chain, x, butane(), replicas=5, temperature=300.0, dt=0.004)
    assert isinstance(made.force_field.bias, HarmonicBias)
    assert made.force_field.bias.centers[[0, -1], 0].tolist() == pytest.approx(
        [axis.low, axis.high]
    )


def test_two_dihedrals_are_axes_by_name(tmp_path):
    """What 'deepcg simulate' reads as a bias of its own."""
    config, x = BiasConfig("metadynamics"), alanine()
    flat = lambda x: (x.new_zeros(len(x)), torch.zeros_like(x))
    made = enhance(
        config, flat, torch.tensor(x.xyz), x.topology, replicas=1, temperature=300.0, dt=0.004
    )
    phi, psi = (float(v[1][0, 0]) for v in (mdtraj.compute_phi(x), mdtraj.compute_psi(x)))
    made.method.add(torch.tensor([[phi, psi]]))
    write_bias(tmp_path / "bias.npz", made, 300.0)
    saved = np.load(tmp_path / "bias.npz")
    i, j = np.unravel_index(saved["bias"].argmax(), saved["bias"].shape)
    assert saved["phi"][i] == pytest.approx(phi, abs=0.1)
    assert saved["psi"][j] == pytest.approx(psi, abs=0.1)
    assert float(saved["bias"].max()) == pytest.approx(10.0, rel=0.05)
    assert read_table(tmp_path / "bias.npz").shape[0] == len(saved["phi"])


def test_exchange_writes_one_temperature_per_trajectory(tmp_path):
    summary, enhanced = go(tmp_path, LADDER, n=8, ps=1.2)
    assert isinstance(enhanced.method, ReplicaExchange)
    cold = [f"{i:03d}.dcd" for i in range(4)]
    assert sorted(p.name for p in tmp_path.glob("*.dcd")) == cold + [f"hot-360K-{c}" for c in cold]
    assert len(summary.acceptance) == 1
    assert 0.02 < summary.acceptance[0] < 1
    assert json.loads((tmp_path / "summary.json").read_text())["acceptance"] == [
        summary.acceptance[0]
    ]
    log = np.genfromtxt(tmp_path / "log.csv", delimiter=",", names=True)
    cold_mean = np.mean([log[f"energy_00{i}"] for i in range(4)], axis=0)
    assert np.allclose(cold_mean, log["energy_kJ_mol"], atol=1e-5)
    assert "energy_hot360K003" in log.dtype.names  # numpy drops the hyphens


def test_fixed_bias_and_weights_give_the_populations_of_the_model(tmp_path):
    """Starts in one valley; the share of the other against numbers, by independent replicas."""
    config = BiasConfig("metadynamics", TORSION, hill_every_ps=0.05, freeze_after_ps=3.0)
    moves = {"dt": 0.01, "interval_ps": 0.05, "equilibration_ps": 0.5, "ps": 4.0}
    go(tmp_path, config, n=48, start=frames(24)[5:7], **moves)
    saved = np.load(tmp_path / "values.npz")
    phi, weights = saved["values"][..., 0], np.exp(saved["bias"] / KT)
    at = np.linspace(-math.pi, math.pi, 20_001)[1:]
    density = np.exp(-(8 * np.cos(2 * at) + 2 * np.sin(at)) / KT)
    exact = density[at > 0].sum() / density.sum()
    parts = (weights * (phi > 0)).sum(1), weights.sum(1)
    without = [part.sum() - part for part in parts]
    share = parts[0].sum() / parts[1].sum()
    ratios = without[0] / without[1]
    error = math.sqrt(47**2 / 48 * ratios.var(ddof=1))
    assert error < 0.04
    assert abs(share - exact) < 4 * error


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bias": "metadynamic"}, "unknown bias 'metadynamic'; did you mean 'metadynamics'"),
        ({"bias_factor": 1.0}, r"bias_factor is 1\.0: give a number above 1"),
        ({"hill_height": -1.0}, r"hill_height is -1\.0: give a positive"),
        ({"windows": (12, 0)}, r"windows is \(12, 0\): give a positive"),
        ({"bias": "umbrella", "temperatures": (300.0, 310.0)}, "exchange goes without a bias"),
    ],
)
def test_wrong_options_are_told_in_a_line(wrong, message):
    with pytest.raises(InputError, match=message):
        BiasConfig(**wrong)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(WINDOWS, windows=(12,)), "12 windows need a multiple of 12 replicas, not 4"),
        (
            replace(WINDOWS, force_constant=(1.0, 2.0)),
            "force_constant has 2 numbers: give one, or 1",
        ),
        (replace(FILLING, cv="dihedrals"), "neither phi nor psi"),
        (replace(FILLING, hill_width=(0.1, 0.2)), "hill_width has 2 numbers"),
        (replace(FILLING, cv="distance:0,1"), "all frames have distance 0-1 = 0.1: nothing"),
        (BiasConfig(temperatures=(300.0,)), "give two or more, ascending"),
        (BiasConfig(temperatures=(310.0, 330.0)), "the first of the temperatures is 310 K"),
        (BiasConfig(temperatures=(300.0, 330.0, 360.0)), r"4 replicas cannot be shared out .* 3"),
    ],
)
def test_what_does_not_fit_the_beads_is_told_in_a_line(config, message):
    with pytest.raises(InputError, match=message):
        enhance(config, chain, frames(6), butane(), replicas=4, temperature=300.0, dt=0.004)


def test_a_bias_across_molecules_of_a_box_is_refused():
    topology = butane()  # no bonds: four molecules
    options = {"replicas": 2, "temperature": 300.0, "dt": 0.004}
    enhance(FILLING, chain, frames(6), topology, **options)
    with pytest.raises(InputError, match="dihedral 0-1-2-3 is of more than one molecule"):
        enhance(FILLING, chain, frames(6), topology, box=torch.eye(3), **options)


# ---------------------------------------------------------------- time steps


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_fastest_motion_of_a_harmonic_molecule_is_found(dtype):
    """Two beads of 2 and 6 Da on a spring, and a third one that is loose."""
    k, masses = 3e5, torch.tensor([2.0, 6.0, 20.0], dtype=dtype)

    def spring(x):
        d = x[:, 0] - x[:, 1]
        r = d.norm(dim=-1, keepdim=True)
        pull = k * (r - 0.1) * d / r
        away = x[:, 2] - x[:, 1]
        return k / 2 * (r[:, 0] - 0.1) ** 2, torch.stack([-pull, pull + away, -away], 1)

    x = torch.tensor([[[0.1, 0, 0], [0, 0, 0], [0, 1, 0]]], dtype=dtype).repeat(5, 1, 1)
    exact = math.sqrt(k / 1.5)
    assert fastest(spring, x, masses) == pytest.approx(exact, rel=2e-3)


def test_a_time_step_is_a_whole_fraction_of_an_interval_and_safe():
    """Overdamped: dt omega^2 / friction stays below 1.2^2 / 2, where 2 is the limit."""
    assert time_step(400.0, 0.1) == pytest.approx(0.1 / 34)
    dt = time_step(400.0, 0.1, overdamped_at=50.0)
    assert 0.69 < dt * 400.0**2 / 50 < 0.72
    assert 0.1 / dt == pytest.approx(round(0.1 / dt))


# ---------------------------------------------------------------- the command


def alanine():
    """ACE-ALA-NME without hydrogens, drawn by hand: names and bonds are what matters."""
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    atoms = []
    for name, members in [("ACE", "CH3 C O"), ("ALA", "N CA CB C O"), ("NME", "N C")]:
        residue = topology.add_residue(name, chain)
        for atom in members.split():
            atoms.append(topology.add_atom(atom, mdtraj.element.get_by_symbol(atom[0]), residue))
    for i, j in [(0, 1), (1, 2), (1, 3), (3, 4), (4, 5), (4, 6), (6, 7), (6, 8), (8, 9)]:
        topology.add_bond(atoms[i], atoms[j])
    zigzag = [[0, 0, 0], [1.2, 0.8, 0], [1.2, 2, 0], [2.4, 0.1, 0.2], [3.7, 0.7, 0]]
    zigzag += [[3.7, 1.6, 1.2], [4.9, -0.2, 0.4], [4.8, -1.4, 0.3], [6.1, 0.4, 0.1], [7.4, -0.3, 0]]
    return mdtraj.Trajectory(np.array([zigzag], np.float32) * 0.12, topology)


@pytest.fixture
def run(tmp_path):
    """A run folder of an untrained model of ten beads in the open: nearly free particles."""
    x = alanine()
    architecture = Architecture(
        "deeppot-se", {"embedding": (4,), "axis": 2, "fitting": (4,)}, 0.4, 1, True
    )
    potential = architecture.build(torch.zeros(10, dtype=torch.long), 300.0)
    masses = torch.full((10,), 14.0)
    save_model(
        tmp_path / "model.pt", Model(architecture, potential, ("X",), masses, "heavy", 300.0)
    )
    x.save_pdb(str(tmp_path / "beads.pdb"))
    np.savez(tmp_path / "start.npz", positions=x.xyz.repeat(3, axis=0))
    return tmp_path


MOVES = DynamicsConfig(ps=0.4, equilibration_ps=0.1, interval_ps=0.02)


def test_the_command_leaves_a_bias_and_values(run):
    told = []
    enhanced = BiasConfig("metadynamics", hill_every_ps=0.02, freeze_after_ps=0.2)
    config = SampleConfig(run, replicas=4, dynamics=MOVES, enhanced=enhanced, threads=1)
    sample(config, tell=told.append)
    assert told[0].startswith("time step ")
    saved = np.load(run / "samples" / "values.npz")
    assert saved["values"].shape == (4, 20, 2)
    assert (saved["bias"] > 0).all()
    assert {"phi", "psi", "bias", "temperature"} <= set(np.load(run / "samples" / "bias.npz"))
    recorded = json.loads((run / "samples" / "sample.json").read_text())["settings"]
    assert recorded["bias"] == "metadynamics"
    assert recorded["dt"] == pytest.approx(
        MOVES.interval_ps / round(MOVES.interval_ps / recorded["dt"])
    )


OLD_CONFIG = """\
run = "{run}"
replicas = 2
dt = 0.002
ps = 0.8
equilibration_ps = 0.1
interval_ps = 0.02
bias = "umbrella"
on = "dihedral:1,3,4,6"
windows = [
    2,
]
spring = [
    50.0,
]
drop_bad = false
threads = 1
resume = true
"""
"""As settings were written when they had other names."""


def test_a_config_and_a_checkpoint_with_old_names_go_on(run, tmp_path):
    enhanced = BiasConfig("umbrella", "dihedral:1,3,4,6", windows=(2,), force_constant=(50.0,))
    moves = replace(MOVES, dt=0.002)
    config = SampleConfig(run, replicas=2, dynamics=moves, enhanced=enhanced, threads=1)
    sample(replace(config, dynamics=replace(moves, ps=0.8)))
    expected = content(run / "samples")
    shutil.rmtree(run / "samples")
    sample(config)
    assert content(run / "samples") != expected
    file = run / "samples" / "checkpoint.pt"
    saved = read_tensors(file)
    for old, new in (("on", "cv"), ("spring", "force_constant")):
        saved["notes"][old] = saved["notes"].pop(new)
    write_tensors(file, saved)
    old = tmp_path / "config.toml"
    old.write_text(OLD_CONFIG.format(run=run))
    sample(read_toml(old, SampleConfig))
    assert content(run / "samples") == expected


def test_a_time_step_and_masses_that_are_given_are_used(run):
    moves = replace(MOVES, dt=0.002)
    told = []
    sample(
        SampleConfig(run, replicas=2, dynamics=moves, masses="model", threads=1), tell=told.append
    )
    assert len(told) == 1
    with pytest.raises(InputError, match="unknown masses 'mean'"):
        sample(SampleConfig(run, replicas=2, dynamics=moves, masses="mean", threads=1))


def test_biased_samples_are_not_compared_as_if_they_were_not(run):
    enhanced = BiasConfig("umbrella", windows=(2,))
    sample(SampleConfig(run, replicas=4, dynamics=MOVES, enhanced=enhanced, threads=1))
    (run / "config.toml").write_text('trajectory = "x.dcd"\noutput = "y"\n')
    with pytest.raises(InputError, match=r"are biased: .*deepcg fes"):
        compare(CompareConfig(run))


# ---------------------------------------------------------------- against OpenMM


def difference(right, whole):
    """Return F(phi > 0) - F(phi < 0), kJ/mol, of weights in n blocks, and its jackknife error."""
    f = lambda right, whole: -KT * np.log(right / (whole - right))
    n, without = len(right), f(right.sum() - right, whole.sum() - whole)
    return f(right.sum(), whole.sum()), math.sqrt((n - 1) ** 2 / n * without.var(ddof=1))


def by_openmm(system, positions, seed):
    """Return phi and weights (8000,) of OpenMM's metadynamics, one walker, under its last bias."""
    axes = []
    for atoms in ((4, 6, 8, 14), (6, 8, 14, 16)):
        angle = openmm.CustomTorsionForce("theta")
        angle.addTorsion(*atoms, [])
        axes.append(app.BiasVariable(angle, -math.pi, math.pi, 0.35, True, gridWidth=61))
    integrator = openmm.LangevinMiddleIntegrator(300, 2.0, 0.0025)
    integrator.setRandomNumberSeed(seed)
    method = app.Metadynamics(system, axes, 300.0, 10.0, 0.8, 100)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(alanine_dipeptide(0, 0)[0], system, integrator, platform)
    simulation.context.setPositions(positions)
    simulation.minimizeEnergy(maxIterations=100)
    simulation.context.setVelocitiesToTemperature(300.0, seed)
    method.step(simulation, 240_000)
    added = {system.getForce(system.getNumForces() - 1).getForceGroup()}
    rows = []
    for _ in range(8000):
        simulation.step(100)
        state = simulation.context.getState(positions=True, energy=True, groups=added)
        phi = torsions(state.getPositions(asNumpy=True)._value)[0]
        rows.append((phi, state.getPotentialEnergy()._value))
    phi, bias = np.array(rows).T
    return phi, np.exp(bias / KT)


@pytest.mark.slow
def test_alanine_in_vacuum_has_the_populations_of_openmms_metadynamics(tmp_path):
    """The same System, integrated there and here; masses are equal, for a longer step.

    The free energy of C7ax against C7eq, each known to about 0.5 kJ/mol.
    """
    topology, x = alanine_dipeptide(-1.4, 1.2)
    options = {"constraints": "none", "hydrogen_mass": 1.008, "cutoff": None}
    make = lambda: alanine_system("ff99sb", "vacuum", topology, **options)
    field = ForceField(system_tables(make(), range(22))[0])
    start = torch.tensor(x, dtype=F64)[None]
    beads = mdtraj.Topology.from_openmm(topology)
    masses = torch.full((22,), 6.55, dtype=F64)
    dt = time_step(fastest(field.forces, start, masses), 0.1)
    assert 0.0024 < dt < 0.003
    config = BiasConfig("metadynamics", bias_factor=10.0, freeze_after_ps=40.0, hill_every_ps=0.25)
    made = enhance(config, field.forces, start, beads, replicas=32, temperature=300.0, dt=dt)
    run_dynamics(
        Replicas(made.force_field, made.start, masses, None, beads, made.method),
        DynamicsConfig(dt=dt, ps=60.0, equilibration_ps=45.0, friction=2.0),
        tmp_path,
        settings=config.settings,
    )
    write_values(tmp_path / "values.npz", made, sorted(tmp_path.glob("[0-9]*.dcd")))
    saved = np.load(tmp_path / "values.npz")
    weights = np.exp((saved["bias"] - saved["bias"].max()) / KT)
    right, whole = (weights * (saved["values"][..., 0] > 0)).sum(1), weights.sum(1)
    ours, error = difference(right, whole)
    blocks = []
    for seed in (1, 2):
        system = make()
        for i in range(22):
            system.setParticleMass(i, 6.55)
        phi, w = by_openmm(system, x, seed)
        blocks += [(w * (phi > 0)).reshape(8, -1).sum(1), w.reshape(8, -1).sum(1)]
    # the zero of a bias is that of its run: each run weighs as much as the other
    theirs, spread = np.transpose([difference(*run) for run in (blocks[:2], blocks[2:])])
    error = math.hypot(error, math.hypot(*spread) / 2)
    assert error < 1.0
    assert abs(ours - np.mean(theirs)) < 4 * error
