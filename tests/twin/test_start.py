"""Importing the twin costs what is asked of it."""

import subprocess
import sys

import pytest

import twin


@pytest.mark.parametrize("name", twin.__all__)
def test_every_name_is_imported_when_asked_for(name: str) -> None:
    found = getattr(twin, name)
    assert name in dir(twin)
    # Constants have no module of their own.
    assert getattr(found, "__module__", "twin").startswith("twin")


def test_what_there_is_not_is_an_error_of_attributes() -> None:
    with pytest.raises(AttributeError, match="no attribute 'simulate_cpu'"):
        _ = twin.simulate_cpu


def test_help_and_mistakes_need_no_compiler() -> None:
    code = "import bench.__main__, sys; print(sorted({'numba', 'scipy', 'pandas', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
