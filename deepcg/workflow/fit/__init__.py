"""``deepcg fit``: from a trajectory to a coarse-grained free energy.

========================  ===========================================================
``command``               `fit`: what the command does, for any coordinates
``config``                `FitConfig`: its settings, and those of each kind of fit
``beads``                 a fit of beads: mapped, trained, judged and written
``collective_variables``  a fit of U(xi), its error and its figures
``architecture``          the untrained potential of beads: cutoff, sizes, scales
``prior``                 the energy that the network of beads need not learn
``reference``             what simple models leave of the forces, and what is hidden
``run_folder``            what a run folder holds: training, results, start frames
``vouched_files``         files outside of it that its settings may name
========================  ===========================================================

It may import all rooms below ``workflow``, and ``workflow.dataset``.
"""
