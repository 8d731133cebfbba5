"""Networks, from the environments of beads to their energies, by name.

Every network has one definition in plain PyTorch, its ``forward``. What else there is of it gives
the same numbers faster: compiled loops for the CPU, which a network offers by ``fast_path``
(``fast_path.py``), and on CUDA, or where the user asks for it, the definition as
``torch.compile`` makes it (``deepcg.potentials.torch_compile``). Tests tie each to the definition.

===================== =================================== =================================
network               definition                          training on a CPU
===================== =================================== =================================
deeppot-se-l          ``DeepPotSEL.forward``:             ``density``, ``power_spectrum``,
                      ``reference_density``,              ``bispectrum``, on
                      ``reference_power_spectrum``,       ``density_loops.py``,
                      ``reference_bispectrum``            ``bispectrum_loops.py``
deeppot-se            ``DeepPotSE.forward``:              ``pair_features.py``, on
                      ``reference_features``,             ``pair_loops.py``
                      ``energies_of``
deeppot-se-compressed ``CompressedDeepPotSE.forward``:    none: for inference only
                      the same with ``tables.evaluate``
pair-spline           ``PairSpline.forward``:             ``density``, on
                      ``reference_density``               ``density_loops.py``
fitting nets          ``layers.Perceptron.forward``       the definition
===================== =================================== =================================

===================== =================================== =================================
network               inference on a CPU                  tests in ``tests/networks``
===================== =================================== =================================
deeppot-se-l          float32: ``fused.py``, on           ``test_density``,
                      ``fused_loops.py``; float64:        ``test_bispectrum``,
                      autograd of training                ``test_fused_deeppot_se_l``
deeppot-se            ``inference.py``, in few channels   ``test_low_rank``,
                      (``low_rank.py``) or all, on        ``workflow/test_compress``
                      ``pair_loops.py``
deeppot-se-compressed ``compressed.py``, a table, on      ``workflow/test_compress``
                      ``table_loops.py``
pair-spline           autograd of training                ``test_density``
fitting nets          float32: ``fitting_loops.py``;      ``test_fitting``,
                      float64: ``product_loops.py``,      ``test_laws``
                      ``Perceptron.values_and_slopes``
===================== =================================== =================================

All of them: ``test_laws`` (the definition and each fast path obey the physics),
``test_single_precision`` (forces and drift of float32 against the definition in float64),
``test_same_structure`` (what is sampled), ``potentials/test_torch_compile`` (the compiled
definition against the fast path).

Beside the two folders and ``pair_spline.py``: ``base`` (what a network is), ``layers``, ``by_type``
(beads sorted by type), ``fitting`` and ``fitting_loops`` (fitting nets on the CPU), ``fast_path``,
``neighbor_loops`` (how every loop over neighbors begins).

A new kind is one file with an ``nn.Module`` as ``base.Network`` says, and one line in ``NETWORKS``.
"""

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

SIZES: Mapping[str, Mapping[str, Mapping[str, object]]] = {
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
"""Options by the name of a size, beside those that a kind has by default; see ``sizes_of``."""

QUALITY: Mapping[str, Mapping[str, object]] = {"deeppot-se-l": {"l_max": 4, "triples": 8}}
"""Options of ``deepcg fit --quality``: more angular columns, alone and in triples."""


def sizes_of(kind: str) -> dict[str, Mapping[str, object]]:
    """Return the sizes of a kind of network, its options by name; small is always among them."""
    return {"small": {}, **SIZES.get(kind, {})}


__all__ = [
    "COMPRESSED",
    "NETWORKS",
    "QUALITY",
    "SIZES",
    "CompressedDeepPotSE",
    "DeepPotSE",
    "DeepPotSEL",
    "Network",
    "PairSpline",
    "sizes_of",
]
