"""From one model of water to another with a tenth of the data.

Fits U of the oxygens to the first frames of a trajectory of another water model: from random
weights, from the weights of a run, and from these with the embedding frozen. Prints the mean square
force error of each, and of the run as it is, on the last frames, which nothing was fitted to, with
its standard error and the part of the variance that is explained.

    deepcg simulate water --model spce --ns 0.15 -o SPCE
    python benchmarks/transfer.py SPCE/traj.dcd RUN OUTPUT [frames [steps]]
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from deepcg.geometry.neighbor_list import Neighbors
from deepcg.potentials.beads import NetworkPotential
from deepcg.potentials.model_file import load_model
from deepcg.runtime.progress import silent
from deepcg.training.config import TrainingConfig
from deepcg.training.loss import force_error
from deepcg.training.members import MembersConfig
from deepcg.training.samples import ForceSamples, prepare
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.fit.beads import beads_of
from deepcg.workflow.fit.command import fit
from deepcg.workflow.fit.config import FitConfig

FRAMES, STEPS, KEPT = 200, 1500, 100
GENTLE = 1e-3
"""Rate of learning from weights that are good already: that of random ones would undo them."""


def tell(name: str, potential: NetworkPotential, kept: ForceSamples[Neighbors]) -> None:
    """Print the error of a model on the frames that were kept."""
    errors = force_error(potential, kept).double()
    mean, of_mean = float(errors.mean()), float(errors.std() / len(errors) ** 0.5)
    explained = 1 - mean / float(kept.forces.var())
    print(f"{name}: {mean:.0f} +- {of_mean:.0f} (kJ/mol/nm)^2, R2 {explained:.4f}", flush=True)


def main() -> None:
    """Fit and print."""
    trajectory, run, folder = (Path(word).resolve() for word in sys.argv[1:4])
    frames, steps = (*map(int, sys.argv[4:6]), *(FRAMES, STEPS)[len(sys.argv[4:6]) :])
    plain = FitConfig(
        trajectory,
        data=DataConfig(stop=frames),
        training=TrainingConfig(steps=steps),
        threads=1,
    )
    first = load_model(run).potential
    whole = beads_of(replace(plain, data=DataConfig(), output=folder), silent)[0].frames
    kept = prepare(first, whole[-KEPT:].to("cpu", torch.float32))
    tell("the run as it is", first, kept)
    gentle = replace(plain.training, learning_rate=GENTLE)
    frozen = MembersConfig(start_from=run, freeze=("embedding",))
    ways = {
        "from random weights": (MembersConfig(), plain.training),
        "from the run": (MembersConfig(start_from=run), gentle),
        "from the run, embedding frozen": (frozen, gentle),
    }
    for k, (name, (members, training)) in enumerate(ways.items()):
        output = folder / f"fit-{k}"
        fit(replace(plain, output=output, members=members, training=training))
        tell(f"{name}, {frames} frames", load_model(output).potential, kept)


if __name__ == "__main__":
    main()
