"""results/README.md says of each folder from which version it is, and whether the code behind its figures has changed since."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "results_versions.py"
_spec = importlib.util.spec_from_file_location("results_versions", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
versions = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(versions)
KEPT = json.loads(versions.KEPT.read_text())


def test_every_folder_of_results_says_what_it_was_made_from() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "results"],  # noqa: S607  # whichever git there is
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    folders = {path.split("/")[1] for path in listed.split() if path.count("/") > 1}
    if not folders:  # No repository, as in an archive of the source.
        folders = {path.name for path in (ROOT / "results").iterdir() if path.is_dir()} - {"runs"}
    assert folders == set(KEPT) == set(versions.DECIDING)
    assert all(set(made) == {"version", "date", "code"} and made["version"] for made in KEPT.values())


def test_what_has_changed_since_is_said() -> None:
    """After a change to deciding code: python docs/results_versions.py, or make the folder anew and say made=FOLDER."""
    page = versions.PAGE.read_text(encoding="utf-8")
    assert versions.with_table(page, KEPT) == page


@pytest.mark.parametrize("folder", [folder for folder, modules in versions.DECIDING.items() if modules])
def test_another_hash_is_found(folder: str) -> None:
    today = {"version": "x", "date": "2026-01-01", "code": versions.code_of(folder)}
    assert not versions.changed_since(folder, today)
    assert versions.changed_since(folder, today | {"code": ""})
    assert versions.changed_since(folder, today | {"code": "0" * 12})
    page = "<!-- versions -->\n<!-- end of versions -->"
    page = versions.with_table(page.replace("\n", "\n\n"), {folder: today | {"code": "0" * 12}})
    assert f"| `{folder}/` | x | 2026-01-01 | has changed since |" in page
