"""The KV capacity table."""

from __future__ import annotations

import pytest

from twin import UserError
from twin.calibration import kv_capacity_from_rows


def test_a_pair_that_was_not_measured_lies_between_its_neighbours() -> None:
    kv = kv_capacity_from_rows([(8, 8, 1000), (32, 8, 400), (16, 16, 700)], 2000)
    assert kv.lookup(16, 8) == 800
    assert kv.lookup(20, 8) == 700


def test_beyond_what_started_there_is_nothing() -> None:
    kv = kv_capacity_from_rows([(8, 8, 1000), (16, 8, 0), (32, 16, 500)], 2000)
    assert kv.lookup(16, 8) == 0
    assert kv.lookup(32, 8) == 0
    assert kv.lookup(12, 8) == 0


def test_no_server_that_started_is_an_error() -> None:
    with pytest.raises(UserError, match="no measured server started"):
        kv_capacity_from_rows([(8, 8, 0)], 2000)
