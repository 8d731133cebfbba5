"""Samplers of exp(-U/kT) that know U only as a function of positions."""

from sampling.checkpoint import Checkpoint, load, save
from sampling.langevin import baoab
from sampling.overdamped import overdamped
from sampling.run import Blowup, run
from sampling.soundness import Sound, calm, finite
from sampling.state import ForceField, SamplerState, Step, start

INTEGRATORS = {"baoab": baoab, "overdamped": overdamped}

__all__ = [
    "INTEGRATORS",
    "Blowup",
    "Checkpoint",
    "ForceField",
    "SamplerState",
    "Sound",
    "Step",
    "baoab",
    "calm",
    "finite",
    "load",
    "overdamped",
    "run",
    "save",
    "start",
]
