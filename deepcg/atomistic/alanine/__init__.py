"""Alanine dipeptide, with a bias on its dihedral angles or without.

================  ==============================================================================
`config`          the settings
`molecule`        positions from internal coordinates, force fields, solvation
`simulation`      ``deepcg simulate alanine``: walkers, from the start to the files
`recorders`       what is written of every frame
`solute_frames`   frames of the peptide alone, with its forces without the bias
`torsion_bias`    biases on (phi, psi): tables, files, OpenMM forces, hills
`metadynamics`    well-tempered metadynamics of walkers that share their hills
================  ==============================================================================

May import the rest of ``atomistic`` and what that may.
"""
