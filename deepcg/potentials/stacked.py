"""Free energies of the same collective variables from several fits, evaluated as one.

Networks this small spend their time on overhead: with their weights stacked and evaluated under
``torch.func.vmap``, several cost about what one does.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from deepcg.potentials.collective_variables import CVPotential


class SurfaceStack(nn.Module):
    """n potentials of one shape, with weights (n, ...) of their own.

    Parameters
    ----------
    members
        The potentials, whose weights are copied. Those that need no gradient, in all alike, are
        held.
    """

    def __init__(self, members: Sequence[CVPotential]) -> None:
        super().__init__()
        first = members[0]
        trained = {name for name, p in first.named_parameters() if p.requires_grad}
        parameters, buffers = stack_module_state(list(members))
        self.n_members = len(members)
        self.names = list(parameters)
        self.weights = nn.ParameterList(
            nn.Parameter(parameters[name].detach().clone(), requires_grad=name in trained)
            for name in self.names
        )
        self.constants = {name: value.detach().clone() for name, value in buffers.items()}
        # hidden in a list: its weights are none of this module's
        self._form = [copy.deepcopy(first).requires_grad_(False)]

    def forward(self, values: Tensor) -> Tensor:
        """Return U (n_members, n), kJ/mol, at values (n, d), or (n_members, n, d) of each."""

        def energy(weights: dict[str, Tensor], constants: dict[str, Tensor], at: Tensor) -> Tensor:
            found: Tensor = functional_call(self._form[0], (weights, constants), (at,))
            return found

        weights = dict(zip(self.names, self.weights, strict=True))
        energies: Tensor = vmap(energy)(weights, self.constants, self._of_each(values))
        return energies

    def forces(self, values: Tensor, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """Return U (n_members, n), kJ/mol, and -dU/dxi (n_members, n, d), kJ/mol per unit.

        With ``create_graph`` both can be differentiated in the weights.
        """
        values = self._of_each(values.detach()).contiguous().requires_grad_()
        with torch.enable_grad():
            energies = self(values)
            (slope,) = torch.autograd.grad(energies.sum(), values, create_graph=create_graph)
        return (energies if create_graph else energies.detach()), -slope

    def members(self) -> list[CVPotential]:
        """Return the potentials, each with its own copy of its weights."""
        found = []
        for k in range(self.n_members):
            member = copy.deepcopy(self._form[0])
            weights = {
                name: w.detach()[k] for name, w in zip(self.names, self.weights, strict=True)
            }
            constants = {name: value[k] for name, value in self.constants.items()}
            member.load_state_dict(weights | constants, strict=False)
            for parameter, stacked in zip(member.parameters(), self.weights, strict=True):
                parameter.requires_grad_(stacked.requires_grad)
            found.append(member)
        return found

    def _of_each(self, values: Tensor) -> Tensor:
        return values if values.ndim == 3 else values.expand(self.n_members, *values.shape)
