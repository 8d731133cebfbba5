"""Alanine dipeptide: the molecule, its simulation with and without a bias."""
