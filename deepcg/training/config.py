"""How to train: the settings, and the rate of learning that follows from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from deepcg.compute.matmul_precision import EXACT, MATMUL
from deepcg.runtime.errors import InputError, pick

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": partial(torch.optim.Adam, fused=True),
    "adamw": partial(torch.optim.AdamW, fused=True),
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
}

BATCH, MOLECULE_BATCH = 8, 32
"""Frames in a step where the user does not say: of a liquid, and of one molecule."""

RATE = 5e-3
"""The first rate of learning of networks as wide as they are by default."""

WEIGHTINGS = ("auto", "even", "noise")


class TrainingError(InputError):
    """Training cannot go on; what was saved before stays valid."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How to train.

    Parameters
    ----------
    steps
        Number of optimizer steps.
    batch_size
        Frames in a step; by default 8, or 32 of one molecule, or 512 of collective variables.
    learning_rate, final_ratio
        The rate of learning falls exponentially, to ``final_ratio`` times the first, which is by
        default 0.005, or 0.02 of collective variables, and less for layers wider than those by
        default, in proportion.
    warmup
        Part of the steps in which the rate of learning rises from nothing.
    optimizer
        Kind of optimizer: adam, adamw, nadam or radam.
    clip
        Largest norm of the gradient of (mean square error / variance of the forces).
    ema
        Memory of the exponential moving average of the weights, per step.
    validations
        How many times the validation frames are evaluated, and a checkpoint written.
    patience
        Stop after so many validations without a better one; 0 never stops early.
    seed
        Seed of the order of frames, and of the weights that a fit starts from.
    weighting
        How much errors of single components count: even, noise (by the inverse covariance of the
        noise on the beads of a molecule) or auto: noise for one molecule without a box.
    matmul
        Precision of products of matrices in the steps: highest (float32), high (TF32 on CUDA) or
        medium (bfloat16 where the device multiplies it faster); validation is in highest.
    """

    steps: int = 6000
    batch_size: int | None = None
    learning_rate: float | None = None
    final_ratio: float = 1e-3
    warmup: float = 0.02
    optimizer: str = "adam"
    clip: float = 10.0
    ema: float = 0.999
    validations: int = 40
    patience: int = 0
    seed: int = 0
    weighting: str = "auto"
    matmul: str = EXACT

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "learning_rate", "final_ratio", "clip", "validations"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value}: it must be positive")
        for name in ("ema", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(
                    f"{name} is {getattr(self, name)}: choose at least 0 and less than 1"
                )
        if self.patience < 0:
            raise InputError(f"patience is {self.patience}: choose 0 (never stop early) or more")
        pick(OPTIMIZERS, self.optimizer, "optimizer")
        pick(dict.fromkeys(WEIGHTINGS), self.weighting, "weighting")
        pick(dict.fromkeys(MATMUL), self.matmul, "precision of --matmul")


def has_settings(saved: dict[str, Any], config: TrainingConfig) -> bool:
    """Return whether a checkpoint is of these settings.

    Of older ones all errors count alike, products are exact, and rates do not rise first.
    """
    return {"weighting": "even", "matmul": EXACT, "warmup": 0.0, **saved} == asdict(config)


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Return the learning rate of a step; the config's, but for what has fallen, after the warmup.

    Adam's first steps are of full length whatever the gradient: early ones would go far astray.
    """
    first = RATE if config.learning_rate is None else config.learning_rate
    rising = min(1.0, step / (config.warmup * config.steps)) if config.warmup else 1.0
    rate: float = rising * first * config.final_ratio ** (step / config.steps)
    return rate


def rate_for(widths: object, default_widths: Sequence[int], rate: float = RATE) -> float:
    """Return the first rate of learning for layers of these widths; ``rate`` is the default's.

    A step of Adam changes every weight by about the rate, so that what a layer returns changes in
    proportion to the number of its inputs: the rate falls in proportion to the width (Yang et al.,
    arXiv:2203.03466). Narrower layers have that of the default; of widths that are no list of whole
    numbers the network itself will tell.
    """
    given = widths if isinstance(widths, list | tuple) else ()
    widest = max((w for w in given if isinstance(w, int)), default=1)
    return rate * min(1.0, max(default_widths) / max(widest, 1))
