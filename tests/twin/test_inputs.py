"""Files that a user names: whatever is no file of the usual kind is refused at once, with its name."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.comparison.rows import read_rows
from bench.vllm.placements import read_placed
from predictors.store import load_predictor
from twin import UserError, load_profile
from twin.inputs import read_text
from twin.traces import read_trace

READERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: read_text(path, "a CSV file"),
    "trace": lambda path: read_trace(str(path)),
    "rows": read_rows,
    "profile": lambda path: load_profile(str(path)),
    "placement": lambda path: read_placed(str(path)),
    "predictor": load_predictor,
}


@pytest.fixture(params=["pipe", "full", "device", "endless", "made up", "folder"])
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A path that is there and holds no file to read."""
    path = tmp_path / "data.json"
    if request.param == "pipe":
        # Nobody will ever write to it: whoever opens it waits for ever.
        os.mkfifo(path)
    elif request.param == "folder":
        path.mkdir()
    else:
        path.symlink_to(
            {"device": "/dev/null", "endless": "/dev/zero", "made up": "/proc/self/mem", "full": "/dev/full"}[
                request.param
            ]
        )
    return path


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_of_the_usual_kind_is_named(reader: str, special: Path) -> None:
    if reader == "predictor":
        special = special.rename(special.with_suffix(".npz"))
    with pytest.raises(UserError) as caught:
        READERS[reader](special)
    line = str(caught.value)
    assert str(special) in line
    assert "\n" not in line
