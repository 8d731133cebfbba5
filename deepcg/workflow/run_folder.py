"""The folder of a fit: what may be written there, and the record of a training in it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from deepcg.configuration import read_toml, to_flat
from deepcg.errors import InputError
from deepcg.files import write_whole, writing
from deepcg.folders import check_place
from deepcg.progress import Progress, silent
from deepcg.training import ForceSamples, Inputs, Record, Trainable, rows, train
from deepcg.workflow.fit_config import FitConfig, absolute


def check_folder(config: FitConfig) -> None:
    """Refuse a folder whose fit would be overwritten, or is another than the one to resume.

    Raises
    ------
    InputError
        Names the setting that differs, or what is in the way.
    """
    check_place(config.output)
    if not config.resume:
        if (config.output / "model.pt").exists():
            raise InputError(f"{config.output} holds a model: give --resume or another --output")
        if (config.output / "checkpoint.pt").exists():
            raise InputError(
                f"{config.output} holds an interrupted fit: give --resume to go on at step "
                f"{_last_step(config.output)}, or another --output"
            )
        return
    if not (config.output / "config.toml").exists():
        return
    old = to_flat(read_toml(config.output / "config.toml", FitConfig))
    new = to_flat(absolute(config))
    for name in new:
        if name in ("output", "resume", "threads", "device"):
            continue
        # a file knows lists only, and keeps no order of options
        if json.dumps(old[name], sort_keys=True, default=str) != json.dumps(
            new[name], sort_keys=True, default=str
        ):
            raise InputError(
                f"{config.output} is a fit with {name} = {old[name]}, not {new[name]}: "
                f"resume it with the same settings, or give another --output"
            )


def _last_step(folder: Path) -> int:
    """Return how far an interrupted fit was at its last record."""
    try:
        last = (folder / "metrics.jsonl").read_text().splitlines()[-1]
        return int(json.loads(last)["step"])
    except (OSError, ValueError, LookupError, TypeError):
        return 0


def train_in_folder(
    config: FitConfig,
    potential: Trainable[Inputs],
    samples: ForceSamples[Inputs],
    validation: ForceSamples[Inputs],
    progress: Progress = silent,
) -> list[Record]:
    """Train, and keep the records and a checkpoint in the run folder; return the records.

    Raises
    ------
    TrainingError
        As ``deepcg.training.train``.
    """
    metrics = config.output / "metrics.jsonl"

    def report(record: Record) -> None:
        with writing(metrics), metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record)) + "\n")

    if not config.resume:
        metrics.unlink(missing_ok=True)
    whole = train(
        potential,
        samples,
        validation,
        config.training,
        report=report,
        checkpoint=config.output / "checkpoint.pt",
        resume=config.resume,
        progress=progress,
    )
    # after an interruption the file may hold lines that the checkpoint does not know
    write_whole(metrics, "".join(json.dumps(row) + "\n" for row in rows(whole)))
    return whole
