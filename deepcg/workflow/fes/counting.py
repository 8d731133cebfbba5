"""What numbers in the names of coordinates count: a run's beads on both sides, atoms with an @."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deepcg.mapping.beads import LinearMapping
from deepcg.mapping.collective_variables import (
    counts_sites,
    is_collective,
    labels_of,
    recounted,
)
from deepcg.runtime.errors import InputError
from deepcg.trajectory.reader import Trajectory
from deepcg.workflow.dataset.beads import DataConfig, mapping_of, open_data
from deepcg.workflow.fit.run_folder import fit_config_of
from deepcg.workflow.fit.vouched_files import config_with_data_of


@dataclass(frozen=True, slots=True, eq=False)
class Counting:
    """The atom that each bead of a map sits on, ``None`` where it is a mean over several."""

    map: str
    atoms: tuple[int | None, ...]

    @classmethod
    def of(cls, name: str, source: Trajectory) -> Counting:
        """Return how a map counts the atoms of a trajectory."""
        mapping = mapping_of(DataConfig(map=name), source)
        assert isinstance(mapping, LinearMapping)
        ends = mapping.weights.indptr
        single = np.diff(ends) == 1
        columns = mapping.weights.indices
        return cls(
            name, tuple(int(columns[ends[k]]) if one else None for k, one in enumerate(single))
        )

    @classmethod
    def of_run(cls, run: Path, *, trust: bool = False) -> Counting:
        """Return how a run of beads counts the atoms of its own data.

        With ``trust`` they may be others than those that it was fitted to.

        Raises
        ------
        InputError
            The data are gone, or cannot be used.
        """
        config = config_with_data_of(run, trust=trust)
        if not config.trajectory.exists():
            raise InputError(
                f"{config.trajectory}, which {run} was fitted to, is gone, and with it which atoms "
                "its beads are on: count beads in --cv, without @"
            )
        data = replace(config.data, bias=())
        return cls.of(data.map, open_data(config.trajectory, data))

    def on_atoms(self, name: str) -> str | None:
        """Return a name that counts atoms alone; ``None`` where a bead in it is no atom."""
        if any(self._atom(word) is None for word in sites_in(name)):
            return None
        return recounted(name, lambda word: f"@{self._atom(word)}")

    def on_beads(self, name: str) -> str:
        """Return a name that counts beads alone.

        Raises
        ------
        InputError
            It names an atom that is no bead.
        """
        return recounted(name, lambda word: str(self._bead(word)))

    def _atom(self, word: str) -> int | None:
        if word.startswith("@"):
            return int(word[1:])
        return self.atoms[self._bead(word)]

    def _bead(self, word: str) -> int:
        n = len(self.atoms)
        if not word.startswith("@"):
            if int(word) >= n:
                raise InputError(
                    f"there is no bead {word}: the map {self.map!r} has {n}, counted from 0 to "
                    f"{n - 1} (@{word} is atom {word})"
                )
            return int(word)
        if int(word[1:]) in self.atoms:
            return self.atoms.index(int(word[1:]))
        shown = [f"@{atom}" for atom in self.atoms if atom is not None][:8]
        which = f"the atoms {', '.join(shown)}{' ...' * (n > 8)}" if shown else "no single atoms"
        raise InputError(
            f"{word} is no bead of the map {self.map!r}, and samples of the model have no other "
            f"atoms: its {n} beads are on {which}"
        )


def sites_in(name: str) -> list[str]:
    """Return the numbers of all sites in a name, with their ``@``."""
    found: list[str] = []

    def kept(word: str) -> str:
        found.append(word)
        return word

    recounted(name, kept)
    return found


def labels_as_given(names: Iterable[str], given: str, recounted_name: str) -> tuple[str, ...]:
    """Return the labels of coordinates, those of a recounted name as they were given."""
    counted = (label.replace("@", "") for label in labels_of(recounted_name))
    as_given = dict(zip(counted, labels_of(given), strict=True))
    return tuple(as_given.get(name, name) for name in names)


def map_counted(cv: str, paths: Iterable[Path]) -> str | None:
    """Return the map whose beads numbers count: that of the runs; ``None`` where atoms are counted.

    Raises
    ------
    InputError
        Paths count in different ways, and the coordinates are not said by atoms.
    """
    maps = {path: _map_of(path) for path in paths if not path.name.endswith("fes.npz")}
    kinds = set(maps.values())
    if len(kinds) > 1 and counts_sites(cv):
        told = ", ".join(f"{p}: {m or 'no map, atoms'}" for p, m in maps.items())
        raise InputError(
            f"the numbers in {cv!r} count other beads in each of these ({told}): name atoms, as "
            f"in {recounted(cv, lambda word: '@' + word.removeprefix('@'))}"
        )
    beads = sorted(kind for kind in kinds if kind is not None)
    return beads[0] if beads else None


def _map_of(path: Path) -> str | None:
    if not (path / "config.toml").is_file():
        return None
    name = fit_config_of(path).data.map
    return None if is_collective(name) else name
