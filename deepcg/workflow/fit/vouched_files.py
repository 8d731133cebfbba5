"""Files outside of a run folder that its settings name: opened if the run vouches for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deepcg.runtime.errors import InputError
from deepcg.runtime.files import read_json
from deepcg.runtime.provenance import file_hash
from deepcg.workflow.fit.config import FitConfig
from deepcg.workflow.fit.run_folder import fit_config_of


def config_with_data_of(run: Path, *, trust: bool) -> FitConfig:
    """Return the settings of a run whose data are going to be opened.

    A folder may come from somebody else, and name any file of ours. Without ``trust`` those outside
    of it have to be those that the fit was made from, by the hashes in ``run.json``: who can tell
    the hash of a file has the file.

    Raises
    ------
    InputError
        As ``fit_config_of``; or a file is outside of the folder and is not vouched for.
    """
    config = fit_config_of(run)
    if trust:
        return config
    data, known = config.data, set(_texts(hashes_of(run)))
    for file in (config.trajectory, data.topology, data.system, data.forces, *data.also):
        if file is None or not file.exists() or _is_inside(file, run):
            continue
        if not (file.is_file() or file.is_dir()) or file_hash(file) not in known:
            raise InputError(
                f"{run / 'config.toml'} names {file}, outside of its folder, which is not a file "
                "that this fit was made from (by the hashes in run.json): it has changed, or give "
                f"--trust if you trust the maker of {run}"
            )
    return config


def hashes_of(run: Path) -> dict[str, Any]:
    """Return the hashes of files in the ``run.json`` of a run, by what they are."""
    path = run / "run.json"
    record = read_json(path) if path.is_file() else {}
    hashes = record.get("hashes", {}) if isinstance(record, dict) else {}
    return hashes if isinstance(hashes, dict) else {}


def _is_inside(file: Path, run: Path) -> bool:
    return file.resolve().is_relative_to(run.resolve())


def _texts(table: dict[str, Any]) -> Iterator[str]:
    """Yield all texts in a table of tables."""
    for entry in table.values():
        if isinstance(entry, dict):
            yield from _texts(entry)
        elif isinstance(entry, str):
            yield entry
