"""Placements mended on the twin: checks of every GPU, and exchanges of adapters between GPUs."""
