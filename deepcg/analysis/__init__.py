"""Comparisons and their figures: structure, free-energy surfaces, uncertainty.

================== ================================================================
file               what it is
================== ================================================================
``structure/``     beads of models against those of the microscopic simulation
``surfaces/``      free-energy surfaces (potentials of mean force) and their errors
``uncertainty/``   the model deviation of an ensemble, and what it is worth
``templates/``     pages, and what notebooks show
``axes``           collective variables as axes of figures
``html``           pages, pictures, numbers with errors
``learning_curve`` the figure of a training
``verdicts``       whether two ensembles differ, in words and as numbers
``style``          how all figures look, and the files they become
================== ================================================================

It knows potentials and frames, but neither training nor dynamics.
"""
