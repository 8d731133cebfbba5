"""Coarse-graining by force matching with symmetric deep networks (DeePCG)."""

__version__ = "0.1.0"
