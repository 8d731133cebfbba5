"""What the members of a run of beads say of its samples: the energies that tell the fit's error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from deepcg.geometry.neighbor_list import find_pairs
from deepcg.potentials.beads import NetworkPotential
from deepcg.potentials.ensemble import count_members, load_beads
from deepcg.runtime.arrays import Doubles
from deepcg.workflow.fit.run_folder import fit_config_of

CHUNK = 25
"""Frames that are evaluated at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class MemberEnergies:
    """U of the members of a run at its samples.

    Parameters
    ----------
    energies
        (n_members, n_frames), kJ/mol, each up to a constant that is the same for all members or
        none: without what they share.
    sources
        The member that each was refitted from, ``None`` for a fit of its own.
    resampled
        Whether fits of their own are to frames drawn anew.
    """

    energies: Doubles
    sources: tuple[int | None, ...]
    resampled: bool


def member_energies(
    run: Path, trajectories: Sequence[tuple[Tensor, Tensor | None]]
) -> MemberEnergies | None:
    """Return U of all members at frames; ``None`` where there is one member.

    Parameters
    ----------
    trajectories
        Positions (n, n_beads, 3), nm, and boxes (n, 3, 3) or ``None`` of each, one after the other.
    """
    if count_members(run) < 2:
        return None
    members = [model.potential.requires_grad_(False) for model in load_beads(run)]
    parts = [_energies(members, *frames) for frames in trajectories]
    sources = _sources(run, len(members))
    settings = fit_config_of(run).members
    resampled = settings.resample and all(source is None for source in sources)
    return MemberEnergies(torch.cat(parts, 1).numpy(), sources, resampled)


def _energies(members: Sequence[NetworkPotential], positions: Tensor, box: Tensor | None) -> Tensor:
    first, like, found = members[0], next(members[0].parameters()), []
    for start in range(0, len(positions), CHUNK):
        part = positions[start : start + CHUNK].to(like)
        cells = None if box is None else box[start : start + CHUNK].to(like)
        pairs = find_pairs(part, cells, first.cutoff).with_types(first.types)
        near = first.environments(part, pairs)
        found.append(torch.stack([member.energy(near).double().cpu() for member in members]))
    return torch.cat(found, 1)


def _sources(run: Path, n: int) -> tuple[int | None, ...]:
    """Return what ``run.json`` says of members; those of older runs are fits of their own."""
    path = run / "run.json"
    saved = json.loads(path.read_text()).get("refitted_from", []) if path.is_file() else []
    return tuple(saved) if len(saved) == n else (None,) * n
