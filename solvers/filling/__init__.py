"""Filling GPUs one after the other, to the most that an oracle accepts."""
