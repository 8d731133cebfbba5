"""Frames and topologies, read from any format and refused when wrong."""
