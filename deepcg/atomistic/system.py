"""OpenMM Systems and the platforms that run them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openmm

from deepcg.runtime.errors import InputError, pick


def read_system(path: Path, *, trust: bool = False) -> openmm.System:
    """Return the System of an XML file; with ``trust`` a ``PythonForce`` in it runs its code.

    Raises
    ------
    InputError
        There is no such file; it is not the XML of a System; it holds a ``PythonForce`` and is not
        trusted.
    """
    if not path.is_file():
        raise InputError(f"no System at {path}: give the XML file of an OpenMM System")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not the XML file of an OpenMM System: {error}") from error
    return parse_xml(text, openmm.System, path, trust=trust)


def parse_xml(text: str, kind: type, path: Path, *, trust: bool = False) -> Any:
    """Return the object of OpenMM that a text says, read from ``path``.

    No code in it is run but that of a ``PythonForce``, with ``trust``.

    Raises
    ------
    InputError
        It says no such object, or holds a ``PythonForce`` and is not trusted.
    """
    # Asked of the text, before OpenMM sees it: a PythonForce is unpickled while it is read.
    # A name may hide behind character references, which OpenMM has no other use for.
    if not trust and ("PythonForce" in text or "&#" in text):
        raise InputError(
            f"{path} holds a PythonForce, which would run code from the file as it is read: "
            "remove this force from the System, or give label or fit --trust if you trust its maker"
        )
    try:
        found = openmm.XmlSerializer.deserialize(text)
    except Exception as error:  # the parser raises whatever it stumbles over
        reason = (str(error).splitlines() or ["unreadable"])[0]
        raise InputError(
            f"{path} is not the XML file of an OpenMM {kind.__name__}: {reason}"
        ) from error
    if not isinstance(found, kind):
        raise InputError(f"{path} holds an OpenMM {type(found).__name__}, not a {kind.__name__}")
    return found


def open_platform(name: str = "auto") -> openmm.Platform:
    """Return the platform of this name; for ``auto`` the fastest that works here.

    Raises
    ------
    InputError
        There is no platform of this name, or it does not work on this machine.
    """
    known = {p.getName(): p for p in map(openmm.Platform.getPlatform, range(_n_platforms()))}
    if name != "auto":
        platform = pick(known, name, "platform")
        if reason := _failure(platform):
            raise InputError(f"the platform {name} does not work here ({reason}): try auto or CPU")
        return platform
    fastest_first = sorted(known.values(), key=lambda p: -p.getSpeed())
    return next(platform for platform in fastest_first if not _failure(platform))


def open_context(
    system: openmm.System,
    integrator: openmm.Integrator,
    platform: openmm.Platform,
    threads: int | None = None,
) -> openmm.Context:
    """Return a Context whose forces do not depend on the timing of threads.

    ``threads`` counts CPU threads; ``None`` leaves the choice to OpenMM.
    """
    wanted = {"DeterministicForces": "true", "Precision": "mixed"}
    if threads is not None:
        wanted["Threads"] = str(threads)
    known = platform.getPropertyNames()
    properties = {key: value for key, value in wanted.items() if key in known}
    return openmm.Context(system, integrator, platform, properties)


def seed_of(seed: int, stage: str, number: int = 0) -> int:
    """Return a seed of its own for every stage and number; OpenMM's 0 means any."""
    words = [seed, number, *stage.encode()]
    return int(np.random.SeedSequence(words).generate_state(1)[0] >> 1) or 1


def _n_platforms() -> int:
    n: int = openmm.Platform.getNumPlatforms()
    return n


def _failure(platform: openmm.Platform) -> str:
    """Return why a platform cannot be used, or nothing if it can."""
    system = openmm.System()
    system.addParticle(1.0)
    try:
        openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    except openmm.OpenMMException as error:
        return (str(error).splitlines() or ["unknown reason"])[0]
    return ""
