"""The time between the frames of a DCD: its header has a step, and no word for its unit.

CHARMM, NAMD and OpenMM write it in CHARMM's unit of time (AKMA, 48.888 fs), LAMMPS in its own
units: fs in the style real, ps in metal. VMD and MDTraj write 1 whatever the step was.
"""

from __future__ import annotations

AKMA = 0.04888821  # ps
FS = 0.001  # ps
LEAST_FS = 0.05  # LAMMPS: a step in fs is not smaller, one in ps or of Lennard-Jones is
LONGEST = 0.06  # ps: coarse-grained models move by 40 fs, atoms by 4 fs

SURE = ("OPENMM", "NAMD", "MDANALYSIS")
"""Words in the titles of programs that write AKMA units for certain."""

UNTIMED = ("DCD PLUGIN", "CPPTRAJ")
"""Words in the titles of programs that write a constant."""


def frame_time(step: float, every: int, titles: tuple[str, ...]) -> tuple[float | None, str | None]:
    """Return the time from frame to frame in ps, or ``None`` and, where there is one, a reason.

    Parameters
    ----------
    step, every
        The time step of the header, and the number of them between two frames.
    titles
        The titles of the header.
    """
    text = " ".join(titles).upper()
    lammps = "LAMMPS" in text
    if every <= 0 or not step > 0 or any(word in text for word in UNTIMED):
        return None, None
    if lammps and step >= LEAST_FS:
        return every * step * FS, None
    if lammps:
        return None, (
            f"the time step {step:g} of LAMMPS may be in ps (units metal) or without a unit (lj)"
        )
    if every == 1 and step == 1:  # as MDTraj writes
        return None, None
    if step * AKMA <= LONGEST or any(word in text for word in SURE):
        in_fs = step * FS
        if step >= 0.2 and not any(word in text for word in SURE) and not titles_of_charmm(titles):
            return None, (
                f"the time step {step:g} may be in CHARMM's units ({1000 * step * AKMA:.4g} fs) or "
                f"in fs ({every * in_fs:g} ps from frame to frame)"
            )
        return every * step * AKMA, None
    return None, f"the time step {step:g} is too long in CHARMM's units and in no known ones"


def titles_of_charmm(titles: tuple[str, ...]) -> bool:
    """Whether titles begin as those of CHARMM do."""
    return any(title.startswith("*") for title in titles)
