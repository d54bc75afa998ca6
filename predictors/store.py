"""Predictors as files: compressed npz without pickles, every array checked before compiled code walks it."""

from __future__ import annotations

import json
import math
import zipfile
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from predictors.features import FEATURE_NAMES
from predictors.meanfield import INPUT_NAMES, N_INPUTS, N_STARVATION_INPUTS
from predictors.model import FORESTS, Predictor
from predictors.stored_parts import forest_arrays, levels_as_arrays, levels_of, read_calibration, read_forest
from twin import UserError
from twin.files import written
from twin.inputs import filled_size
from twin.profile_files import parse_profile

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA_VERSION = 2

# The shipped ones take 2 MB.
_MOST_BYTES = 2**30
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def save_predictor(predictor: Predictor, path: Path) -> None:
    """Write a predictor, atomically.

    Parameters
    ----------
    predictor : Predictor
    path : Path
        With the ending `.npz`.
    """
    header = {
        "schema_version": SCHEMA_VERSION,
        "inputs": INPUT_NAMES[:N_STARVATION_INPUTS],
        "contents": FEATURE_NAMES,
        "starvation_threshold": predictor.starvation_threshold,
        "distilled_threshold": predictor.distilled_threshold,
        "card": predictor.card,
        "profile": json.loads(predictor.profile.to_json()),
    }
    arrays: dict[str, NDArray[Any]] = {}
    for name in FORESTS:
        arrays |= forest_arrays(name, getattr(predictor, name))
    arrays["calibration"] = predictor.calibration
    if predictor.levels is not None:
        header["levels"], of_levels = levels_as_arrays(predictor.levels)
        arrays.update(of_levels)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with written(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # its stub takes the keywords for allow_pickle


def shipped_predictors() -> list[str]:
    """Names of the profiles that a predictor is shipped for, such as `llama-3.1-8b/h100-64gb`."""
    folder = resources.files("predictors") / "models"
    return sorted(
        entry.name.removesuffix(".npz").replace("__", "/") for entry in folder.iterdir() if entry.name.endswith(".npz")
    )


def load_predictor(name_or_path: str | Path) -> Predictor:
    """A shipped predictor by its profile's name, or one from an npz file.

    Raises
    ------
    UserError
        If there is no such predictor or file, or it is not valid.
    """
    name = str(name_or_path)
    if name.endswith(".npz"):
        filled_size(name, f"predictor={name}", "a predictor file (.npz)")
        return _read(Path(name).resolve(), Path(name).stat().st_mtime_ns)
    names = shipped_predictors()
    full = name if name in names else f"{name}/h100-64gb"
    if full not in names:
        raise UserError(
            f"predictor={name}: none is shipped for this profile; shipped are {names}. "
            f"Train one: python -m bench.train profile={name} out=FILE.npz"
        )
    with resources.as_file(resources.files("predictors") / "models" / (full.replace("/", "__") + ".npz")) as path:
        return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _read(path: Path, modified: int) -> Predictor:  # noqa: ARG001  # a file that was written anew is read anew
    try:
        _check_sizes(path)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays["header"].tobytes())
        _check_release(path, header)
        forests: dict[str, Any] = {name: read_forest(name, arrays, N_INPUTS) for name in FORESTS}
        return Predictor(
            profile=parse_profile(json.dumps(header["profile"]), str(path)),
            calibration=read_calibration(arrays["calibration"]),
            starvation_threshold=float(header["starvation_threshold"]),
            distilled_threshold=float(header["distilled_threshold"]),
            card=header["card"],
            levels=levels_of(header["levels"], arrays) if "levels" in header else None,
            **forests,
        )
    except UserError:
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
        RecursionError,
        zipfile.BadZipFile,
    ) as error:
        raise UserError(f"{path}: not a predictor file ({error})") from None


def _check_sizes(path: Path) -> None:
    """Refuse arrays that are not as large as their headers say, before any is read: memory is allocated by the header."""
    total = 0
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as file:
                version = np.lib.format.read_magic(file)
                if version not in _HEADERS:
                    raise ValueError(f"{entry.filename} is of an unknown version of npy")
                shape, _, kind = _HEADERS[version](file)
                header = file.tell()
            if kind.hasobject:
                raise ValueError(f"{entry.filename} holds Python objects")
            size = kind.itemsize * math.prod(shape)
            if header + size != entry.file_size:
                raise ValueError(f"{entry.filename} says {size} bytes and holds {entry.file_size - header}")
            total += size
    if total > _MOST_BYTES:
        raise ValueError(f"its arrays would take {total / 2**30:.3g} GiB, {_MOST_BYTES / 2**30:g} are the most")


def _check_release(path: Path, header: dict[str, Any]) -> None:
    here = {
        "schema_version": SCHEMA_VERSION,
        "inputs": list(INPUT_NAMES[:N_STARVATION_INPUTS]),
        "contents": list(FEATURE_NAMES),
    }
    differing = [key for key, value in here.items() if header[key] != value]
    if differing:
        raise UserError(
            f"{path}: a predictor of another release (its {' and '.join(differing)} differ); "
            "train it again with python -m bench.train"
        )
