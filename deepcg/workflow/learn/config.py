"""The settings of ``deepcg learn``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from deepcg.runtime.errors import InputError, pick
from deepcg.workflow.fit.config import FitConfig
from deepcg.workflow.label.restrain_config import RestrainConfig

ORACLES = ("stored", "restrained")

STEPS_PS = 0.1
"""Time between frames of walkers of beads, ps."""


@dataclass(frozen=True, slots=True)
class HoldConfig:
    """Restrained dynamics that answer.

    Parameters
    ----------
    hold_ps
        Length of the run at each place, ps.
    settle_ps
        What precedes it there, ps: the start was pulled to the place, and has to forget it.
    steer_ps
        Time in which springs pull the nearest stored frame to the place, ps.
    dt_fs
        Time step, fs; by default 2, or 0.5 where hydrogens vibrate.
    platform
        OpenMM platform: auto, CPU, CUDA, OpenCL, HIP or Reference.
    """

    hold_ps: float = 5.0
    settle_ps: float = 2.0
    steer_ps: float = 2.0
    dt_fs: float | None = None
    platform: str = "auto"

    def __post_init__(self) -> None:
        for name in ("hold_ps", "settle_ps", "steer_ps"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must be positive")

    def restraints(self, fitted: FitConfig, seed: int) -> RestrainConfig:
        """Return how to restrain the coordinates of a fit."""
        return RestrainConfig(
            fitted.data.map,
            number=1,
            ps=self.hold_ps,
            equilibration_ps=self.settle_ps,
            temperature=fitted.temperature,
            dt_fs=self.dt_fs,
            estimator=fitted.data.estimator,
            seed=seed,
        )


@dataclass(frozen=True, slots=True)
class LearnConfig:
    """Active learning: ask for forces where the members of an ensemble disagree, and fit anew.

    Parameters
    ----------
    run
        Folder of a fit with two members or more.
    pool
        Trajectories whose frames answer by their forces, or from which restrained dynamics start.
    output
        Folder of the run that comes of it, with one for each round.
    oracle
        Who answers: stored (the nearest frames of the pool; of collective variables only) or
        restrained (dynamics of the microscopic model, held there by springs).
    pool_topology, pool_system
        What belongs to the pool, where it is not that of the run's own data.
    rounds
        At most so many.
    queries
        Places that are asked for in a round.
    frames_per_query
        Stored frames that answer for a place.
    walkers
        How many walkers look for what is not known; by default 64, of beads 8 replicas.
    walk, walk_ps
        For how many steps they do, on collective variables, or for how many ps, of beads.
    trust_low, trust_high
        Trust levels, kJ/mol per unit: below the first spread the members are believed, above the
        second not at all; by default three times the rms spread over the frames of the run, and 1.5
        times that. Of beads the largest spread in a frame counts, and replicas are turned back at
        the second.
    ceiling
        Up to what free energy walkers on collective variables are helped uphill, kJ/mol.
    stop_fraction
        Stop when no more than this part of where walkers go is not known.
    at_random
        Take stored frames at random instead, for comparison.
    refit_steps
        Optimizer steps in a round, from the present weights.
    hold
        Restrained dynamics.
    seed
        Of walkers and choices.
    trust
        Open the files that RUN/config.toml names outside of its folder although they are not those
        of RUN/run.json: of runs whose maker you trust.
    threads
        CPU threads; by default all cores.
    resume
        Go on with what was interrupted, or with more rounds.
    """

    run: Path
    pool: tuple[Path, ...]
    output: Path = Path("learned")
    oracle: str = "stored"
    pool_topology: Path | None = None
    pool_system: Path | None = None
    rounds: int = 10
    queries: int = 30
    frames_per_query: int = 20
    walkers: int | None = None
    walk: int = 1000
    walk_ps: float = 20.0
    trust_low: float | None = None
    trust_high: float | None = None
    ceiling: float = 60.0
    stop_fraction: float = 0.02
    at_random: bool = False
    refit_steps: int = 400
    hold: HoldConfig = field(default_factory=HoldConfig)
    seed: int = 0
    trust: bool = False
    threads: int | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        for name in (
            "rounds",
            "queries",
            "frames_per_query",
            "walkers",
            "walk",
            "walk_ps",
            "refit_steps",
            "ceiling",
        ):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must be positive")
        pick(dict.fromkeys(ORACLES), self.oracle, "oracle")
        if self.at_random and self.oracle != "stored":
            raise InputError("at_random takes stored frames: leave out --oracle restrained")
        if not 0 <= self.stop_fraction < 1:
            raise InputError(
                f"stop_fraction is {self.stop_fraction}: give 0 or more, and less than 1"
            )
        low, high = self.trust_low, self.trust_high
        if low is not None and not 0 < low < (high or 1.5 * low):
            raise InputError(
                f"the trust levels are {low} and {high}: give 0 < trust_low < trust_high"
            )


def absolute_paths(config: LearnConfig) -> LearnConfig:
    """Return a config whose files are found from any folder; what to trust is not kept."""
    topology, system = config.pool_topology, config.pool_system
    return replace(
        config,
        trust=False,
        run=config.run.resolve(),
        pool=tuple(path.resolve() for path in config.pool),
        pool_topology=None if topology is None else topology.resolve(),
        pool_system=None if system is None else system.resolve(),
    )
