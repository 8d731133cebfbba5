"""The network kinds, by the name that a config or the command line gives."""

from collections.abc import Callable, Mapping

from torch import nn

from deepcg.networks.base import Network
from deepcg.networks.deeppot_se.compressed import CompressedDeepPotSE
from deepcg.networks.deeppot_se.model import DeepPotSE
from deepcg.networks.deeppot_se_l.model import DeepPotSEL
from deepcg.networks.pair_spline import PairSpline

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "deeppot-se": DeepPotSE,
    "deeppot-se-l": DeepPotSEL,
    "pair-spline": PairSpline,
}

COMPRESSED: dict[str, Callable[..., nn.Module]] = {"deeppot-se-compressed": CompressedDeepPotSE}
"""What cannot be trained: made of others by ``deepcg compress``."""

SIZES: dict[str, dict[str, Mapping[str, object]]] = {
    "deeppot-se": {
        "small": {"embedding": (16, 32), "axis": 4, "fitting": (64, 64)},
        "deepmd": {"embedding": (25, 50, 100), "axis": 16, "fitting": (240, 240, 240)},
    },
    "deeppot-se-l": {
        "small": {"channels": 16, "axis": 4, "triples": 4, "fitting": (32, 32)},
        "fast": {"channels": 16, "axis": 4, "triples": 0, "fitting": (32, 32)},
        "molecule": {
            "l_max": 2,
            "n_splines": 8,
            "first_knot": 0.1,
            "channels": 8,
            "axis": 4,
            "fitting": (24, 24),
        },
        "deepmd": {"channels": 100, "axis": 16, "triples": 8, "fitting": (240, 240, 240)},
    },
    "pair-spline": {"small": {}, "deepmd": {"n_knots": 60}},
}

__all__ = [
    "COMPRESSED",
    "NETWORKS",
    "SIZES",
    "CompressedDeepPotSE",
    "DeepPotSE",
    "DeepPotSEL",
    "Network",
    "PairSpline",
]
