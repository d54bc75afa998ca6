"""Hydra launchers that run a sweep's jobs on other processes or machines."""
