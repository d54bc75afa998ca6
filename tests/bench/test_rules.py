"""`python -m bench.rules`: a tree that people can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.rules import main
from predictors import load_predictor
from predictors.model import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_every_leaf_is_a_rule(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["predictor=qwen-2.5-7b", f"target={target}"])
    title, *rules = capsys.readouterr().out.splitlines()
    tree = getattr(load_predictor("qwen-2.5-7b"), f"{target}_tree")
    assert f"{tree.n_leaves} leaves" in title
    assert len(rules) == 2 * tree.n_leaves - 2
    assert sum(not rule.endswith(":") for rule in rules) == tree.n_leaves


def test_the_first_levels_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "tree.png"
    main(["target=starvation", "depth=3", f"picture={picture}"])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["tree.png"]
    assert str(picture) in capsys.readouterr().out


@pytest.mark.parametrize("mistake", ["target=speed", "depth=0", "picture=tree.svg", "predictor=nosuch"])
def test_a_mistake_is_one_line(mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([mistake])
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert mistake in line
    assert line.count("\n") == 1
