"""Instantaneous forces on coarse coordinates, whose conditional mean is the mean force."""
