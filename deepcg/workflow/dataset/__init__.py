"""Trajectories opened, mapped and labelled for a fit.

========================  ======================================================================
`beads`                   `DataConfig`; from files to beads with forces
`collective_variables`    from files to collective variables with forces
`force_checks`            what is told of forces before anything is fitted to them
`labels`                  from a file of mean forces to either
========================  ======================================================================

May import the data wing: ``forces`` and all below it.
"""
