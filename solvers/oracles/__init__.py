"""Oracles: whether a GPU serves a content, asked of the twin or of a predictor."""
