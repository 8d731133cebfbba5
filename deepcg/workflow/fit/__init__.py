"""``deepcg fit``: from a trajectory to a coarse-grained free energy."""
