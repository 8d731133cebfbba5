"""U as a callable with forces: priors and network, stacks, ensembles, model files.

======================== ==========================================================
file                     what it is
======================== ==========================================================
``beads``                U(R) of beads: the one place where networks meet a box
``collective_variables`` U(xi) of a few collective variables
``ensemble``             the mean of several fits, and their model deviation
``stacked``              several U(xi) evaluated at once
``verlet_list``          U along a trajectory, with a list of pairs that lasts
``torch_compile``        U compiled by PyTorch, for CUDA
``model_file``           ``model.pt``
``priors/``              energies that are not learned
======================== ==========================================================

It knows networks and frames, but neither training nor dynamics.
"""
