"""DeepPot-SE with spherical harmonics: power spectrum and bispectrum of a density expansion."""
