"""DeePMD-kit's PyTorch backend in a process of its own, which does one thing whenever it is asked.

Started by ``deepmd_peer.py`` with the Python of an environment that has DeePMD-kit. Standard input:
a task as a pickle of plain values and arrays, then a byte for each thing to do; standard output:
what came of the task as a pickle, then a byte for each thing done.
"""

from __future__ import annotations

import pickle
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

warnings.simplefilter("ignore")  # what the import of another package says is its own affair
import deepmd.env  # noqa: E402

OPERATORS = deepmd.env.GLOBAL_CONFIG["pt_version"] == torch.__version__.partition("+")[0]
"""DeePMD-kit's own operators load with the PyTorch that they are built for; se_e2_a needs none."""
if not OPERATORS:
    deepmd.env.SHARED_LIB_DIR = Path(tempfile.mkdtemp())

from deepmd.infer import DeepPot  # noqa: E402
from deepmd.pt.loss import EnergyStdLoss  # noqa: E402
from deepmd.pt.model.model import BaseModel  # noqa: E402

Arrays = dict[str, NDArray[Any]]


def main() -> None:
    """Set a task up, tell what came of it, then work on demand."""
    into, out = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what others print must not get among our bytes
    task = pickle.load(into)
    torch.set_num_threads(task["threads"])
    results: Arrays = {}
    work = {"call": _call, "eager": _eager, "step": _step}[task["what"]](task, results)
    work()
    told = {"version": deepmd.__version__, "torch": torch.__version__, "operators": OPERATORS}
    pickle.dump({**told, **results}, out)
    out.flush()
    while into.read(1):
        work()
        out.write(b".")
        out.flush()


def _model(task: dict[str, Any]) -> Any:
    data = task["model"]
    for part in ("descriptor", "fitting"):
        data[part]["precision"] = task["precision"]
    return BaseModel.deserialize(data)


def _call(task: dict[str, Any], results: Arrays) -> Callable[[], object]:
    """Return what evaluates a frozen model as a user does, in Python."""
    path = Path(tempfile.mkdtemp()) / "model.pth"
    torch.jit.save(torch.jit.script(_model(task).eval()), path)
    model = DeepPot(str(path))
    coord, cell = task["coord"].reshape(1, -1), task["cell"].reshape(1, 9)
    kinds = np.zeros(len(task["coord"]), int)

    def call() -> None:
        results["forces"] = model.eval(coord, cell, kinds)[1][0]

    for _ in range(3):  # the compiler of the frozen model looks at the first calls
        call()
    return call


def _eager(task: dict[str, Any], results: Arrays) -> Callable[[], object]:
    """Return what evaluates the same model before it is frozen."""
    model = _model(task).eval()
    coord, kinds, cell = _tensors(task)

    def call() -> None:
        results["forces"] = model(coord, kinds, cell)["force"][0].detach().numpy()

    return call


def _step(task: dict[str, Any], results: Arrays) -> Callable[[], object]:
    """Return a step of force matching: their model, their loss, and Adam."""
    torch.manual_seed(0)
    model = _model(task).train()
    coord, kinds, cell = _tensors(task)
    loss = EnergyStdLoss(1e-3, start_pref_f=1.0, limit_pref_f=1.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-9)  # the weights hardly move
    label = {"force": torch.as_tensor(task["forces"])[None], "find_force": 1.0}
    inputs = {"coord": coord, "atype": kinds, "box": cell}

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        _, value, _ = loss(inputs, model, label, natoms=kinds.shape[1], learning_rate=1e-3)
        value.backward()
        optimizer.step()
        results["loss"] = value.detach().numpy()

    return step


def _tensors(task: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    coord, cell = torch.as_tensor(task["coord"])[None], torch.as_tensor(task["cell"])
    return coord, torch.zeros(coord.shape[:2], dtype=torch.long), cell.reshape(1, 9)


if __name__ == "__main__":
    main()
