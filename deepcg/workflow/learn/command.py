"""``deepcg learn``: data where an ensemble does not know U."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deepcg.compute.device import device_of
from deepcg.mapping.collective_variables import is_collective
from deepcg.potentials.ensemble import count_members
from deepcg.runtime.config import read_toml, to_flat, write_toml
from deepcg.runtime.errors import InputError
from deepcg.runtime.locks import folder_locked
from deepcg.runtime.progress import Progress, silent
from deepcg.runtime.provenance import check_same_settings
from deepcg.workflow.fit.config import with_preset
from deepcg.workflow.fit.vouched_files import config_with_data_of
from deepcg.workflow.learn.acquisition import Data
from deepcg.workflow.learn.beads import BeadsJob
from deepcg.workflow.learn.collective_variables import VariablesJob
from deepcg.workflow.learn.config import LearnConfig, absolute_paths
from deepcg.workflow.learn.rounds import Job, Learned, Member, take_rounds


def learn(
    config: LearnConfig,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> Learned[Any, Any]:
    """Explore, ask and train until little is unknown; write a run folder for each round.

    Raises
    ------
    InputError
        The run is no ensemble, the oracle cannot answer for it, the folder holds something else,
        or another process works there.
    """
    device_of("cpu", config.threads)
    with folder_locked(config.output):
        _check_folder(config)
        fitted = with_preset(config_with_data_of(config.run, trust=config.trust))
        if count_members(config.run) == 1:
            raise InputError(f"{config.run} has one member, and no spread: add some by --resume")
        if is_collective(fitted.data.map):
            return _learn(VariablesJob(config, fitted, progress), config, progress, tell)
        return _learn(BeadsJob(config, fitted, progress), config, progress, tell)


def _learn(
    job: Job[Member, Data], config: LearnConfig, progress: Progress, tell: Callable[[str], None]
) -> Learned[Member, Data]:
    # not before: a folder is begun when nothing is wrong with what is asked for
    write_toml(config.output / "learn.toml", absolute_paths(config))
    return take_rounds(job, config, progress, tell)


def _check_folder(config: LearnConfig) -> None:
    path = config.output / "learn.toml"
    if not path.is_file():
        if (config.output / "config.toml").exists():
            raise InputError(f"{config.output} holds another run: give another --output")
        return
    if not config.resume:
        raise InputError(f"{config.output} holds rounds: give --resume or another --output")
    check_same_settings(
        to_flat(read_toml(path, LearnConfig)),
        to_flat(absolute_paths(config)),
        found=f"{config.output} was begun with",
        way_out="resume with the same, or give another --output",
        free=("resume", "threads", "rounds", "stop_fraction", "output", "trust"),
    )
