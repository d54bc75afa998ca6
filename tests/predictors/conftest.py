"""What the tests of the predictors share."""

from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(scope="package", autouse=True)
def _one_thread_for_each_test_process() -> Iterator[None]:
    """Gradient boosting takes all cores, and waits busily for those that other test processes hold."""
    with threadpool_limits(1):
        yield
