"""The learned model of one serving profile: throughput and starvation of a GPU content in microseconds."""

from __future__ import annotations

import json
import math
import zipfile
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from predictors import features as content_places
from predictors.features import FEATURE_NAMES, N_CLASSES, N_FEATURES
from predictors.meanfield import INPUT_NAMES, N_INPUTS, estimated_share, model_inputs, model_inputs_batch, profile_table
from predictors.trees import Forest, forest_value
from twin import UserError
from twin.profile import parse_profile

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from twin import ServingProfile

SCHEMA_VERSION = 1
FORESTS = ("throughput", "starvation", "throughput_tree", "starvation_tree")
# Raw content quantities whose trained range the card states and `in_range` checks.
RANGE_NAMES = ("adapters", "sum_rate", *FEATURE_NAMES[content_places.MAX_LORAS :])


@njit(cache=True, nogil=True)
def interpolate(value: float, xs: NDArray[np.float64], ys: NDArray[np.float64]) -> float:
    """Piecewise linear function through (xs, ys), constant outside; `xs` ascends."""
    last = len(xs) - 1
    if value <= xs[0]:
        return float(ys[0])
    if value >= xs[last]:
        return float(ys[last])
    right = np.searchsorted(xs, value)
    share = (value - xs[right - 1]) / (xs[right] - xs[right - 1])
    return float(ys[right - 1] + share * (ys[right] - ys[right - 1]))


@njit(cache=True, nogil=True)
def throughput_of(  # noqa: PLR0913  # the arrays of a table and of a forest
    content: NDArray[np.float64],
    table: NDArray[np.float64],
    flags: NDArray[np.float64],
    inputs: NDArray[np.float32],
    roots: NDArray[np.int32],
    feature: NDArray[np.int16],
    threshold: NDArray[np.float32],
    right: NDArray[np.int32],
) -> float:
    """Throughput of one content in tokens per second; `inputs` of shape (N_INPUTS,), float32, is scratch."""
    if model_inputs(content, table, flags, inputs) != 0:
        return 0.0
    offered = content[content_places.RATE] * (content[content_places.PROMPT] + content[content_places.REQUESTED])
    correction = math.exp(forest_value(inputs, roots, feature, threshold, right))
    return float(offered * min(1.0, estimated_share(inputs) * correction))


@njit(cache=True, nogil=True)
def starvation_of(  # noqa: PLR0913  # the arrays of a table, of a forest and of its calibration
    content: NDArray[np.float64],
    table: NDArray[np.float64],
    flags: NDArray[np.float64],
    inputs: NDArray[np.float32],
    roots: NDArray[np.int32],
    feature: NDArray[np.int16],
    threshold: NDArray[np.float32],
    right: NDArray[np.int32],
    calibration_x: NDArray[np.float64],
    calibration_y: NDArray[np.float64],
) -> float:
    """Probability that one content starves; `inputs` of shape (N_INPUTS,), float32, is scratch."""
    state = model_inputs(content, table, flags, inputs)
    if state != 0:
        return 0.0 if state == 1 else 1.0
    return interpolate(forest_value(inputs, roots, feature, threshold, right), calibration_x, calibration_y)


@njit(cache=True, nogil=True)
def throughput_batch(  # noqa: PLR0913
    contents: NDArray[np.float64],
    table: NDArray[np.float64],
    flags: NDArray[np.float64],
    roots: NDArray[np.int32],
    feature: NDArray[np.int16],
    threshold: NDArray[np.float32],
    right: NDArray[np.int32],
) -> NDArray[np.float64]:
    """`throughput_of` of each row of `contents`."""
    inputs = np.empty(N_INPUTS, np.float32)
    values = np.empty(len(contents))
    for i in range(len(contents)):
        values[i] = throughput_of(contents[i], table, flags, inputs, roots, feature, threshold, right)
    return values


@njit(cache=True, nogil=True)
def starvation_batch(  # noqa: PLR0913
    contents: NDArray[np.float64],
    table: NDArray[np.float64],
    flags: NDArray[np.float64],
    roots: NDArray[np.int32],
    feature: NDArray[np.int16],
    threshold: NDArray[np.float32],
    right: NDArray[np.int32],
    calibration_x: NDArray[np.float64],
    calibration_y: NDArray[np.float64],
) -> NDArray[np.float64]:
    """`starvation_of` of each row of `contents`."""
    inputs = np.empty(N_INPUTS, np.float32)
    values = np.empty(len(contents))
    for i in range(len(contents)):
        values[i] = starvation_of(
            contents[i], table, flags, inputs, roots, feature, threshold, right, calibration_x, calibration_y
        )
    return values


@dataclass(frozen=True)
class Predictor:
    """Learned throughput and starvation of a GPU content under one serving profile.

    Attributes
    ----------
    profile : ServingProfile
        What the twin was given that the training data come from.
    throughput : Forest
        Logarithm of twin over queueing estimate.
    starvation : Forest
        Score that grows with the probability of starvation; `calibration` makes a probability of it.
    calibration : array of shape (2, n)
        Scores and probabilities, both ascending, interpolated linearly.
    throughput_tree, starvation_tree : Forest
        The same, distilled into one tree each; the leaves of `starvation_tree` are probabilities.
    starvation_threshold, distilled_threshold : float
        A content counts as starved from this probability on. Chosen so that at most the share
        `card["risk"]` of the starved contents of left-out twin data is missed.
    card : dict
        Model card: data, ranges, errors on left-out data, thresholds for other risks.
    """

    profile: ServingProfile
    throughput: Forest
    starvation: Forest
    calibration: NDArray[np.float64]
    throughput_tree: Forest
    starvation_tree: Forest
    starvation_threshold: float
    distilled_threshold: float
    card: dict[str, Any]
    table: NDArray[np.float64] = field(init=False, repr=False, compare=False)
    flags: NDArray[np.float64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        table, flags = profile_table(self.profile)
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "flags", flags)
        for array in (table, flags, self.calibration):
            array.flags.writeable = False

    @property
    def profile_name(self) -> str:
        """Name of the serving profile."""
        return self.profile.name

    def made_for(self, profile: ServingProfile) -> bool:
        """Whether a profile behaves as the one that the training data come from; where they come from may differ."""
        return replace(self.profile, provenance={}) == replace(profile, provenance={})

    def predict_throughput(self, contents: ArrayLike) -> NDArray[np.float64]:
        """Throughput of GPU contents by the full model.

        Parameters
        ----------
        contents : array-like of shape (n, N_FEATURES)
            Rows from `content_features`.

        Returns
        -------
        array of shape (n,)
            Tokens per second, prompt and output; 0 where the engine would not start.
        """
        values: NDArray[np.float64] = throughput_batch(_rows(contents), *self.throughput_arrays)
        return values

    def predict_starvation(self, contents: ArrayLike) -> NDArray[np.float64]:
        """Calibrated probability of starvation by the full model.

        Parameters
        ----------
        contents : array-like of shape (n, N_FEATURES)

        Returns
        -------
        array of shape (n,)
            1 where the engine would not start. Never smaller when an adapter joins.
        """
        values: NDArray[np.float64] = starvation_batch(_rows(contents), *self.starvation_arrays)
        return values

    def distilled_throughput(self, contents: ArrayLike) -> NDArray[np.float64]:
        """`predict_throughput` by the single tree."""
        values: NDArray[np.float64] = throughput_batch(_rows(contents), *self.distilled_throughput_arrays)
        return values

    def distilled_starvation(self, contents: ArrayLike) -> NDArray[np.float64]:
        """`predict_starvation` by the single tree."""
        values: NDArray[np.float64] = starvation_batch(_rows(contents), *self.distilled_starvation_arrays)
        return values

    # What the kernels `throughput_of` and `starvation_of` take after the content and, for those, the scratch array.

    @property
    def throughput_arrays(self) -> tuple[NDArray[Any], ...]:
        """Arrays that `throughput_batch` takes after the contents: profile table and forest."""
        return self.table, self.flags, *self.throughput.arrays

    @property
    def starvation_arrays(self) -> tuple[NDArray[Any], ...]:
        """Arrays that `starvation_batch` takes after the contents: profile table, forest, calibration."""
        return self.table, self.flags, *self.starvation.arrays, self.calibration[0], self.calibration[1]

    @property
    def distilled_throughput_arrays(self) -> tuple[NDArray[Any], ...]:
        """`throughput_arrays` of the single tree."""
        return self.table, self.flags, *self.throughput_tree.arrays

    @property
    def distilled_starvation_arrays(self) -> tuple[NDArray[Any], ...]:
        """`starvation_arrays` of the single tree, whose leaves are probabilities already."""
        return self.table, self.flags, *self.starvation_tree.arrays, UNCALIBRATED, UNCALIBRATED

    def in_range(self, contents: ArrayLike) -> NDArray[np.bool_]:
        """Whether each content lies within what the model was trained on; elsewhere it extrapolates.

        More load than was ever trained on is no extrapolation: it starves.
        """
        rows = range_values(_rows(contents))
        low, high = np.array([self.card["range"][name] for name in RANGE_NAMES]).T
        inside: NDArray[np.bool_] = ((rows >= low - 1e-9) & (rows <= high + 1e-9)).all(axis=1)
        return inside

    def save(self, path: Path) -> None:
        """Write the predictor as a compressed npz without pickles, atomically."""
        header = {
            "schema_version": SCHEMA_VERSION,
            "inputs": INPUT_NAMES,
            "contents": FEATURE_NAMES,
            "starvation_threshold": self.starvation_threshold,
            "distilled_threshold": self.distilled_threshold,
            "card": self.card,
            "profile": json.loads(self.profile.to_json()),
        }
        arrays: dict[str, NDArray[Any]] = {
            f"{name}_{part.name}": getattr(getattr(self, name), part.name)
            for name in FORESTS
            for part in fields(Forest)
        }
        arrays["calibration"] = self.calibration
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # its stub takes the keywords for allow_pickle
        temporary.replace(path)


UNCALIBRATED = np.array([0.0, 1.0])
UNCALIBRATED.flags.writeable = False


def range_values(contents: NDArray[np.float64]) -> NDArray[np.float64]:
    """The quantities of `RANGE_NAMES`, shape (n, len(RANGE_NAMES)), of contents."""
    return np.column_stack(
        [
            contents[:, :N_CLASSES].sum(axis=1),
            contents[:, content_places.RATE],
            contents[:, content_places.MAX_LORAS :],
        ]
    )


def inputs_of(
    predictor_table: tuple[NDArray[np.float64], NDArray[np.float64]], contents: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What the trees split on, shape (n, N_INPUTS), and the state that `model_inputs` returns, shape (n,)."""
    rows = _rows(contents)
    inputs = np.zeros((len(rows), N_INPUTS), np.float32)
    state = np.zeros(len(rows), np.int64)
    model_inputs_batch(rows, *predictor_table, inputs, state)
    return inputs, state


def _rows(contents: ArrayLike) -> NDArray[np.float64]:
    rows = np.ascontiguousarray(contents, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != N_FEATURES:
        msg = f"contents have shape {rows.shape}; (n, {N_FEATURES}) is needed"
        raise ValueError(msg)
    return rows


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
        if not Path(name).is_file():
            raise UserError(f"predictor={name}: no such file")
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
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays["header"].tobytes())
        _check_release(path, header)
        return Predictor(
            profile=parse_profile(json.dumps(header["profile"]), str(path)),
            calibration=_calibration(arrays["calibration"]),
            starvation_threshold=float(header["starvation_threshold"]),
            distilled_threshold=float(header["distilled_threshold"]),
            card=header["card"],
            **{name: _forest(name, arrays) for name in FORESTS},
        )
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a predictor file ({error})") from None


def _check_release(path: Path, header: dict[str, Any]) -> None:
    here = {"schema_version": SCHEMA_VERSION, "inputs": list(INPUT_NAMES), "contents": list(FEATURE_NAMES)}
    differing = [key for key, value in here.items() if header[key] != value]
    if differing:
        raise UserError(
            f"{path}: a predictor of another release (its {' and '.join(differing)} differ); "
            "train it again with python -m bench.train"
        )


def _calibration(table: NDArray[np.float64]) -> NDArray[np.float64]:
    table = np.ascontiguousarray(table, np.float64)
    if table.ndim != 2 or len(table) != 2 or not np.all(np.diff(table[0]) > 0) or not np.all(np.diff(table[1]) >= 0):
        raise ValueError("calibration must ascend")
    return table


def _forest(name: str, arrays: dict[str, NDArray[Any]]) -> Forest:
    """A forest that is safe to walk: compiled code does not check its steps, so every node is checked here."""
    parts = {part.name: arrays[f"{name}_{part.name}"] for part in fields(Forest)}
    forest = Forest(
        parts["roots"].astype(np.int32),
        parts["feature"].astype(np.int16),
        parts["threshold"].astype(np.float32),
        parts["right"].astype(np.int32),
    )
    n_nodes = len(forest.feature)
    node = np.flatnonzero(forest.feature >= 0)
    right = forest.right[node]
    if (
        any(array.ndim != 1 for array in forest.arrays)
        or not len(forest.threshold) == len(forest.right) == n_nodes
        or not forest.n_trees
        or np.any((forest.roots < 0) | (forest.roots >= n_nodes))
        or np.any(forest.feature >= N_INPUTS)
        # Children stand behind their parent, so a walk ends.
        or np.any((right <= node) | (right >= n_nodes) | (node + 1 >= n_nodes))
        or not np.all(np.isfinite(forest.threshold))
    ):
        raise ValueError(f"the arrays of {name} are no trees")
    return forest
