"""Boxes, periodic differences, distances and angles, and who is near whom.

========================  ======================================================================
`box`                     boxes in reduced form, their heights, minimum images
`periodic`                differences of coordinates with periods
`internal_coordinates`    distances, angles, dihedral angles, signed volumes
`farthest_points`         a choice of points that lie far from each other
`neighbor_list`           neighbor lists: minimum-image convention, on any device
`cell_list`               the same in compiled loops on the CPU, linear in the number of beads
========================  ======================================================================

May import ``compute`` and ``runtime``.
"""
