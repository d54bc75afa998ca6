"""Measured runs: profiles fitted to them, and the twin and the predictors beside them."""
