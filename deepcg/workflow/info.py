"""``deepcg info``: what is in files and run folders."""

from __future__ import annotations

import csv
import json
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import mdtraj
import numpy as np
from numpy.typing import NDArray

from deepcg.atomistic.system import read_system
from deepcg.forces.constraints import from_system
from deepcg.forces.mean_force_labels import are_labels, load_labels
from deepcg.potentials.model_file import CVModel, load_any
from deepcg.potentials.priors.system_forces import suspects
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import read_arrays, read_json, read_tensors
from deepcg.runtime.progress import Progress, silent
from deepcg.runtime.warnings_of_libraries import quiet
from deepcg.trajectory.formats import (
    FIXED_UNITS,
    FRAMES,
    IN_UNITS,
    check_readable,
    ending_of,
    in_units,
    names_positions,
    open_trajectory_file,
    other_kind,
    time_note,
)
from deepcg.trajectory.reader import TOPOLOGIES, open_trajectory
from deepcg.trajectory.skipped_frames import SkippedFrames

Facts = dict[str, Any]

_MOST_SHOWN = 8  # entries of a list


@dataclass(frozen=True, slots=True)
class InfoConfig:
    """Tell what is in files and run folders.

    Parameters
    ----------
    paths
        Trajectories, Systems, forces, models, checkpoints, tables, run folders.
    topology
        Topology file of the trajectories; by default that beside each, TRAJ.pdb.
    units
        Units of files that do not fix theirs, such as "A,kcal/mol"; by default nm,kJ/mol.
    skip_frames
        Frames of the trajectories to leave out: numbers and ranges from 0, such as 0,5,100-200.
    bonds
        Bonds beside those of the topology: auto (where it evidently lacks some; refused where
        distances leave that open), guess (all atoms that are near enough) or none.
    box
        Box of all frames of trajectories that tell none: X,Y,Z in nm, also with three angles in
        degrees, or topology for that of the topology file (CRYST1).
    json
        Print JSON for other programs.
    """

    paths: tuple[Path, ...]
    topology: Path | None = None
    units: str | None = None
    skip_frames: str | None = None
    bonds: str = "auto"
    box: str | None = None
    json: bool = False


def info(
    config: InfoConfig, progress: Progress = silent, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Facts]:
    """Return, and tell, what is in each of the files; see ``describe``."""
    found = {
        str(path): describe(
            path,
            topology=config.topology,
            units=config.units,
            skip_frames=config.skip_frames,
            bonds=config.bonds,
            box=config.box,
        )
        for path in config.paths
    }
    if config.json:
        tell(json.dumps(found, indent=1, default=str))
    else:
        tell("\n\n".join(as_text(path, facts) for path, facts in found.items()))
    return found


def describe(
    path: Path,
    *,
    topology: Path | None = None,
    units: str | None = None,
    skip_frames: str | None = None,
    bonds: str = "auto",
    box: str | None = None,
) -> Facts:
    """Return what is in a file or run folder, as plain values; ``kind`` says what it is.

    Raises
    ------
    InputError
        There is nothing, it is damaged, or of a kind that is not known.
    """
    if not path.exists():
        raise InputError(f"there is no file {path}")
    for name, describe_folder in _FOLDERS.items():
        if (path / name).exists():
            return describe_folder(path)
    ending = path.suffix.lower()
    if ending in _FILES and not (ending == ".npz" and _is_trajectory(path)):
        return _FILES[ending](path)
    if path.is_dir() and not any(path.rglob("type.raw")):
        raise InputError(f"{path} is a folder without {', '.join(_FOLDERS)} or type.raw")
    other = None if ending_of(path) in FRAMES else other_kind(path)
    if other is not None:
        return {"kind": other.kind, **other.facts, "use": other.use}
    return _trajectory(path, topology, units, SkippedFrames.of(skip_frames), bonds, box)


def as_text(title: str, facts: Mapping[str, Any]) -> str:
    """Return facts as aligned lines below a title."""
    return "\n".join([title, *_rows(facts, "  ")])


def _rows(facts: Mapping[str, Any], indent: str) -> list[str]:
    plain = {k: v for k, v in facts.items() if not isinstance(v, Mapping)}
    width = max(map(len, plain), default=0)
    rows = [f"{indent}{k.ljust(width)}  {_value(v)}" for k, v in plain.items()]
    for name, inner in facts.items():
        if isinstance(inner, Mapping) and inner:
            rows += [f"{indent}{name}", *_rows(inner, indent + "  ")]
    return rows


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        more = [f"... ({len(value)})"] if len(value) > _MOST_SHOWN else []
        shown = [_value(v) for v in value[:_MOST_SHOWN]]
        brackets = any(isinstance(v, list) for v in value)
        return ", ".join([f"({s})" if brackets else s for s in shown] + more)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _trajectory(
    path: Path,
    topology: Path | None = None,
    units: str | None = None,
    skipped: SkippedFrames | None = None,
    bonds: str = "auto",
    box: str | None = None,
) -> Facts:
    if topology is None and ending_of(path) in {*FIXED_UNITS, *IN_UNITS}:
        recording = open_trajectory_file(path, units=units if in_units(path) else None)
        beside = (path.with_suffix(ending) for ending in TOPOLOGIES)
        if recording.numbers is None and not any(file.exists() for file in beside):
            return {
                "kind": "trajectory",
                "frames": recording.n_frames,
                "frame_time_ps": recording.frame_time or time_note(recording),
                "atoms": recording.n_atoms,
                "topology": f"none beside it ({path.stem}.pdb): give --topology FILE",
            }
    source = open_trajectory(
        path, topology=topology, units=units, skipped=skipped, bonds=bonds, box=box
    )
    source.skipped.check(path, source.n_frames)
    return {"kind": "trajectory", **source.describe()}


def _structure(path: Path) -> Facts:
    """Tell of a file that a trajectory has beside it."""
    check_readable(path)
    try:
        with quiet():
            loaded = mdtraj.load(str(path))
    except Exception as error:  # MDTraj's parsers raise whatever they stumble over
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path} cannot be read as a structure: {reason}") from error
    return {
        "kind": "structure",
        "frames": loaded.n_frames,
        "atoms": loaded.n_atoms,
        "box_nm": None if loaded.unitcell_vectors is None else loaded.unitcell_vectors[0].tolist(),
        "residues": dict(Counter(residue.name for residue in loaded.topology.residues)),
    }


def _system(path: Path) -> Facts:
    if "<State" in path.read_text(encoding="utf-8", errors="replace")[:200]:
        return {"kind": "OpenMM State", "bytes": path.stat().st_size}
    system = read_system(path)
    n = system.getNumParticles()
    groups = from_system(system)
    box = system.getDefaultPeriodicBoxVectors()
    return {
        "kind": "OpenMM System",
        "particles": n,
        "virtual sites": sum(system.isVirtualSite(i) for i in range(n)),
        "mass_Da": sum(system.getParticleMass(i)._value for i in range(n)),
        "constraints": system.getNumConstraints(),
        "rigid groups": len(groups),
        "periodic": system.usesPeriodicBoundaryConditions(),
        "box_nm": [[float(x) for x in vector._value] for vector in box],
        "forces": [force.getName() for force in system.getForces()],
        "biases": [str(suspect) for suspect in suspects(system)] or None,
    }


def _torch_file(path: Path) -> Facts:
    """Tell a model, and checkpoints of training and sampling, by what they hold."""
    saved = read_tensors(path)
    if "format" in saved:
        return _model(path)
    if "optimizer" in saved:
        rows = saved["history"] or [{}]
        row = rows[-1][0] if isinstance(rows[-1], list) else rows[-1]  # of a stack: its first
        last = {k: v for k, v in row.items() if k != "step"}
        return {
            "kind": "checkpoint of a training",
            "step": saved["step"],
            "last record": last,
            "config": saved["config"],
        }
    if "velocities" in saved:
        replicas, beads = saved["positions"].shape[:2]
        return {
            "kind": "checkpoint of a sampling",
            "step": saved["step"],
            "replicas": replicas,
            "beads": beads,
            "notes": saved["notes"],
        }
    raise InputError(f"{path} was not written by deepcg: it holds {', '.join(map(str, saved))}")


def _model(path: Path) -> Facts:
    model = load_any(path)
    if isinstance(model, CVModel):
        return _surface(model)
    parts = model.architecture
    return {
        "kind": "model",
        "network": parts.network,
        "options": dict(parts.options),
        "cutoff_nm": parts.cutoff,
        "repulsion": parts.repulsion,
        "map": model.mapping,
        "beads": len(model.masses),
        "types": list(model.type_names),
        "temperature_K": model.temperature,
        "weights": sum(p.numel() for p in model.potential.parameters()),
    }


def _surface(model: CVModel) -> Facts:
    potential = model.potential
    return {
        "kind": "model of collective variables",
        "map": model.mapping,
        "coordinates": list(model.names),
        "units": list(model.units),
        "periods": list(potential.periods),
        "widths": list(potential.widths),
        "harmonics": potential.harmonics,
        "temperature_K": model.temperature,
        "weights": sum(p.numel() for p in potential.parameters()),
    }


def _array(path: Path) -> Facts:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy's parser raises whatever it stumbles over
        raise _broken(path, "NumPy", error) from error
    provenance = path.with_suffix(".json")
    note = _json_table(provenance) if provenance.is_file() else {}
    what = "forces" if path.name.endswith(".forces.npy") else "array"
    return {"kind": what, **_shape(array), "provenance": note}


def _arrays(path: Path) -> Facts:
    if are_labels(path):
        labels = load_labels(path)
        return {"kind": "mean forces of restrained dynamics", "labels": len(labels)} | {
            "quality": labels.describe(),
            "settings": labels.task,
        }
    return {"kind": "arrays", **{name: _shape(a) for name, a in read_arrays(path).items()}}


def _is_trajectory(path: Path) -> bool:
    if path.name == "start.npz" or are_labels(path):  # the first is what a fit keeps
        return False
    try:
        with ZipFile(path) as archive:
            return names_positions(archive.namelist())
    except BadZipFile as error:
        raise _broken(path, "NumPy", error) from error


def _broken(path: Path, kind: str, error: Exception) -> InputError:
    return InputError(f"{path} is not a whole {kind} file: {' '.join(str(error).split())}")


def _shape(array: NDArray[Any]) -> Facts:
    return {"shape": " x ".join(map(str, array.shape)) or "number", "type": str(array.dtype)}


def _json_table(path: Path) -> Facts:
    content = read_json(path)
    return content if isinstance(content, dict) else {"entries": content}


def _toml_table(path: Path) -> Facts:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _broken(path, "TOML", error) from error


def _csv_table(path: Path) -> Facts:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    last = dict(zip(rows[0], rows[-1], strict=False)) if len(rows) > 1 else {}
    return {
        "kind": "table",
        "columns": rows[0] if rows else [],
        "rows": len(rows) - 1,
        "last": last,
    }


def _lines_table(path: Path) -> Facts:
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        last = json.loads(lines[-1]) if lines else {}
    except ValueError as error:
        raise _broken(path, "JSON", error) from error
    return {"kind": "table", "rows": len(lines), "last": last}


def _fit_folder(path: Path) -> Facts:
    parts: Facts = {"kind": "run of deepcg fit"}
    if (path / "run.json").is_file():
        parts.update({k: v for k, v in _json_table(path / "run.json").items() if k != "kind"})
    if (path / "model.pt").is_file():
        parts["model"] = _model(path / "model.pt")
    else:
        parts["model"] = "not yet: the fit has not ended"
    parts["config"] = _toml_table(path / "config.toml")
    inside = {"samples": _sample_folder, "report": _report_folder, "fes": _fes_folder}
    for name, describe_folder in inside.items():
        if (path / name).is_dir():
            parts[name] = describe_folder(path / name)
    return parts


def _simulation_folder(path: Path) -> Facts:
    run = _json_table(path / "traj.run.json")
    return {"kind": "run of deepcg simulate", **run, "trajectory": _trajectory(path / "traj.dcd")}


def _sample_folder(path: Path) -> Facts:
    if (path / "summary.json").is_file():
        return {"kind": "samples", **_json_table(path / "summary.json")}
    return {"kind": "samples, not finished", **_torch_file(path / "checkpoint.pt")}


def _report_folder(path: Path) -> Facts:
    report = _json_table(path / "report.json")
    verdicts = {
        f"{name} ({model})": numbers["verdict"]
        for name, observable in report.get("observables", {}).items()
        for model, numbers in observable["models"].items()
    }
    return {"kind": "report", "page": str(path / "report.html"), "verdicts": verdicts}


def _fes_folder(path: Path) -> Facts:
    numbers = _json_table(path / "fes.json")
    return {
        "kind": "free-energy surfaces",
        "page": str(path / "report.html"),
        "surfaces": [str(one.get("name")) for one in numbers.get("surfaces", [])],
        "files": sorted(file.name for file in path.glob("*.npz")),
    }


def _page_or_picture(path: Path) -> Facts:
    begins = path.read_bytes()[:15]
    if begins.startswith(b"\x89PNG"):
        return {"kind": "figure", "bytes": path.stat().st_size}
    if begins.lower().startswith((b"<!doctype html", b"<html")):
        return {"kind": "report page: open it in a browser", "bytes": path.stat().st_size}
    raise InputError(f"{path} is damaged: it does not begin as {path.suffix} files do")


_FILES: dict[str, Callable[[Path], Facts]] = {
    ".xml": _system,
    ".pt": _torch_file,
    ".npy": _array,
    ".npz": _arrays,
    ".json": lambda path: {"kind": "table", **_json_table(path)},
    ".jsonl": _lines_table,
    ".csv": _csv_table,
    ".pdb": _structure,
    ".gro": _structure,
    ".toml": lambda path: {"kind": "settings", **_toml_table(path)},
    ".png": _page_or_picture,
    ".html": _page_or_picture,
}
"""How to describe files by their ending; others are trajectories."""

_FOLDERS: dict[str, Callable[[Path], Facts]] = {
    "config.toml": _fit_folder,
    "traj.run.json": _simulation_folder,
    "summary.json": _sample_folder,
    "log.csv": _sample_folder,
    "report.json": _report_folder,
    "fes.json": _fes_folder,
}
"""How to describe folders by a file in them."""
