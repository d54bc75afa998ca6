"""The solvers there are: classes of this package, their variants in YAML, and those of other packages."""

from pathlib import Path

import pytest

from solvers import registry
from solvers.lora_serve import LoraServe
from solvers.max_pack import MaxPack
from solvers.registry import list_solvers
from solvers.vector_packing import VectorPacking


def test_a_variant_is_its_class_with_the_options_of_its_yaml() -> None:
    found = {entry.name: entry for entry in list_solvers()}
    third = found["lora_serve_third"]
    assert (third.target, third.solver) == ("solvers.lora_serve.LoraServe", LoraServe)
    made = third.make()
    assert isinstance(made, LoraServe)
    assert [made.slots(count) for count in (1, 2, 3, 6, 7)] == [1, 1, 1, 2, 2]
    # A class that YAMLs name is listed by their names alone.
    assert [name for name, entry in found.items() if entry.solver is VectorPacking] == [
        "best_fit_decreasing",
        "first_fit_decreasing",
        "worst_fit_decreasing",
    ]


def test_every_class_of_the_package_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A solver that has no YAML yet is there by its own name, with its defaults."""
    (tmp_path / "filled.yaml").write_text("_target_: solvers.max_pack.MaxPack\norder: decreasing\n", encoding="utf-8")
    monkeypatch.setattr(registry, "SOLVER_YAMLS", tmp_path)
    found = {entry.name: entry for entry in list_solvers() if entry.target.startswith("solvers.")}
    filled = found["filled"].make()
    assert isinstance(filled, MaxPack)
    assert filled.order == "decreasing"
    assert "max_pack" not in found
    assert isinstance(found["lora_serve"].make(), LoraServe)
    assert found["lora_serve"].options == {}


def test_a_yaml_of_no_class_is_listed_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lost.yaml").write_text("_target_: solvers.max_pack.Lost\n", encoding="utf-8")
    monkeypatch.setattr(registry, "SOLVER_YAMLS", tmp_path)
    lost = next(entry for entry in list_solvers() if entry.name == "lost")
    assert lost.solver is None
    assert lost.reason == "solvers.max_pack.Lost: there is no such solver"
    with pytest.raises(ImportError, match="cannot be imported"):
        lost.make()
