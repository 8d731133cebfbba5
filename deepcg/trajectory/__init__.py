"""Frames and topologies, read from any format and refused when wrong.

==================  ============================================================================
`frames`            `Frames` of sites and `CVFrames` of collective variables
`topology`          `MoleculeGraph`: elements, bonds, molecules; molecules made whole
`topology_file`     topologies as files have them
`elements`          elements from symbols, masses and names, contradictions refused
`element_names`     what names of atoms and residues say
`element_masses`    what masses say, of heavy hydrogens too
`bond_guesses`      bonds from distances, and pairs that leave them open
`bonds`             bonds that a topology lacks, completed or refused
`reader`            which files belong together, whether they agree, and their frames
`consistency`       do trajectory, forces and System belong together
`pdb_writer`        PDB files that keep all bonds
`sanity_checks`     can frames be what they are said to be
`skipped_frames`    frames to leave out, as `--skip-frames` names them
`given_box`         boxes that a file does not tell: named by the user, or offered
`precision`         how finely positions are written
`frame_weights`     statistical weights of frames from files beside a trajectory
`bias_weights`      the same from the COLVAR of a biased run
`formats`           a module for each file format
==================  ============================================================================

May import ``geometry``, ``runtime`` and ``units``.
"""
