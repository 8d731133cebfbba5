"""Numbers in --cv count a run's beads on both sides, and atoms with an @."""

from __future__ import annotations

import json
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from ase.build import molecule

from deepcg.mapping.beads import bead_topology, build_mapping
from deepcg.mapping.collective_variables import build_variables
from deepcg.runtime.config import write_toml
from deepcg.runtime.errors import InputError
from deepcg.runtime.provenance import file_hash
from deepcg.trajectory.reader import iter_frames, open_trajectory
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.fes.command import FesConfig, fes
from deepcg.workflow.fes.sources import Coordinates, any_free_energy_surface, microscopic, samples
from deepcg.workflow.fit.config import FitConfig

N_FRAMES = 300
SIDE = 1.4


def hydrogens_first() -> tuple[np.ndarray, np.ndarray]:
    """Propane whose carbons are atoms 8, 9 and 10: numbers and places, nm."""
    propane = molecule("C3H8")
    order = np.argsort(propane.numbers, kind="stable")
    return propane.numbers[order], propane.positions[order] / 10


def frames_of_propane(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return hydrogens_first()[1] + rng.normal(0, 0.003, (N_FRAMES, 11, 3))


def frames_of_gas(seed: int) -> np.ndarray:
    """Three molecules of CO2 (C, O, O) anywhere in the box, across its faces."""
    rng = np.random.default_rng(seed)
    axes = rng.normal(size=(N_FRAMES, 3, 1, 3))
    axes *= 0.116 / np.linalg.norm(axes, axis=-1, keepdims=True)
    atoms = rng.uniform(0, SIDE, (N_FRAMES, 3, 1, 3)) + axes * [[0], [1], [-1]]
    return atoms.reshape(N_FRAMES, 9, 3) % SIDE


def make_run(
    folder: Path, name: str, numbers: np.ndarray, frames: list[np.ndarray], side: float | None
) -> Path:
    """Write data and a run of a map on them whose samples are other frames of the same."""
    folder.mkdir(exist_ok=True)
    box = {} if side is None else {"box": np.tile(np.eye(3) * side, (N_FRAMES, 1, 1))}
    for stem, positions in zip(("data", "model"), frames, strict=True):
        np.savez(folder / f"{stem}.npz", positions=positions, numbers=numbers, **box)
    source = open_trajectory(folder / "model.npz")
    mapping = build_mapping(name, source.topology)
    run = folder / name
    (run / "samples").mkdir(parents=True)
    write_toml(run / "config.toml", FitConfig(folder / "data.npz", data=DataConfig(map=name)))
    beads = mapping(next(iter_frames(source)).positions).numpy()
    sampled = mdtraj.Trajectory(beads, bead_topology(mapping, source.graph))
    if side is not None:
        sampled.unitcell_vectors = box["box"]
    sampled.save_dcd(run / "samples" / "000.dcd")
    sampled[0].save_pdb(run / "samples" / "topology.pdb")
    (run / "samples" / "summary.json").write_text("{}")
    hashes = {"hashes": {"trajectory": file_hash(folder / "data.npz")}}
    (run / "run.json").write_text(json.dumps(hashes))
    return run


@pytest.fixture
def propane(tmp_path: Path) -> Path:
    frames = [frames_of_propane(seed) for seed in (1, 2)]
    return make_run(tmp_path / "x", "heavy", hydrogens_first()[0], frames, None)


def given(cv: str, beads: str | None) -> Coordinates:
    return Coordinates(cv, None, 300.0, beads=beads)


@pytest.mark.parametrize(
    ("cv", "atoms"),
    [
        ("distance:0,1;distance:0,2", "distance:8,9;distance:8,10"),
        ("angle:1,0,2;distance:1,2", "angle:9,8,10;distance:9,10"),
        ("distance:@8,@9;angle:@9,@8,@10", "distance:8,9;angle:9,8,10"),
        ("distance:@8,1;angle:1,@8,2", "distance:8,9;angle:9,8,10"),
    ],
)
def test_both_sides_count_the_beads_of_the_run(propane: Path, cv: str, atoms: str) -> None:
    micro, model = microscopic(propane, given(cv, "heavy")), samples(propane, cv)
    for one, seed in ((micro, 1), (model, 2)):
        positions = torch.from_numpy(frames_of_propane(seed))
        source = open_trajectory(propane.parent / "data.npz")
        expected = build_variables(atoms, source.topology)(positions)
        np.testing.assert_allclose(one.values, expected, atol=2e-6)  # frames are in float32
    assert micro.names == model.names
    assert micro.names[0] == cv.split(";")[0].replace(":", " ").replace(",", "-")


def test_without_a_run_of_beads_numbers_count_atoms(propane: Path) -> None:
    data = propane.parent / "data.npz"
    plain, marked = (
        any_free_energy_surface(data, given(cv, None), None, 8)[1]
        for cv in ("distance:8,9;distance:8,10", "distance:@8,@9;distance:@8,@10")
    )
    assert plain is not None
    assert marked is not None
    assert np.array_equal(plain.values, marked.values)


def test_surfaces_of_the_run_and_its_data_overlap_and_are_written(propane: Path) -> None:
    study = fes(FesConfig(propane, cv="distance:0,1;distance:0,2", bins=6))
    assert study.distances[0].bins > 4
    assert np.isfinite(study.distances[0].rms.value)


def test_beads_that_are_means_over_atoms_are_mapped_on_the_microscopic_side(tmp_path: Path) -> None:
    frames = [frames_of_gas(seed) for seed in (1, 2)]
    run = make_run(tmp_path / "gas", "com", np.tile([6, 8, 8], 3), frames, SIDE)
    cv = "distance:0,1;distance:1,2"
    for one, seed in ((microscopic(run, given(cv, "com")), 1), (samples(run, cv), 2)):
        carbons = frames_of_gas(seed)[:, ::3]  # in the middle of each molecule
        apart = carbons[:, [0, 1]] - carbons[:, [1, 2]]
        apart -= SIDE * np.round(apart / SIDE)
        expected = np.linalg.norm(apart, axis=-1)
        near = expected < 0.49 * SIDE  # beyond, the nearest image is a matter of rounding
        np.testing.assert_allclose(one.values[near], expected[near], atol=1e-5)
        assert near.mean() > 0.3
    with pytest.raises(InputError, match=r"@0 is no bead of the map 'com'.*no single atoms"):
        samples(run, "distance:@0,1;distance:1,2")


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        ("distance:@0,1;distance:1,2", r"@0 is no bead of the map 'heavy'.*atoms @8, @9, @10$"),
        ("distance:0,9;distance:1,2", r"there is no bead 9: the map 'heavy' has 3.*@9 is atom 9"),
        ("distance:0,x;distance:1,2", "does not name 2 atoms"),
        ("distance:0,@;distance:1,2", "does not name 2 atoms"),
    ],
)
def test_a_site_that_is_no_bead_is_refused(propane: Path, cv: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fes(FesConfig(propane, cv=cv, bins=6))


def test_surfaces_without_a_common_bin_are_refused_with_their_ranges(tmp_path: Path) -> None:
    frames = [frames_of_propane(1), 1.3 * frames_of_propane(2)]
    run = make_run(tmp_path / "x", "heavy", hydrogens_first()[0], frames, None)
    with pytest.raises(InputError, match="samples has no frame in the bins of the") as caught:
        fes(FesConfig(run, cv="distance:0,1;distance:0,2", bins=6))
    told = str(caught.value)
    assert "\n" not in told
    assert "distance 0-1 is 0.13" in told
    assert "nm there and 0.18" in told
    assert not (run / "fes").exists()


def test_surfaces_whose_bins_cross_but_do_not_meet_are_refused(tmp_path: Path) -> None:
    """Either is a line: one where the two distances are equal, one where one is the longer."""
    rng = np.random.default_rng(5)
    carbons = np.flatnonzero(hydrogens_first()[0] == 6)
    frames = [frames_of_propane(seed) for seed in (1, 2)]
    for positions, shift in zip(frames, (0.0, 0.012), strict=True):
        bond = 0.15 + rng.uniform(-0.02, 0.02, N_FRAMES)
        center, ends = positions[:, carbons[:1]], positions[:, carbons[1:]]
        along = (ends - center) / np.linalg.norm(ends - center, axis=-1, keepdims=True)
        lengths = np.stack([bond - shift, bond + shift], axis=1)[..., None]
        positions[:, carbons[1:]] = center + lengths * along
    run = make_run(tmp_path / "x", "heavy", hydrogens_first()[0], frames, None)
    with pytest.raises(InputError, match=r"no bin in common: distance 0-1 is 0\.13.* in data\.npz"):
        fes(FesConfig(run, cv="distance:0,1;distance:0,2", bins=12))
    assert not (run / "fes").exists()


def test_runs_of_two_maps_count_atoms_only(propane: Path) -> None:
    frames = [frames_of_propane(seed) for seed in (1, 2)]
    other = make_run(propane.parent, "solute", hydrogens_first()[0], frames, None)
    cv = "distance:0,1;distance:0,2"
    with pytest.raises(InputError, match=r"count other beads in each.*heavy.*distance:@0,@1"):
        fes(FesConfig(propane, also=(other,), cv=cv, bins=6))
    atoms = "distance:@8,@9;distance:@8,@10"
    study = fes(FesConfig(propane, also=(other,), cv=atoms, bins=6))
    assert len(study.distances) == 2


def test_atoms_of_a_run_whose_data_are_gone_are_not_guessed(propane: Path) -> None:
    (propane.parent / "data.npz").unlink()
    with pytest.raises(InputError, match="is gone, and with it which atoms"):
        samples(propane, "distance:@8,@9;distance:@8,@10")
    assert samples(propane, "distance:0,1;distance:0,2").names[0] == "distance 0-1"
