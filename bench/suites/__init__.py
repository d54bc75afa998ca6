"""The workload suite: instances with a seed each, a diverse benchmark tier, and the best GPU counts known."""

from bench.suites.instance import Instance, read_instance
from bench.suites.library import TIERS, load_suite

__all__ = ["TIERS", "Instance", "load_suite", "read_instance"]
