"""The shipped predictors, one file for each shipped serving profile, made by `python -m bench.train`."""
