"""Lay the Python files of a vLLM wheel over the compiled parts of the vLLM that is installed, in a folder for `PYTHONPATH`.

The scheduler is Python alone, so that a release is compared with the twin before a CPU build of it is published:

    python -m tests.conformance.lay_over WHEEL FOLDER
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path


def lay_over(wheel: Path, folder: Path) -> None:
    """Fill a folder, which is made anew, with one importable package of both."""
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        raise SystemExit("no vLLM is installed beside this Python: make vllm")
    installed = Path(spec.origin).parent
    shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        compiled = (".so", ".cubin", ".cu", ".h", ".cuh")
        archive.extractall(folder, [name for name in archive.namelist() if not name.endswith(compiled)])
    for library in installed.rglob("*.so"):
        target = folder / "vllm" / library.relative_to(installed)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(library)


if __name__ == "__main__":
    lay_over(Path(sys.argv[1]), Path(sys.argv[2]))
