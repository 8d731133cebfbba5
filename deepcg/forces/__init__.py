"""Instantaneous forces on coarse coordinates, whose conditional mean is the mean force.

====================  ==========================================================================
`force_map`           linear force maps of beads: least noise, projected
`control_variates`    the noise that rotations of molecules explain, taken out
`rotation_loops`      its compiled loops
`bead_estimators`     the registry of estimators of bead forces
`rigid_motions`       forces on dihedrals, angles and distances by rigid motions
`inverse_gradient`    instantaneous collective forces of any coordinates, with constraints
`cv_estimators`       the registry of these, and their quietest mixture
`hypervirial`         do forces belong to positions, by the hypervirial theorem
`random_forces`       are forces of a thermostat among them
`force_series`        frames with forces of another size, and a start that drifts
`constraints`         which atoms are held together
`mean_force_labels`   mean forces from restrained runs, in a file
====================  ==========================================================================

May import ``atomistic.system``, ``mapping``, ``trajectory``, ``geometry``, ``compute``,
``runtime``, ``units`` and ``free_energy``.
"""
