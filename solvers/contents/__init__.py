"""Contents: what a GPU can hold, by type, demand, pattern and order."""
