"""How often a sweep is killed: `make launcher-test ARGS='-k killed --kills=30'`."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=3, help="how often a sweep is killed with each launcher")
