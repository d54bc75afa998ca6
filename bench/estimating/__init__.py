"""Serving profiles that nobody measured: kernel tables, a model's shape, and what the published runs say of the rest."""
