"""The parts of `exact`: its search, its bounds, its cuts and its answers."""
