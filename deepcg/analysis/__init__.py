"""Comparisons and their figures: structure, free-energy surfaces, uncertainty."""
