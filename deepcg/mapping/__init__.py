"""From atoms to coarse coordinates: beads, or collective variables.

========================  ======================================================================
`beads`                   mappings of positions onto beads, and their registry `MAPPINGS`
`collective_variables`    coordinates that are functions of a few atoms, and their registries
`bead_types`              atoms that chemistry cannot tell apart
`chirality`               maps that hide the handedness of a molecule
========================  ======================================================================

May import ``trajectory``, ``geometry`` and ``runtime``.
"""
