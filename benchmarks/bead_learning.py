r"""Beads that learn from restrained dynamics where they have not been.

Fits an ensemble to the backbone and C-beta of alanine dipeptide, from the frames with phi < -2 of a
trajectory alone, and lets `deepcg learn` mend it: replicas of the model find what it does not know,
restrained dynamics of all atoms, pulled there from these frames, answer. Prints, round by round,
how much of the model's own samples is not known, and the mean square force error on frames that
nothing was fitted to, with phi < -2 and with -2 < phi < 0; at the end that of an ensemble fitted to
frames with any phi. The noise of the forces is in all of these.

    deepcg simulate alanine --solvent vacuum --bias metadynamics \
        --freeze-after-ns 1.5 --bias-factor 15 --ns 0.8 -o ALA
    python benchmarks/bead_learning.py ALA/traj.dcd OUTPUT
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import mdtraj
import torch

from deepcg.potentials.ensemble import EnsemblePotential, load_beads
from deepcg.runtime.progress import silent
from deepcg.training.config import TrainingConfig
from deepcg.training.loss import force_error
from deepcg.training.members import MembersConfig
from deepcg.training.samples import prepare
from deepcg.trajectory.frames import Frames
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.fit.beads import beads_of
from deepcg.workflow.fit.command import fit
from deepcg.workflow.fit.config import FitConfig
from deepcg.workflow.learn.command import learn
from deepcg.workflow.learn.config import HoldConfig, LearnConfig

MEMBERS, STEPS, ROUNDS, PLACES = 3, 400, 3, 12
EDGE = -2.0
KEPT = 0.2
"""Part of the trajectory, the last, that nothing is fitted to."""


def part(path: Path, frames: mdtraj.Trajectory, folder: Path) -> Path:
    """Write some frames, with the topology and System of the whole."""
    folder.mkdir(parents=True)
    new = folder / "traj.dcd"
    frames.save_dcd(str(new))
    for ending in (".pdb", ".system.xml"):
        shutil.copyfile(path.with_suffix(ending), new.with_suffix(ending))
    return new


def settings(trajectory: Path, output: Path) -> FitConfig:
    """Return how beads are fitted here."""
    return FitConfig(
        trajectory,
        output=output,
        data=DataConfig(map="backbone-cb"),
        training=TrainingConfig(steps=STEPS, batch_size=8, weighting="even"),
        members=MembersConfig(ensemble=MEMBERS),
        threads=1,
    )


def error(run: Path, frames: Frames) -> tuple[float, float]:
    """Return the mean square error of the ensemble's forces, (kJ/mol/nm)^2, and that error's."""
    ensemble = EnsemblePotential([model.potential for model in load_beads(run)])
    one = ensemble.members[0]
    errors = force_error(ensemble, prepare(one, frames))  # type: ignore[arg-type]
    return float(errors.mean()), float(errors.std() / len(errors) ** 0.5)


def main() -> None:
    """Print the table."""
    path, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    whole = mdtraj.load(str(path), top=str(path.with_suffix(".pdb")))
    phi = mdtraj.compute_phi(whole)[1][:, 0]
    first = round((1 - KEPT) * len(whole))
    half = part(path, whole[:first][phi[:first] < EDGE], folder / "half")
    everything = part(path, whole[:first], folder / "all")
    kept = part(path, whole[first:], folder / "kept")
    held_out = beads_of(settings(kept, folder / "kept-forces"), silent)[0].frames.to(
        "cpu", torch.float32
    )
    later = torch.from_numpy(phi[first:])
    seen, new = later < EDGE, (later >= EDGE) & (later < 0)
    sides = {"phi < -2": held_out[seen], "-2 < phi < 0": held_out[new]}

    def told(name: str, run: Path) -> None:
        errors = {side: error(run, frames) for side, frames in sides.items()}
        words = [f"{side}: {value:.0f} +- {of:.0f}" for side, (value, of) in errors.items()]
        print(f"{name}: {', '.join(words)} (kJ/mol/nm)^2", flush=True)

    run, output = folder / "fit-half", folder / "learned"
    fit(settings(half, run))
    told("phi < -2 alone", run)
    config = LearnConfig(
        run,
        (half,),
        output=output,
        oracle="restrained",
        rounds=ROUNDS,
        queries=PLACES,
        walkers=16,
        walk_ps=10.0,
        refit_steps=200,
        hold=HoldConfig(platform="Reference"),
        threads=1,
    )
    learned = learn(config, tell=lambda line: print(line, flush=True))
    for done in learned.rounds:
        told(f"after round {done.number}", output / f"round-{done.number}")
    fit(settings(everything, folder / "fit-all"))
    told("all frames", folder / "fit-all")


if __name__ == "__main__":
    main()
