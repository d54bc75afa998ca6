"""Fleets of several GPU types: placements of low cost, and bounds on it."""
