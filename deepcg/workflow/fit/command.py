"""``deepcg fit``: from a trajectory to a coarse-grained free energy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from deepcg.mapping.collective_variables import is_collective
from deepcg.runtime.locks import folder_locked
from deepcg.runtime.progress import Progress, silent
from deepcg.workflow.dataset.beads import with_map
from deepcg.workflow.fit.beads import Fit, fit_beads
from deepcg.workflow.fit.collective_variables import CVFit, fit_variables
from deepcg.workflow.fit.config import FitConfig, with_preset
from deepcg.workflow.fit.run_folder import as_begun, check_folder


def fit(
    config: FitConfig, progress: Progress = silent, tell: Callable[[str], None] = lambda line: None
) -> Fit | CVFit:
    """Label, map, train and save; return the model and how good it is.

    Parameters
    ----------
    tell
        Called with lines for the user.

    Raises
    ------
    InputError
        Something in the input is not usable: nothing is written to the run folder then but
        forces that were computed for it. Or training failed: the last checkpoint stays, and
        the best weights so far are in ``best.pt``. Or
        another process works in the run folder.
    """
    config = with_preset(as_begun(config))
    with folder_locked(config.output):
        check_folder(config)
        config = with_preset(replace(config, data=with_map(config.trajectory, config.data)))
        if is_collective(config.data.map):
            return fit_variables(config, progress, tell)
        return fit_beads(config, progress, tell)
