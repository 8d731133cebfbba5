"""Force matching: how weights are found that explain instantaneous forces, and how well they do.

=====================  ==============================================================
``config``             `TrainingConfig`: how to train; the learning rate of a step
``samples``            frames ready for training, their batches, parts and weights
``loss``               the force-matching (MS-CG) loss of a potential
``least_squares``      weights of networks that are linear in them, from normal equations
``trainer``            the one loop of training: members, checkpoints, divergence
``convergence``        whether a training gets anywhere, against a simple model
``stacked``            several fits of collective variables at once, in that loop
``members``            ensembles: seeds, resampled frames, weights to begin with
``noise_weighting``    heteroscedastic noise: forces weighted by its covariance
``noise_floor``        the irreducible noise, which no model explains
``quality``            what part of the force a model explains, in words and numbers
=====================  ==============================================================

It may import ``potentials``, ``networks``, ``trajectory``, ``geometry``, ``compute``, ``runtime``
and ``free_energy``: neither where forces come from (``forces``, ``atomistic``) nor what is done
with a model (``dynamics``, ``analysis``).
"""
