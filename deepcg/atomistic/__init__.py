"""All-atom runs with OpenMM, and the forces of their frames without a bias.

======================  ========================================================================
`system`                Systems, platforms, Contexts, seeds
`water_box`             where molecules of water start
`water`                 ``deepcg simulate water``
`equilibration`         minimization, volume, temperature
`production`            frames into files, in runs that can be resumed
`labels`                forces computed for the frames of a trajectory
`pressure`              that of a System, frame by frame
`restraints`            springs on coarse coordinates, and the mean force from them
`restrained_dynamics`   dynamics under these springs
`alanine`               ``deepcg simulate alanine``
======================  ========================================================================

May import ``mapping``, ``trajectory``, ``geometry``, ``runtime`` and ``units``; of
``potentials.priors`` which forces have no energy or are a bias.
"""
