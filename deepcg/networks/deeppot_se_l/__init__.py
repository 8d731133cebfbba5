"""DeepPot-SE with spherical harmonics: power spectrum and bispectrum of a density expansion.

======================= =========================================================================
``model.py``            the network ``DeepPotSEL``: definition, fast path, input scales
``density.py``          density on splines x real spherical harmonics, and its power spectrum:
                        definitions, and functions for training on the CPU
``density_loops.py``    compiled loops behind it
``bispectrum.py``       the bispectrum, in the same two forms
``bispectrum_loops.py`` compiled loops behind it
``fused.py``            weights laid out for inference in single precision on the CPU
``fused_loops.py``      all of the network and its gradient in one compiled loop
======================= =========================================================================
"""
