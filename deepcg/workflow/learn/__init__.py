"""``deepcg learn``: active learning where the members of an ensemble disagree.

==================== =============================================================================
file                 what is in it
==================== =============================================================================
command              `learn`: checks, then rounds
config               its settings
rounds               explore, ask, train, write: what is the same for all coordinates
collective_variables rounds on collective variables, with walkers on the mean surface
beads                rounds on beads, with replicas of the mean potential
exploration          reinforced dynamics: walkers that look for large model deviation
acquisition          which of what they find becomes a query, and stored frames as an oracle
restrained_oracle    restrained dynamics as an oracle
figures              what was asked for, and how much is left unknown
==================== =============================================================================

It imports all below `deepcg.workflow`, and of that `dataset`, `fit`, `label` and `sample`.
"""
