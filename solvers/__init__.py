"""Placement solvers, one file each, and the oracles that they ask."""
