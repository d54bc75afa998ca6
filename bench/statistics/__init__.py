"""Statistics of a comparison: paired by instance and seed, feasibility first."""
