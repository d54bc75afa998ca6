"""Hydra multiruns that resume where they stopped, and their jobs' rows as one comparison."""
