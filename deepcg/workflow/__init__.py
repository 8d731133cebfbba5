"""The commands: one config and one function each, which other programs may call, too.

=============== ==================================================================================
file            what is in it
=============== ==================================================================================
simulate        all-atom trajectories of water and of alanine dipeptide
label/          instantaneous forces of frames, and mean forces of restrained dynamics
dataset/        from trajectories to coordinates and forces of beads or collective variables
fit/            force matching: a potential of mean force from these
sample          Langevin dynamics on a fitted model
compress        tables in place of embedding nets
compare         structure of samples against the atomistic trajectory
fes/            free-energy surfaces, their differences and errors
fit_errors      errors of a model's structure that include the fit
members         U of the members of an ensemble at its samples: the fit's part of errors
variance        the model deviation of an ensemble: where it knows the free energy
learn/          active learning where it does not
info            what is in files and run folders
=============== ==================================================================================

A function takes its config, a `deepcg.runtime.progress.Progress` and a function that tells lines of
text; it writes files and returns what they hold. The data wing (`mapping`, `forces`, `atomistic`)
and the model wing (`networks`, `potentials`, `training`, `dynamics`, `analysis`) meet here; only
`deepcg.cli` is above.
"""
