"""Controllers: what decides a new placement as load changes, one file each."""
