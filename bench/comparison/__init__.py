"""The comparison: cells, their execution in workers, scoring on the twin, rows and their cache."""
