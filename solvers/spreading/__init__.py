"""Spreading adapters over a given number of GPUs."""
