"""Averages, distances and their errors from plain arrays: NumPy in and out."""
