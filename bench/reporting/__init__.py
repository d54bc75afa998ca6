"""The HTML report of a comparison: one file for each part of it."""
