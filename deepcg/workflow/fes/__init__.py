"""``deepcg fes``: free-energy surfaces beside one another, their differences and their errors.

=============== ==================================================================================
file            what is in it
=============== ==================================================================================
command         `fes`: surfaces on common bins, distances between them, the report
counting        what numbers of sites count: a run's beads, or atoms
sources         surfaces and frames from run folders, samples, trajectories and files; weights of
                biased samples by MBAR
=============== ==================================================================================

It imports `analysis` and what is below, and of `deepcg.workflow` `dataset` and `fit`.
"""
