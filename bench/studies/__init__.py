"""Studies over many placements: Max_pack, Pareto fronts, robustness, bounds put to the test."""
