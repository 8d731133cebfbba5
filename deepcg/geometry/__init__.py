"""Boxes, periodic differences, internal coordinates and neighbor lists."""
