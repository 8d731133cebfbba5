"""``deepcg label``: forces for the frames of a trajectory.

==================  ============================================================================
`command`           the command: instantaneous forces, or mean forces
`restrain`          mean forces from short dynamics that hold the coarse coordinates
`restrain_config`   settings of these
==================  ============================================================================

May import ``workflow.dataset`` and the data wing.
"""
