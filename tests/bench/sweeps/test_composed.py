"""What jobs were composed to is remembered, and only as long as composing again would give the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.__main__ import main
from bench.comparison.rows import read_rows
from tests.bench.sweeps.test_sweep import TINY, without_labels

pytestmark = pytest.mark.usefixtures("_in_tmp_path")

MEMORY = Path("results/runs/cache/composed")
SWEEP = [*TINY, "solver=max_backbone,random", "seed=0,1"]


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The options of every job that is composed."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    asked: list[list[str]] = []
    load = ConfigLoaderImpl.load_sweep_config

    def counting(self: ConfigLoaderImpl, master: object, options: list[str]) -> object:
        # The launcher of Hydra composes what it runs itself.
        if not any(option.startswith("hydra.sweep.subdir=") for option in options):
            asked.append(list(options))
        return load(self, master, options)  # type: ignore[arg-type]

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", counting)
    return asked


def test_a_job_is_composed_once(composed: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    main(SWEEP)
    first = read_rows(Path("sweep.parquet"))
    assert len(composed) == 4
    main([*TINY, "solver=max_backbone,random,hrw", "seed=0,1"])
    assert len(composed) == 6
    assert all("solver=hrw" in options for options in composed[4:])
    assert "sweep: 6 jobs, 4 of them in the cache, 2 missing" in capsys.readouterr().err
    assert without_labels(read_rows(Path("sweep.parquet"))[:4]) == without_labels(first)


def test_it_is_composed_again_where_a_file_of_the_configuration_or_the_code_has_changed(
    composed: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import bench.sweeps.composed as memory

    main(SWEEP)
    monkeypatch.setattr(memory, "source_hash", lambda _: "edited")
    main(SWEEP)
    assert len(composed) == 8
    other = tmp_path / "conf"
    other.mkdir()
    (other / "common.yaml").write_text("seed: 1")
    monkeypatch.setattr(memory, "_configuration_files", lambda: [other / "common.yaml"])
    main(SWEEP)
    assert len(composed) == 12
    (other / "common.yaml").write_text("seed: 2")
    main(SWEEP)
    assert len(composed) == 16
    main(SWEEP)
    assert len(composed) == 16


def test_a_damaged_line_is_composed_again(composed: list[list[str]]) -> None:
    main(SWEEP)
    (file,) = MEMORY.glob("*.jsonl")
    lines = file.read_text(encoding="utf-8").splitlines()
    # A changed seed, a line that was cut off, and one that is no text.
    lines[0] = lines[0].replace('"seed": 0', '"seed": 7')
    lines[1] = lines[1][:50]
    file.write_text("\n".join([*lines, "\0\0 {"]), encoding="utf-8")
    main(SWEEP)
    assert len(composed) == 6
    assert [row.seed for row in read_rows(Path("sweep.parquet"))] == [0, 1, 0, 1]


def test_what_asks_the_environment_is_not_remembered(
    composed: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles = {}
    for name in ("llama-3.1-8b", "qwen-2.5-7b"):
        monkeypatch.setenv("SOME_PROFILE", name)
        main([*TINY, "solver=max_backbone", "seed=0,1", "profile=${oc.env:SOME_PROFILE}"])
        profiles[name] = {row.profile.split("/")[0] for row in read_rows(Path("sweep.parquet"))}
    assert len(composed) == 4
    assert profiles == {name: {name} for name in profiles}


def test_with_a_folder_of_ones_own_configurations_nothing_is_remembered(
    composed: list[list[str]], tmp_path: Path
) -> None:
    (tmp_path / "mine" / "solver").mkdir(parents=True)
    yaml = "# @package solver.mine\n_target_: solvers.max_backbone.MaxBackbone\nadapters_per_slot: {}\n"
    for slots in (1, 2):
        (tmp_path / "mine" / "solver" / "mine.yaml").write_text(yaml.format(slots))
        main([*TINY, f"hydra.searchpath=[file://{tmp_path / 'mine'}]", "solver=mine", "seed=0,1"])
    assert len(composed) == 4
    assert not MEMORY.exists()


def test_rows_of_jobs_that_were_not_run_share_a_file(tmp_path: Path) -> None:
    main([*TINY, "solver=max_backbone", "seed=0,1,2", f"hydra.sweep.dir={tmp_path / 'first'}"])
    main([*TINY, "solver=max_backbone", "seed=range(0,12)", f"hydra.sweep.dir={tmp_path / 'second'}"])
    held = {path.parent.name: len(read_rows(path)) for path in (tmp_path / "second").rglob("rows.parquet")}
    assert held == {"0-2": 3, **{str(number): 1 for number in range(3, 12)}}
    assert [row.seed for row in read_rows(Path("sweep.parquet"))] == list(range(12))


def test_a_fleet_is_remembered_unless_it_stands_in_a_file(composed: list[list[str]]) -> None:
    Path("fleet.yaml").write_text("- {name: big, profile: llama-3.1-8b, price: 2.0}\n", encoding="utf-8")
    for fleet, times in (("fleet=[{name: big, profile: llama-3.1-8b, price: 2.0}]", 1), ("fleet=fleet.yaml", 2)):
        composed.clear()
        for _ in range(2):
            main([*TINY, "solver=random", "seed=0", fleet, "gpus=1"])
        assert len(composed) == times
