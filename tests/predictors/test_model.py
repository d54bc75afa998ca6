"""A predictor as an object and as a file: it comes back as it went, and a bad file is told, never walked."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from predictors import Predictor, content_features, load_predictor, save_predictor, shipped_predictors
from predictors.design import content_generator, draw_content
from predictors.features import N_FEATURES, PROMPT, RATE, REQUESTED
from predictors.kernels import feasible_load_of, latency_of, starvation_of, throughput_of
from predictors.meanfield import N_INPUTS, profile_table
from predictors.model import TARGETS
from twin import Lengths, UserError, load_profile, shipped_profiles

Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return load_predictor(shipped_predictors()[0])


@pytest.fixture(scope="module")
def contents(predictor: Predictor) -> NDArray[np.float64]:
    table = profile_table(predictor.profile)
    drawn = [draw_content(content_generator(99, index), predictor.profile, table) for index in range(60)]
    return np.stack([content.features() for content in drawn])


def test_every_shipped_profile_of_a_gpu_has_a_predictor_that_was_trained_on_it() -> None:
    # The tiny model on a CPU is there to check placements on real servers, and the twin is fast enough for it.
    assert shipped_predictors() == [name for name in shipped_profiles() if not name.endswith("/cpu")]
    for name in shipped_predictors():
        assert load_predictor(name).made_for(load_profile(name)), f"{name}: make models"


def test_shipped_predictors_are_small() -> None:
    for name in shipped_predictors():
        path = Path("predictors/models") / f"{name.replace('/', '__')}.npz"
        assert path.stat().st_size < 2 * 2**20
        assert all(
            (tree := getattr(load_predictor(name), f"{target}_tree")).n_trees == 1 and tree.n_leaves <= 256
            for target in TARGETS
        )


def test_a_file_holds_all_of_a_predictor(predictor: Predictor, contents: NDArray[np.float64], tmp_path: Path) -> None:
    path = tmp_path / "copy.npz"
    save_predictor(predictor, path)
    copy = load_predictor(path)
    for answers in ("predict_throughput", "predict_starvation", "distilled_throughput", "distilled_starvation"):
        np.testing.assert_array_equal(getattr(copy, answers)(contents), getattr(predictor, answers)(contents))
    for answers in ("predict_itl_ms", "predict_ttft_ms", "predict_feasible_load"):
        for distilled in (False, True):
            np.testing.assert_array_equal(
                getattr(copy, answers)(contents, distilled=distilled),
                getattr(predictor, answers)(contents, distilled=distilled),
            )
    assert copy.card == predictor.card
    assert copy.starvation_threshold == predictor.starvation_threshold
    assert copy.made_for(predictor.profile)
    again = tmp_path / "again.npz"
    save_predictor(copy, again)
    assert again.read_bytes() == path.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again.npz", "copy.npz"]


def test_one_content_in_compiled_code_is_a_batch_of_one(predictor: Predictor, contents: NDArray[np.float64]) -> None:
    scratch = np.empty(N_INPUTS, np.float32)
    table, flags, *forest = predictor.throughput_arrays
    single = [throughput_of(content, table, flags, scratch, *forest) for content in contents]
    np.testing.assert_array_equal(predictor.predict_throughput(contents), single)
    table, flags, *forest = predictor.distilled_starvation_arrays
    single = [starvation_of(content, table, flags, scratch, *forest) for content in contents]
    np.testing.assert_array_equal(predictor.distilled_starvation(contents), single)


def test_latency_and_feasible_load_in_compiled_code_are_the_same(
    predictor: Predictor, contents: NDArray[np.float64]
) -> None:
    scratch = np.empty(N_INPUTS, np.float32)
    for forest, answers, kernel in (
        (predictor.itl, predictor.predict_itl_ms, latency_of),
        (predictor.ttft, predictor.predict_ttft_ms, latency_of),
        (predictor.feasible_load, predictor.predict_feasible_load, feasible_load_of),
    ):
        single = [kernel(row, predictor.table, predictor.flags, scratch, *forest.arrays) for row in contents]
        np.testing.assert_array_equal(answers(contents), single)


def test_the_operator_chooses_the_risk(predictor: Predictor) -> None:
    thresholds = [predictor.at_risk(risk).starvation_threshold for risk in (0.001, 0.003, 0.01, 0.2)]
    assert thresholds == sorted(thresholds)
    assert thresholds[0] < thresholds[-1]
    assert predictor.at_risk(0.01).starvation_threshold == pytest.approx(predictor.card["thresholds"]["0.01"])
    assert predictor.at_risk(0.05).card["risk"] == 0.05
    with pytest.raises(UserError, match=r"risk=0\.5"):
        predictor.at_risk(0.5)


def test_answers_stay_within_what_is_possible(predictor: Predictor, contents: NDArray[np.float64]) -> None:
    offered = contents[:, RATE] * (contents[:, PROMPT] + contents[:, REQUESTED])
    for throughput in (predictor.predict_throughput(contents), predictor.distilled_throughput(contents)):
        assert np.all((throughput >= 0) & (throughput <= offered * (1 + 1e-12)))
    for probability in (predictor.predict_starvation(contents), predictor.distilled_starvation(contents)):
        assert np.all((probability >= 0) & (probability <= 1))


def test_nothing_asked_is_served_and_a_memory_error_is_not(predictor: Predictor) -> None:
    idle = content_features([8], [0.0], 8, Lengths())
    broken = content_features([8], [0.1], 100_000, Lengths())
    np.testing.assert_array_equal(predictor.predict_starvation([idle, broken]), [0.0, 1.0])
    np.testing.assert_array_equal(predictor.distilled_starvation([idle, broken]), [0.0, 1.0])
    np.testing.assert_array_equal(predictor.predict_throughput([idle, broken]), [0.0, 0.0])
    np.testing.assert_array_equal(predictor.predict_feasible_load([idle, broken]), [np.inf, 0.0])
    assert np.isnan(predictor.predict_itl_ms([idle, broken])).all()


def test_a_content_outside_the_training_range_is_told(predictor: Predictor) -> None:
    inside = content_features(np.full(64, 8), np.full(64, 0.1), 32, Lengths())
    crowd = content_features(np.full(5000, 8), np.full(5000, 0.1), 32, Lengths())
    long_window = content_features(np.full(64, 8), np.full(64, 0.1), 32, Lengths(), window_s=86_400.0)
    assert predictor.in_range([inside, crowd, long_window]).tolist() == [True, False, False]


def test_contents_of_another_shape_are_refused(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match=str(N_FEATURES)):
        predictor.predict_starvation(np.zeros((2, N_FEATURES - 1)))


def test_arrays_are_read_only(predictor: Predictor) -> None:
    for array in (*predictor.throughput.arrays, predictor.table, predictor.flags, predictor.calibration):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


# --- files that are wrong


def change_header(**changes: object) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        header = {**json.loads(arrays["header"].tobytes()), **changes}
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)

    return change


def change_array(name: str, place: int, value: float) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name][place] = value

    return change


def drop(name: str) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        del arrays[name]

    return change


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (change_header(schema_version=0), "schema_version"),
        (change_header(inputs=["load"]), "inputs"),
        (change_header(profile={}), "schema_version"),
        (drop("header"), "not a predictor file"),
        (drop("starvation_right"), "not a predictor file"),
        # A tree that runs in a circle, out of its arrays, or asks for an input that there is not.
        (change_array("starvation_right", 0, 0), "no trees"),
        (change_array("starvation_right", 0, 10**6), "no trees"),
        (change_array("throughput_feature", 0, N_INPUTS), "no trees"),
        (change_array("throughput_feature", -1, 0), "no trees"),
        (change_array("throughput_tree_roots", 0, -1), "no trees"),
        (change_array("starvation_tree_threshold", 0, np.nan), "no trees"),
    ],
    ids=[
        "release",
        "inputs",
        "profile",
        "no header",
        "no nodes",
        "circle",
        "out of the arrays",
        "unknown input",
        "last node splits",
        "root before the first",
        "not a number",
    ],
)
def test_a_spoilt_file_is_told_in_one_line(
    predictor: Predictor, tmp_path: Path, spoil: Callable[[Arrays], None], told: str
) -> None:
    path = tmp_path / "spoilt.npz"
    save_predictor(predictor, path)
    with np.load(path) as file:
        arrays = dict(file)
    spoil(arrays)
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=told) as error:
        load_predictor(path)
    assert "\n" not in str(error.value)


def test_a_file_with_a_pickle_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "pickle.npz"
    np.savez(path, header=np.array([print], dtype=object))
    with pytest.raises(UserError, match="not a predictor file"):
        load_predictor(path)


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    path = tmp_path / "text.npz"
    path.write_text("not an archive")
    with pytest.raises(UserError, match="not a predictor file"):
        load_predictor(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_predictor(tmp_path / "missing.npz")


def test_an_unknown_name_lists_what_is_shipped() -> None:
    with pytest.raises(UserError, match=shipped_predictors()[0]):
        load_predictor("llama-13b")


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(2147483648, 2147483648)", "(10,)", "(0,)"])
def test_a_header_that_promises_more_or_less_than_there_is_is_refused_before_it_is_read(
    shape: str, tmp_path: Path
) -> None:
    """NumPy allocates by the header."""
    with resources.as_file(resources.files("predictors") / "models") as models:
        source = min(models.glob("*.npz"))
    path = tmp_path / "huge.npz"
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(8)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, data if name == "calibration.npy" else old.read(name))
    with pytest.raises(
        UserError, match=r"huge.npz: not a predictor file \(calibration.npy says [0-9]+ bytes and holds 8\)"
    ):
        load_predictor(path)


def test_arrays_of_python_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "objects.npz"
    np.savez(path, header=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="holds Python objects"):
        load_predictor(path)
