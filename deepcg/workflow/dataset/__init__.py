"""Trajectories opened, mapped and labelled for a fit."""
