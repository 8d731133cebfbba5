"""Molecular dynamics on U: Langevin runs of many replicas that resume to the same bytes.

=================== ==============================================================================
file                what is in it
=================== ==============================================================================
config              how replicas move: time step, friction, temperature, lengths
run                 `run_dynamics`: from the start or a checkpoint to the end, and what came of it
enhanced_sampling   umbrella sampling, well-tempered metadynamics, replica exchange for beads
model_deviation     which member of an ensemble moves replicas, and the limit on its model deviation
time_step           the time step that the stiffest motion allows
sampled_temperature whether samples have the temperature that they were asked to have
samples             the files of a run, and reading them again
bias_files          what reweighting needs: the bias, and its values along the samples
blowups             which replica left what the model describes, and which beads
=================== ==============================================================================

It imports `sampling` (integrators and methods, which know a callable and kT alone), and of deepcg
`potentials`, `mapping`, `trajectory`, `runtime` and `units`; not `training`, `forces`,
`atomistic` or `analysis`.
"""
