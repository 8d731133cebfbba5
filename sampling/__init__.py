"""Samplers of exp(-U/kT) that know U only as a function of positions."""

from sampling.bias import Bias, Biased, Coordinates
from sampling.checkpoint import Checkpoint, load, pack, save, unpack
from sampling.langevin import baoab
from sampling.metadynamics import Metadynamics
from sampling.method import Method
from sampling.overdamped import overdamped
from sampling.reflection import LimitExceeded, ReflectingLimit
from sampling.replica_exchange import ReplicaExchange
from sampling.run import Blowup, run
from sampling.spline import Axis
from sampling.stability import StabilityCheck, finite, thermally_stable
from sampling.state import ForceField, SamplerState, Step, start
from sampling.umbrella import HarmonicBias

INTEGRATORS = {"baoab": baoab, "overdamped": overdamped}

__all__ = [
    "INTEGRATORS",
    "Axis",
    "Bias",
    "Biased",
    "Blowup",
    "Checkpoint",
    "Coordinates",
    "ForceField",
    "HarmonicBias",
    "LimitExceeded",
    "Metadynamics",
    "Method",
    "ReflectingLimit",
    "ReplicaExchange",
    "SamplerState",
    "StabilityCheck",
    "Step",
    "baoab",
    "finite",
    "load",
    "overdamped",
    "pack",
    "run",
    "save",
    "start",
    "thermally_stable",
    "unpack",
]
