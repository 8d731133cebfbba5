"""Statistical weights of frames from the bias that PLUMED wrote beside a run (COLVAR)."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from deepcg.runtime.arrays import Doubles, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.formats import TrajectoryFile, other_kind
from deepcg.trajectory.formats.plumed import PlumedTable, read_plumed
from deepcg.trajectory.formats.recording import times_of
from deepcg.units import thermal_energy

_log = logging.getLogger(__name__)

UNBIASED = "none"
"""In place of a file, for a trajectory without bias among others."""

SAME_TIME = 1e-3
"""Of the interval between frames; single precision and six decimals differ by less."""

FEW = 50
"""Effective frames: below this a surface is noise."""


def split_bias(text: str) -> tuple[Path, str | None]:
    """Return the file of FILE or FILE:COLUMN, and the column."""
    if not Path(text).exists() and ":" in text:
        file, _, column = text.rpartition(":")
        return Path(file), column
    return Path(text), None


def resolved_bias(text: str) -> str:
    """Return FILE or FILE:COLUMN with a file that is found from any folder."""
    if text == UNBIASED:
        return text
    path, column = split_bias(text)
    return str(path.resolve()) if column is None else f"{path.resolve()}:{column}"


def weights_of_bias(text: str, recording: TrajectoryFile, temperature: float) -> Doubles:
    """Return exp(V / kT) (n_frames,), the largest being 1, of a trajectory's frames.

    V, kJ/mol, is the column of a COLVAR, or a sum of columns (``a.bias+b.bias``). Its rows are
    matched to the frames by time, in ps, where the trajectory says that, else one to one.

    Parameters
    ----------
    text
        FILE, or FILE:COLUMN.
    recording
        The trajectory.
    temperature
        K.

    Raises
    ------
    InputError
        The file has no bias, several, or none at the time of a frame.
    """
    path, column = split_bias(text)
    table = _table(path)
    name, values = _bias(table, column)
    rows, how = matching_rows(table, recording)
    bias = values[rows]
    if not np.isfinite(bias).all():
        frame = int(np.isfinite(bias).argmin())
        raise InputError(f"{path}: {name} is {bias[frame]} at frame {frame} of {recording.path}")
    weights = np.exp((bias - bias.max()) / thermal_energy(temperature))
    worth = float(weights.sum() ** 2 / np.square(weights).sum())
    _log.warning(
        "%s: frames of %s have weights exp(V/kT), V = %s in kJ/mol (PLUMED's default) at %g K, %s; "
        "they are worth %.4g of %d frames%s",
        path,
        recording.path.name,
        name,
        temperature,
        how,
        worth,
        len(weights),
        ", too few for a surface" if worth < FEW else "",
    )
    return np.asarray(weights, np.float64)


def matching_rows(table: PlumedTable, recording: TrajectoryFile) -> tuple[Integers, str]:
    """Return the row of each frame (n_frames,), and how it was found, in words.

    Raises
    ------
    InputError
        Rows and frames are not of the same times, or nothing tells which belong together.
    """
    if "time" not in table.fields:
        raise InputError(f"{table.path} has no column time: it has {' '.join(table.fields)}")
    at, times = table.column("time"), times_of(recording)
    _check_order(table.path, at)
    if times is not None:
        return _nearest(table.path, at, recording, times), "matched by time"
    step, n = recording.frame_time, recording.n_frames
    if step is None:
        if len(at) == n:
            return np.arange(n), f"row by row, as {recording.path.name} does not say its times"
        raise InputError(
            f"{table.path} has {len(at)} rows for the {n} frames of {recording.path}, which does "
            f"not say its times: leave as many rows as there are frames"
        )
    ends = {float(start): start + step * (n - 1) for start in (at[0], at[0] + step)}
    starts = [start for start, end in ends.items() if abs(at[-1] - end) < SAME_TIME * step]
    if not starts:
        raise InputError(
            f"{table.path} has times {at[0]:g} to {at[-1]:g} ps, {recording.path} has {n} frames "
            f"every {step:g} ps and does not say when the first is: let both end at the same time"
        )
    at_frames = np.asarray(starts[0] + step * np.arange(n), np.float64)
    rows = _nearest(table.path, at, recording, at_frames)
    return rows, f"matched by time with frame 0 at {starts[0]:g} ps"


def _nearest(path: Path, at: Doubles, recording: TrajectoryFile, times: Doubles) -> Integers:
    above = np.clip(np.searchsorted(at, times), 1, max(1, len(at) - 1))
    below = above - 1
    above = np.minimum(above, len(at) - 1)
    rows = np.where(np.abs(at[below] - times) <= np.abs(at[above] - times), below, above)
    step = np.median(np.diff(times)) if len(times) > 1 else 1.0
    off = np.abs(at[rows] - times)
    apart = off > SAME_TIME * abs(step) + 1e-6 * np.abs(times)
    if apart.any():
        frame = int(apart.argmax())
        raise InputError(
            f"{path} has no row at {times[frame]:g} ps, the time of frame {frame} of "
            f"{recording.path}: the nearest is at {at[rows[frame]]:g} ps (rows are from {at[0]:g} "
            f"to {at[-1]:g} ps); give the COLVAR of this run, in ps, printed at least as often"
        )
    return rows


def _check_order(path: Path, at: Doubles) -> None:
    back = np.flatnonzero(~(np.diff(at) > 0))
    if len(back):
        k = int(back[0]) + 1
        raise InputError(
            f"{path}: row {k} is at {at[k]:g} ps, after one at {at[k - 1]:g} ps: a restart "
            f"appended rows; leave each time once"
        )


def _table(path: Path) -> PlumedTable:
    if not path.is_file():
        raise InputError(f"there is no file {path} (given for the bias)")
    other = other_kind(path)
    if other is not None and other.kind != "COLVAR of PLUMED":
        raise InputError(f"{path} is no COLVAR but {other.kind}: {other.use}")
    return read_plumed(path)


def _bias(table: PlumedTable, column: str | None) -> tuple[str, Doubles]:
    """Return the name of the bias, or of its parts, and its values (rows,)."""
    if column is not None:
        names = column.split("+")
        unknown = [name for name in names if name not in table.fields]
        if unknown:
            raise InputError(
                f"{table.path} has no column {unknown[0]!r}: it has {' '.join(table.fields)}"
            )
        return column, np.sum([table.column(name) for name in names], axis=0)
    found = {stem: _of_action(table, stem) for stem in _actions(table)}
    if not found:
        raise InputError(
            f"{table.path} has no bias: it has {' '.join(table.fields)}; print metad.rbias (or the "
            f"bias of what acted), or name the column, {table.path}:COLUMN"
        )
    names = [name for name, _ in found.values()]
    if len(found) > 1:
        raise InputError(
            f"{table.path} has several biases, {' and '.join(names)}: name those that acted, "
            f"{table.path}:{'+'.join(names)}"
        )
    return next(iter(found.values()))


def _actions(table: PlumedTable) -> list[str]:
    ends = (".bias", ".rbias")
    return list(dict.fromkeys(f.rpartition(".")[0] for f in table.fields if f.endswith(ends)))


def _of_action(table: PlumedTable, stem: str) -> tuple[str, Doubles]:
    """Return the bias of an action without its drift in time, where that is known."""
    if f"{stem}.rbias" in table.fields:
        return f"{stem}.rbias", table.column(f"{stem}.rbias")
    bias = table.column(f"{stem}.bias")
    if f"{stem}.rct" in table.fields:
        return f"{stem}.bias-{stem}.rct", bias - table.column(f"{stem}.rct")
    if "metad" in stem.lower():
        _log.warning(
            "%s: %s.bias grows while hills are added; %s.rbias is what weights need: print it, or "
            "leave the growth out by --start",
            table.path,
            stem,
            stem,
        )
    return f"{stem}.bias", bias
