"""Samplers of exp(-U/kT) that know U only as a function of positions."""
