"""Damaged files, files that lie, and files that would run code: one line each, no wrong numbers.

A file of frames that is read in spite of damage must have all frames, bit for bit, but those that
the damage touches; most formats have no checksums that would tell of these.
"""

from __future__ import annotations

import io
import json
import logging
import math
import pickle
import shutil
import struct
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ase.io
import mdtraj
import numpy as np
import openmm
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepcg.atomistic.equilibration import read_state
from deepcg.atomistic.labels import Labels
from deepcg.atomistic.system import read_system
from deepcg.cli.main import main
from deepcg.forces.mean_force_labels import load_labels
from deepcg.potentials.model_file import Architecture, Model, load_model, save_model
from deepcg.runtime.config import read_toml, write_toml
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import read_arrays, read_json, read_tensors, write_tensors
from deepcg.trajectory.formats import open_trajectory_file
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.reader import iter_frames, open_trajectory
from deepcg.trajectory.sanity_checks import warn_of_forces
from deepcg.trajectory.topology import MoleculeGraph
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.fit.config import FitConfig, absolute
from deepcg.workflow.fit.run_folder import fit_config_of
from deepcg.workflow.info import describe
from deepcg.workflow.label.command import LabelConfig, label_trajectory

pytestmark = [
    # scipy reads NetCDF, slowly, where netCDF4 is not installed
    pytest.mark.filterwarnings("ignore:.*netCDF4:UserWarning"),
    # MDTraj leaves files open that it cannot read
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

N_FRAMES, N_WATERS = 6, 27
N = 3 * N_WATERS
EDGE = 1.2
NUMBERS = np.tile([8, 1, 1], N_WATERS)
SECONDS = 10.0


@dataclass(frozen=True)
class Damage:
    """What happens to a file: ``place`` runs from 0, its begin, to 1, its end."""

    kind: str
    place: float
    noise: bytes

    def __call__(self, data: bytes) -> bytes:
        at = min(int(self.place * len(data)), len(data) - 1)
        if self.kind == "cut":
            return data[:at]
        if self.kind == "flip":
            flipped = data[at] ^ (1 << self.noise[0] % 8)
            return data[:at] + bytes([flipped]) + data[at + 1 :]
        if self.kind == "overwrite":
            return data[:at] + self.noise + data[at + len(self.noise) :]
        if self.kind == "insert":
            return data[:at] + self.noise + data[at:]
        return data[:at] + data[at + len(self.noise) :]  # "lose"


KINDS = ("cut", "flip", "overwrite", "insert", "lose")
DAMAGES = st.builds(
    Damage,
    st.sampled_from(KINDS),
    # the header, where a byte means most, as often as all the rest
    st.one_of(st.floats(0, 1), st.floats(0, 0.05)),
    st.binary(min_size=1, max_size=32),
)


def random_damages(number: int, seed: int) -> Iterator[Damage]:
    rng = np.random.default_rng(seed)
    for k in range(number):
        place = rng.uniform() * (0.05 if rng.uniform() < 0.4 else 1.0)
        yield Damage(KINDS[k % len(KINDS)], place, rng.bytes(rng.integers(1, 33)))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good file of each kind."""
    folder = tmp_path_factory.mktemp("good")
    rng = np.random.default_rng(5)
    shape = np.array([[0, 0, 0], [0.0957, 0, 0], [-0.024, 0.0927, 0]])
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3) * EDGE / 3
    shake = rng.normal(0, 0.01, (N_FRAMES, N_WATERS, 1, 3))
    x = (grid[:, None] + shape + shake).reshape(N_FRAMES, N, 3).astype(np.float32)
    forces = rng.normal(0, 400, x.shape).astype(np.float32)
    box = np.eye(3, dtype=np.float32) * EDGE
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(N_WATERS):
        residue = topology.add_residue("HOH", chain)
        o, *hydrogens = (
            topology.add_atom(name, mdtraj.element.Element.getBySymbol(name[0]), residue)
            for name in ("O", "H1", "H2")
        )
        for hydrogen in hydrogens:
            topology.add_bond(o, hydrogen)
    frames = mdtraj.Trajectory(x, topology, time=np.arange(N_FRAMES) * 0.5)
    frames.unitcell_vectors = np.tile(box, (N_FRAMES, 1, 1))
    for ending in ("dcd", "xtc", "trr", "nc", "gro"):
        frames.save(str(folder / f"x.{ending}"))
    frames[0].save_pdb(str(folder / "x.pdb"))
    np.save(folder / "x.forces.npy", forces)
    arrays = {"positions": x, "forces": forces, "box": box, "z": NUMBERS}
    np.savez(folder / "plain.npz", **arrays)
    np.savez_compressed(folder / "packed.npz", **arrays)
    atoms = []
    for r, f in zip(x, forces, strict=True):
        atoms.append(Atoms(NUMBERS, r * 10, cell=box * 10, pbc=True))
        atoms[-1].calc = SinglePointCalculator(atoms[-1], forces=f / 1000)
    ase.io.write(folder / "x.xyz", atoms, format="extxyz")
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(np.eye(3) * EDGE))
    for mass in [15.999, 1.008, 1.008] * N_WATERS:
        system.addParticle(mass)
    for o in range(0, N, 3):
        system.addConstraint(o, o + 1, 0.0957)
    (folder / "x.system.xml").write_text(openmm.XmlSerializer.serialize(system))
    save_model(folder / "model.pt", some_model())
    write_toml(folder / "config.toml", FitConfig(Path("x.dcd"), network="pair-spline"))
    (folder / "run.json").write_text(json.dumps({"config": {"a": 1.5}, "seed": [1, 2]}))
    frames_of(folder / "x.xtc")  # which compiles loops, once
    return folder


def some_model() -> Model:
    torch.manual_seed(0)
    architecture = Architecture("pair-spline", {}, 0.45, 1, repulsion=False)
    potential = architecture.build(torch.zeros(5, dtype=torch.long), 300.0)
    return Model(architecture, potential, ("O",), torch.full((5,), 18.0), "oxygens", 300.0)


def frames_of(path: Path) -> list[Frames]:
    """Return all frames; a trajectory has its topology, and forces if it lacks them, beside it."""
    source = open_trajectory(path)
    return list(iter_frames(source, chunk=2, with_forces=source.forces is not None))


def of_trajectory(good: Path, bad: Path) -> None:
    """Read it; nothing but the frames that are touched may differ."""
    right = Frames.join(frames_of(good))
    for part in ("pdb", "forces.npy", "system.xml"):
        beside = good.parent / f"x.{part}"
        target = bad.with_name(f"{bad.stem}.{part}")
        if target != bad and not target.exists():
            shutil.copy(beside, target)
    found = Frames.join(frames_of(bad))
    assert found.positions.isfinite().all()
    assert len(found) <= len(right)
    differ = 0
    for k in range(len(found)):
        parts = [(found.positions, right.positions), (found.box, right.box)]
        parts += [(found.forces, right.forces)]
        differ += any(not torch.equal(a[k], b[k]) for a, b in parts if a is not None)
    assert differ <= 2, "frames changed that were not damaged"


def of_forces(good: Path, bad: Path) -> None:
    target = bad.with_name("x.forces.npy")
    bad.rename(target)
    for ending in (".dcd", ".pdb", ".system.xml"):
        shutil.copy(good.with_name(f"x{ending}"), bad.parent)
    right, found = frames_of(good.with_name("x.dcd")), frames_of(target.with_name("x.dcd"))
    a, b = Frames.join(right).forces, Frames.join(found).forces
    assert a is not None
    assert b is not None
    assert int((a != b).flatten(1).any(1).sum()) <= 2


def of_system(good: Path, bad: Path) -> None:
    system = read_system(bad)
    for ending in (".dcd", ".pdb", ".forces.npy"):
        shutil.copy(good.with_name(f"x{ending}"), bad.parent / f"x{ending}")
    frames_of_system = open_trajectory(bad.parent / "x.dcd", system=bad)
    assert system.getNumParticles() == frames_of_system.n_atoms


def of_topology(good: Path, bad: Path) -> None:
    for ending in (".dcd", ".forces.npy"):
        shutil.copy(good.with_name(f"x{ending}"), bad.parent / f"x{ending}")
    source = open_trajectory(bad.parent / "x.dcd", topology=bad)
    list(iter_frames(source, chunk=3))


def of_model(good: Path, bad: Path) -> None:
    right, found = load_model(good), load_model(bad)
    assert right.architecture == found.architecture
    for name, value in right.potential.state_dict().items():
        assert torch.equal(value, found.potential.state_dict()[name])


READERS: dict[str, Callable[[Path, Path], object]] = {
    "x.dcd": of_trajectory,
    "x.xtc": of_trajectory,
    "x.trr": of_trajectory,
    "x.nc": of_trajectory,
    "plain.npz": of_trajectory,
    "packed.npz": of_trajectory,
    "x.xyz": of_trajectory,
    "x.forces.npy": of_forces,
    "x.system.xml": of_system,
    "x.pdb": of_topology,
    "x.gro": of_topology,
    "model.pt": of_model,
    "config.toml": lambda good, bad: read_toml(bad, FitConfig),
    "run.json": lambda good, bad: read_json(bad),
}


def answer(good: Path, damage: Damage, folder: Path) -> str:
    """Return ``refused``, ``iter_frames``, or ``unchanged``; fail at all other answers."""
    data = good.read_bytes()
    spoilt = damage(data)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    bad = folder / good.name
    bad.write_bytes(spoilt)
    began = time.monotonic()
    verdict = "unchanged" if spoilt == data else "read"
    try:
        READERS[good.name](good, bad)
        if bad.exists():
            describe(bad)
    except InputError as error:
        verdict = "refused" if "\n" not in str(error) else "told in several lines"
    assert verdict in ("refused", "read", "unchanged")
    assert time.monotonic() - began < SECONDS
    return verdict


@pytest.mark.parametrize("name", READERS)
def test_damage_is_refused_or_stays_where_it_is(name: str, files: Path, tmp_path: Path) -> None:
    @settings(
        max_examples=12,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(DAMAGES)
    def try_it(damage: Damage) -> None:
        answer(files / name, damage, tmp_path / "bad")

    try_it()


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_thousand_damages(
    name: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verdicts = Counter(
        answer(files / name, damage, tmp_path / "bad") for damage in random_damages(150, seed=11)
    )
    with capsys.disabled():
        print(f"\n{name}: {dict(verdicts)}")
    assert verdicts["refused"] > 20


@pytest.mark.parametrize("name", ["x.dcd", "x.xtc", "x.trr", "x.nc", "plain.npz", "packed.npz"])
def test_files_cut_at_any_place_are_refused(name: str, files: Path, tmp_path: Path) -> None:
    """At a border of frames DCD, XTC and TRR are shorter files, and whole."""
    for place in np.linspace(0, 0.999, 20):
        verdict = answer(files / name, Damage("cut", float(place), b" "), tmp_path / "bad")
        assert verdict == "refused", place


def test_a_dcd_of_the_other_byte_order_is_read(files: Path, tmp_path: Path) -> None:
    header, frame = 276, 56 + 3 * (4 * N + 8)
    data = (files / "x.dcd").read_bytes()
    words = np.frombuffer(data, "<u4").byteswap()
    swapped = bytearray(words.tobytes())
    swapped[4:8] = data[4:8]
    swapped[100:260] = data[100:260]
    for k in range(N_FRAMES):
        at = header + k * frame + 4
        cell = np.frombuffer(data[at : at + 48], "<f8").byteswap()
        swapped[at : at + 48] = cell.tobytes()
    (tmp_path / "x.dcd").write_bytes(swapped)
    shutil.copy(files / "x.pdb", tmp_path)
    right, found = frames_of(files / "x.dcd"), frames_of(tmp_path / "x.dcd")
    assert torch.equal(Frames.join(right).positions, Frames.join(found).positions)


@pytest.fixture
def arrays(files: Path) -> dict[str, np.ndarray]:
    return read_arrays(files / "plain.npz")


def saved(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(folder / "x.npz", **arrays)
    return folder / "x.npz"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: a["box"].__setitem__((0, 0), -EDGE), "volume -"),
        (lambda a: a["box"].__setitem__((0, 0), 0), "volume 0"),
        (lambda a: a["box"].__setitem__((0, 0), np.nan), "volume nan"),
        (lambda a: a["box"].__setitem__((0, 0), np.inf), "volume"),
        (lambda a: a.update(box=a["box"] / 10), r"atoms per nm\^3 .*lengths are not in the file's"),
        (lambda a: a["positions"].__setitem__((2, 4, 1), np.nan), "atom 4 in frame 2"),
        (lambda a: a["positions"].__setitem__((2, 4, 1), np.inf), "atom 4 in frame 2"),
        (lambda a: a["positions"].__setitem__((2, 4, 1), 1e30), "atom 4 in frame 2 .* is damaged"),
        (lambda a: a["positions"].__setitem__((2, 4, 1), 0.9), "bond .* frame 2, too long or too"),
        (lambda a: a["forces"].__setitem__((5, 0, 0), np.nan), "forces of atom 0 in frame 5"),
        (lambda a: a["positions"].__setitem__(3, a["positions"][2]), "frame 3 repeats the one bef"),
        (lambda a: a["positions"].__setitem__(5, a["positions"][0]), "frame 5 repeats the first"),
        (
            lambda a: a.update(positions=a["positions"] * 10, box=a["box"] * 10),
            r"in A \(give --uni",
        ),
        (lambda a: a.update(positions=a["positions"] / 10), r"bond .* is 0\.00957 nm long"),
        (lambda a: a.update(z=np.roll(a["z"], 1)), "are bonded to nothing"),
        (lambda a: a.update(forces=a["forces"].astype(complex)), "of type complex"),
        (lambda a: a.update(forces=a["forces"][:, :-1]), "positions are .* forces"),
        (lambda a: a.update(positions=a["positions"].astype(object)), "no .npz file that can be"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    spoil: Callable[[dict[str, np.ndarray]], object],
    message: str,
    arrays: dict[str, np.ndarray],
    tmp_path: Path,
) -> None:
    spoil(arrays)
    with pytest.raises(InputError, match=message):
        frames_of(saved(tmp_path, arrays))


def test_sites_outside_the_box_are_fine(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    right = Frames.join(frames_of(saved(tmp_path, arrays))).positions
    arrays["positions"] = arrays["positions"] + np.float32(4 * EDGE)
    found = Frames.join(frames_of(saved(tmp_path, arrays))).positions
    assert torch.allclose(found - 4 * EDGE, right, atol=1e-6)


def test_atoms_in_another_order_than_the_topology_are_found(files: Path, tmp_path: Path) -> None:
    frames = mdtraj.load(str(files / "x.dcd"), top=str(files / "x.pdb"))
    oxygens_last = np.concatenate([np.flatnonzero(NUMBERS == 1), np.flatnonzero(NUMBERS == 8)])
    frames.xyz = frames.xyz[:, oxygens_last]
    frames.save_dcd(str(tmp_path / "x.dcd"))
    shutil.copy(files / "x.pdb", tmp_path)
    with pytest.raises(InputError, match="the topology has its atoms in another order"):
        frames_of(tmp_path / "x.dcd")


def test_constraints_that_contradict_the_frames_are_found(files: Path, tmp_path: Path) -> None:
    for ending in (".dcd", ".pdb", ".forces.npy"):
        shutil.copy(files / f"x{ending}", tmp_path)
    text = (files / "x.system.xml").read_text().replace(".0957", ".1001")
    (tmp_path / "x.system.xml").write_text(text)
    with pytest.raises(InputError, match=r"holds atoms .* at 0\.1001 nm, but .* 0\.0957 nm"):
        open_trajectory(tmp_path / "x.dcd")


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (1 / 10, "as if they were in kJ/mol/A, a factor of 10"),
        (1 / 41.84, "as if they were in kcal/mol/A, a factor of 41.84"),
        (1 / 418.4, "a factor of 418.4"),
        (1 / 9648.533, "as if they were in eV/A"),
        (41.84, "as if kJ/mol/nm were read as kcal/mol/A, a factor of 41.84"),
        (1.5, ""),
        (1 / 1.5, ""),
    ],
)
def test_forces_in_other_units_are_noticed(
    factor: float, words: str, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    topology = mdtraj.load_topology(str(files / "x.pdb"))
    forces = np.random.default_rng(1).normal(0, 700, (20, N, 3))
    with caplog.at_level(logging.WARNING):
        warn_of_forces(files / "x.forces.npy", forces * factor, MoleculeGraph(topology))
    assert (words in caplog.text) if words else not caplog.text


def claiming(shape: tuple[int, ...]) -> bytes:
    """Return the header of a .npy that claims so many numbers, and a few of them."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    return stream.getvalue() + bytes(4000)


HUGE = (10**9, 1000, 3)  # 12 terabytes


def test_a_header_that_claims_terabytes_is_refused(files: Path, tmp_path: Path) -> None:
    (tmp_path / "x.forces.npy").write_bytes(claiming(HUGE))
    with pytest.raises(InputError, match=r"no \.npy file that can be read"):
        open_trajectory_file(tmp_path / "x.forces.npy")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("positions.npy", claiming(HUGE))
    with pytest.raises(InputError, match=r"does not have the .* numbers that it says"):
        open_trajectory_file(tmp_path / "x.npz")
    with pytest.raises(InputError, match="not a whole"):
        read_arrays(tmp_path / "x.npz")
    dcd = bytearray((files / "x.dcd").read_bytes())
    at = 92 + 4 + struct.unpack("<i", dcd[92:96])[0] + 4 + 4  # the number of atoms
    dcd[at : at + 4] = struct.pack("<i", 2**31 - 1)
    (tmp_path / "x.dcd").write_bytes(dcd)
    with pytest.raises(InputError, match="its header says 2147483647 atoms"):
        open_trajectory_file(tmp_path / "x.dcd")


def test_an_archive_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("positions.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(1025):
            member.write(bytes(2**20))
    assert (tmp_path / "x.npz").stat().st_size < 2**21
    for reader in (open_trajectory_file, read_arrays, load_labels, read_tensors):
        with pytest.raises(InputError, match=r"claim to unpack to 1|not a file of deepcg"):
            reader(tmp_path / "x.npz")


class Mischief:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("kind", ["model.pt", "x.npz", "x.npy"])
def test_no_file_runs_code(kind: str, tmp_path: Path) -> None:
    victim, path = tmp_path / "created", tmp_path / kind
    mischief = np.array([Mischief(victim)], object)
    if kind == "model.pt":
        write_tensors(path, {"format": 1})
        torch.save({"format": 1, "x": Mischief(victim)}, path)
    elif kind == "x.npz":
        np.savez(path, positions=mischief, bias=mischief, temperature=mischief)
    else:
        np.save(path, mischief)
    for reader in (
        load_model,
        open_trajectory_file,
        read_arrays,
        read_tensors,
        load_labels,
        describe,
    ):
        with pytest.raises(InputError):
            reader(path)
    assert not victim.exists()
    if kind == "model.pt":
        torch.load(path, weights_only=False)["x"].close()  # it would have
        assert victim.exists()


@pytest.mark.skipif(not hasattr(openmm, "PythonForce"), reason="OpenMM before 8.4 has none")
@pytest.mark.parametrize("place", ["system", "hidden", "state"])
def test_no_system_runs_code(place: str, files: Path, tmp_path: Path, monkeypatch) -> None:
    """The pickle within the force is replaced by one that creates a file."""
    victim = tmp_path / "created"
    text = with_python_force((files / "x.system.xml").read_text(), victim)
    path = tmp_path / "x.system.xml"
    path.write_text(text.replace("PythonForce", "Python&#70;orce") if place == "hidden" else text)
    with pytest.raises(InputError, match="holds a PythonForce"):
        read_state(path) if place == "state" else read_system(path)
    assert not victim.exists()
    if place == "system":
        read_system(path, trust=True)  # it would have
        assert victim.exists()


COMMANDS = {
    "label": ["label"],
    "restrain": ["label", "--restrain", "--number", 2],
    "fit": ["fit", "--network", "pair-spline", "--cutoff", 0.4],
    "fit of variables": ["fit", "--map", "distance:0,3"],
}


@pytest.mark.skipif(not hasattr(openmm, "PythonForce"), reason="OpenMM before 8.4 has none")
@pytest.mark.parametrize("forces", [False, True])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_the_code_of_a_system(
    command: str, forces: bool, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim, path, output = tmp_path / "created", tmp_path / "x.dcd", tmp_path / "output"
    endings = ("dcd", "pdb", "forces.npy") if forces and "fit" in command else ("dcd", "pdb")
    for ending in endings:
        shutil.copy(files / f"x.{ending}", tmp_path)
    text = with_python_force((files / "x.system.xml").read_text(), victim)
    (tmp_path / "x.system.xml").write_text(text)
    words = [*COMMANDS[command], path, "-o", output, "--threads", 1]
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 2
    assert "holds a PythonForce" in capsys.readouterr().err
    assert not victim.exists()
    assert not output.exists()


def nothing(state: openmm.State) -> tuple[float, np.ndarray]:
    """Return an energy, kJ/mol, and forces, kJ/mol/nm, that change nothing."""
    return 0.0, np.zeros((state.getPositions(asNumpy=True).shape[0], 3))


@pytest.mark.skipif(not hasattr(openmm, "PythonForce"), reason="OpenMM before 8.4 has none")
def test_a_system_that_is_trusted_is_used(files: Path, tmp_path: Path) -> None:
    for ending in ("dcd", "pdb"):
        shutil.copy(files / f"x.{ending}", tmp_path)
    system = openmm.XmlSerializer.deserialize((files / "x.system.xml").read_text())
    system.addForce(openmm.PythonForce(nothing))
    (tmp_path / "x.system.xml").write_text(openmm.XmlSerializer.serialize(system))
    with pytest.raises(InputError, match="--trust"):
        label_trajectory(LabelConfig(tmp_path / "x.dcd"))
    labels = label_trajectory(LabelConfig(tmp_path / "x.dcd", trust=True, threads=1))
    assert isinstance(labels, Labels)
    assert not np.load(labels.forces).any()


@pytest.mark.parametrize(
    "line", ['trajectory = "../x.dcd"', 'trajectory = "x.dcd"\nalso = ["/a/../b.dcd"]']
)
def test_settings_of_a_folder_lead_nowhere_else(line: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f'{line}\noutput = "/somewhere"\n')
    with pytest.raises(InputError, match=r"a way out of its folder: name it from the root"):
        fit_config_of(tmp_path)
    (tmp_path / "config.toml").write_text('trajectory = "/data/x.dcd"\noutput = "/somewhere"\n')
    assert fit_config_of(tmp_path).output == tmp_path


def test_no_file_can_ask_for_trust(tmp_path: Path) -> None:
    path, trusting = tmp_path / "config.toml", DataConfig(trust=True)
    write_toml(path, absolute(FitConfig(Path("x.dcd"), data=trusting)))
    assert not read_toml(path, FitConfig).data.trust
    write_toml(path, FitConfig(Path("x.dcd"), data=trusting))
    with pytest.raises(InputError, match="asks for trust: only --trust gives it"):
        read_toml(path, FitConfig)


def with_python_force(text: str, victim: Path) -> str:
    """Return the XML of a System with a PythonForce whose pickle creates a file."""
    system = openmm.XmlSerializer.deserialize(text)
    system.addForce(openmm.PythonForce(math.hypot))  # any function of a module
    with_force = openmm.XmlSerializer.serialize(system)
    harmless, evil = (pickle.dumps(each).hex() for each in (math.hypot, Mischief(victim)))
    assert harmless in with_force, "OpenMM keeps the pickle in another way"
    return with_force.replace(harmless, evil)
