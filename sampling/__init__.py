"""Samplers of exp(-U/kT) that know U only as a function of positions.

================ ===================================================================================
state            what a sampler carries from step to step, and how it begins
run              the loop over steps
langevin         Langevin dynamics with inertia: BAOAB
overdamped       Langevin dynamics without inertia
stability        when a chain counts as blown up
reflection       chains kept where a measure is below a limit
replica_exchange replica exchange in temperature
bias             forces with a bias on coordinates
metadynamics     well-tempered metadynamics of many chains
umbrella         harmonic windows
spline           energies on a grid as B-splines
method           what a method remembers beside the chains
checkpoint       all that a run needs to go on bit for bit
================ ===================================================================================
"""

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
