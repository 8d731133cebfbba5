"""DeepPot-SE, the smooth edition of Deep Potential with a two-body embedding (se_e2_a).

===================== ===========================================================================
``model.py``          the network ``DeepPotSE``: definition, fast path, input scales
``environment.py``    definition of s, R and the features F = G^T R / n (``reference_features``)
``descriptor.py``     from F to energies: products of its columns, and the fitting nets
``pair_features.py``  F over the pairs within the cutoff, for the CPU, differentiable for training
``pair_loops.py``     compiled loops behind it
``inference.py``      energies and pair gradients at resting weights, for the CPU
``low_rank.py``       few functions of s of which all channels of G are sums
``product_loops.py``  compiled products of F's columns, in double precision
``compressed.py``     the network ``CompressedDeepPotSE``: tables in place of the embedding nets
``tables.py``         these tables: polynomials of degree five
``table_loops.py``    compiled loops over tables
``deepmd_weights.py`` weights of DeePMD-kit, read and written
===================== ===========================================================================
"""
