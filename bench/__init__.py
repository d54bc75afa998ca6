"""The harness: compares placement solvers on the twin, calibrates, trains, reports."""
