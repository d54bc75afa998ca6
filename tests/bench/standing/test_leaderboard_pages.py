"""The leaderboard on a suite of two instances: what is handed in, what is refused, and what the pages say."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import leaderboard, submit
from bench.__main__ import main as bench_main
from bench.comparison.rows import FILE_NAME, Row, read_rows, write_rows
from bench.standing.scoring import Scores, reproduced
from bench.standing.submission import Submission, about_of, mistakes_of, read_submission
from bench.suites.instance import Instance
from bench.suites.library import load_suite, write_benchmark, write_best_known, write_instances
from twin import Placement, UserError

IDS = ["zipf-llama-0008", "zipf-qwen-0016"]
ABOUT = {
    "name": "mine",
    "version": "1.0",
    "authors": ["A group", "<b>Another</b>"],
    "date": "2026-01-31",
    "code": "https://example.org/mine",
    "description": "Hashes, and says so.",
    "hardware": "2 cores",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a suite, a reference of two solvers on both tracks, and rows of a third."""
    root = tmp_path_factory.mktemp("leaderboard")
    instances = load_suite("collection", ids=IDS)
    write_instances(instances, root / "suite")
    write_benchmark(IDS, root / "suite")
    write_best_known({}, root / "suite")
    common = ["suite=benchmark", f"suite.folder={root / 'suite'}", "time_limit_s=20", "draws=0"]
    for track in ("published", "interactive"):
        for solvers, name in (("[dlora,random]", "reference"), ("[hrw]", "rows")):
            bench_main([*common, f"solver={solvers}", f"service={track}", f"suite.results={root / name / track}"])
    (root / "about.json").write_text(json.dumps(ABOUT))
    return root


@pytest.fixture
def instances(made: Path) -> list[Instance]:
    return load_suite("benchmark", made / "suite")


@pytest.fixture
def rows(made: Path) -> list[Row]:
    return [row for track in ("published", "interactive") for row in read_rows(made / "rows" / track / FILE_NAME)]


def handed_in(made: Path, out: Path, *more: str) -> None:
    submit.main(
        [f"rows={made / 'rows'}", f"about={made / 'about.json'}", f"folder={made / 'suite'}", f"out={out}", *more]
    )


def site(made: Path, tmp_path: Path, **options: str) -> list[str]:
    given = {
        "reference": str(made / "reference"), "submissions": str(tmp_path / "submissions"), "folder": str(made / "suite"),
        "out": str(tmp_path / "site"), "scores": str(tmp_path / "scores.json"),
    } | options  # fmt: skip
    return [f"{key}={value}" for key, value in given.items()]


def test_a_submission_is_packed_read_and_shown(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handed_in(made, tmp_path / "submissions" / "mine")
    assert "mine 1.0: 4 rows on published, interactive, each scored again" in capsys.readouterr().out
    kept = read_submission(tmp_path / "submissions" / "mine")
    assert {row.solver_label for row in kept.rows} == {"mine"}
    leaderboard.main(site(made, tmp_path))
    assert "12 rows scored again by the twin, 1 submission" in capsys.readouterr().out
    first = (tmp_path / "site" / "index.html").read_text()
    assert "Hashes, and says so." in first
    # What strangers write is text on the page, never markup.
    assert "<b>Another</b>" not in first
    assert "&lt;b&gt;Another&lt;/b&gt;" in first
    for track in ("published", "interactive"):
        page = (tmp_path / "site" / f"{track}.html").read_text()
        names = re.findall(r'<tr(?: class="first")?><td>\d+</td><th class="name">(.*?)</th>', page)
        assert sorted(names) == ["dlora", "mine", "random"]
        for name in IDS:
            one = (tmp_path / "site" / track / f"{name}.html").read_text()
            gpus = next(row.gpus for row in kept.rows if (row.instance, row.service) == (name, track))
            assert re.search(rf'<th class="name">mine</th><td>(yes|no)</td><td>{gpus}</td>', one)
    # No page points to one that is not there.
    for page_path in (tmp_path / "site").rglob("*.html"):
        for target in re.findall(r'href="([^"]+\.html)"', page_path.read_text()):
            assert (page_path.parent / target).is_file()


def test_what_was_scored_is_not_scored_again(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leaderboard.main(site(made, tmp_path))
    monkeypatch.setattr("bench.standing.scoring.scored_again", None)
    leaderboard.main(site(made, tmp_path))
    assert "8 rows scored again" in capsys.readouterr().out
    with pytest.raises(TypeError):
        leaderboard.main(site(made, tmp_path, scores="null"))


def _fewer_gpus(row: Row) -> Row:
    gpus = row.gpus or 0
    return replace(row, gpus=gpus - 1)


def _another_placement(row: Row) -> Row:
    plans = Placement.from_json(row.placement or "").gpus
    other = Placement(tuple(replace(plan, max_loras=1) for plan in plans))
    return replace(row, placement=other.to_json())


def _an_adapter_lost(row: Row) -> Row:
    plans = json.loads(row.placement or "[]")
    plans[0]["adapters"] = plans[0]["adapters"][1:]
    return replace(row, placement=json.dumps(plans))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_fewer_gpus, "gpus was"),
        (_another_placement, " was .* and is "),
        (_an_adapter_lost, "no placement of this instance"),
        (lambda row: replace(row, ttft_ms=(row.ttft_ms or 0.0) * 0.99), "ttft_ms was"),
        (lambda row: replace(row, placement=None, gpu_results=None), "feasible without a placement"),
    ],
)
def test_a_row_that_does_not_reproduce_is_refused_by_name(
    rows: list[Row], instances: list[Instance], change: Callable[[Row], Row], says: str
) -> None:
    good = next(row for row in rows if row.feasible)
    assert reproduced([good], instances, Scores()) == ([good], [])
    kept, refused = reproduced([change(good)], instances, Scores())
    assert kept == []
    (line,) = refused
    assert line.startswith(f"{good.service}, {good.instance}: hrw: ")
    assert re.search(says, line)


def test_refused_rows_end_the_command_and_stand_on_the_page(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handed_in(made, tmp_path / "submissions" / "mine")
    folder = tmp_path / "submissions" / "mine"
    kept = read_submission(folder)
    first, *rest = kept.rows
    Submission(kept.about, (replace(first, itl_ms=1.0), *rest)).write(folder)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        leaderboard.main(site(made, tmp_path))
    assert stopped.value.code == leaderboard.REFUSED
    assert f"REFUSED {first.service}, {first.instance}: mine: itl_ms was 1.0 and is" in capsys.readouterr().err
    assert "itl_ms was 1.0" in (tmp_path / "site" / f"{first.service}.html").read_text()


def _without_the_first(rows: list[Row]) -> list[Row]:
    return rows[1:]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_without_the_first, "published: 1 of 2 instances are missing, the first is"),
        (lambda rows: [*rows, rows[0]], "is there 2 times"),
        (lambda rows: [replace(rows[0], seed=7), *rows[1:]], "profile or window are not those"),
        (
            lambda rows: [replace(rows[0], duration_s=60.0), *rows[1:]],
            "workload, seed, profile or window are not those",
        ),
        (lambda rows: [replace(row, time_limit_s=61.0) for row in rows], "time limit 61.0 s; it must be 60 s or less"),
        (lambda rows: [replace(rows[0], time_limit_s=1.0), *rows[1:]], "time limits 1.0, 20.0: use one"),
        (lambda rows: [replace(row, reserve=0.1) for row in rows], "placed with reserve=0.1"),
        (lambda rows: [replace(rows[0], solver="other"), *rows[1:]], "the rows are of 2 solvers"),
        (lambda rows: [replace(row, service="batch") for row in rows], "service=batch: tracks are"),
        (lambda rows: [replace(rows[0], instance="mine-only"), *rows[1:]], "mine-only is not in the benchmark tier"),
    ],
)
def test_what_is_against_the_rules_is_said_line_by_line(
    rows: list[Row], instances: list[Instance], change: Callable[[list[Row]], list[Row]], says: str
) -> None:
    assert mistakes_of(rows, instances) == []
    assert any(says in line for line in mistakes_of(change(rows), instances))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("name", "My Solver", "must be small letters"),
        ("name", "../up", "must be small letters"),
        ("version", " ", "version is empty"),
        ("authors", [], "authors must be a list"),
        ("date", "2026-31-01", "must be year-month-day"),
        ("code", "http://example.org", "must be an https address"),
        ("description", "a\u202eb", "must be printable"),
        ("description", "x" * 601, "600 at most"),
    ],
)
def test_who_hands_in_says_so(key: str, value: Any, says: str) -> None:  # noqa: ANN401  # JSON
    assert about_of(ABOUT, "x").mistakes() == []
    assert any(says in line for line in about_of(ABOUT | {key: value}, "x").mistakes())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "must be an object with the keys name"),
        (ABOUT | {"autor": "x"}, "unknown key 'autor'"),
        ({key: value for key, value in ABOUT.items() if key != "date"}, "date must be a text"),
        (ABOUT | {"authors": "me"}, "authors must be a list of names"),
        (ABOUT | {"version": 1.0}, "version must be a text"),
    ],
)
def test_a_description_of_another_kind_is_refused(data: Any, says: str) -> None:  # noqa: ANN401  # JSON
    with pytest.raises(UserError, match=re.escape(says)):
        about_of(data, "about=x.json")


def test_nothing_is_written_while_something_is_wrong(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [replace(row, gpus=(row.gpus or 0) + 1) for row in read_rows(made / "rows" / "published" / FILE_NAME)]
    bad = [row for row in bad if row.placement is not None]
    write_rows([replace(row, gpu_results=None, placement=None, feasible=True) for row in bad], tmp_path / FILE_NAME)
    with pytest.raises(SystemExit) as stopped:
        submit.main(
            [
                f"rows={tmp_path / FILE_NAME}",
                f"about={made / 'about.json'}",
                f"folder={made / 'suite'}",
                f"out={tmp_path / 'out'}",
            ]
        )
    assert stopped.value.code == 2
    assert "feasible without a placement" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_taken_is_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handed_in(made, tmp_path / "submissions" / "dlora")
    folder = tmp_path / "submissions" / "dlora"
    about = about_of(ABOUT | {"name": "dlora"}, "x")
    Submission(about, read_submission(folder).rows).write(folder)
    with pytest.raises(SystemExit):
        leaderboard.main(site(made, tmp_path))
    assert "dlora is a solver of this project" in capsys.readouterr().err
    page = (tmp_path / "site" / "published.html").read_text()
    assert page.count('<th class="name">dlora</th>') == 1


def test_nobodys_word_is_taken_for_a_bound(made: Path, tmp_path: Path) -> None:
    handed_in(made, tmp_path / "submissions" / "mine")
    folder = tmp_path / "submissions" / "mine"
    kept = read_submission(folder)
    Submission(kept.about, tuple(replace(row, lower_bound=row.gpus, status="optimal") for row in kept.rows)).write(
        folder
    )
    leaderboard.main(site(made, tmp_path))
    page = (tmp_path / "site" / "published.html").read_text()
    line = re.search(r'<tr[^>]*><td>\d+</td><th class="name">mine</th>(.*?)</tr>', page, re.DOTALL)
    assert line is not None
    assert re.findall(r"<td>(.*?)</td>", line[1])[3] == "0"


def test_code_is_handed_in_beside_the_description(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = tmp_path / "mine" / "about.json"
    about.parent.mkdir()
    about.write_text(json.dumps(ABOUT | {"code": "code"}))
    given = [f"rows={made / 'rows'}", f"about={about}", f"folder={made / 'suite'}", f"out={tmp_path / 'out' / 'mine'}"]
    with pytest.raises(SystemExit):
        submit.main(given)
    assert "code=code: no folder" in capsys.readouterr().err
    assert not (tmp_path / "out" / "mine").exists()
    (about.parent / "code" / "__pycache__").mkdir(parents=True)
    (about.parent / "code" / "solver.py").write_text("one = 1")
    (about.parent / "code" / "__pycache__" / "solver.pyc").write_text("x")
    submit.main(given)
    kept = tmp_path / "out" / "mine"
    assert sorted(path.name for path in kept.rglob("*") if path.is_file()) == [
        "rows.parquet",
        "solver.py",
        "submission.json",
    ]
    (about.parent / "code" / "large.bin").write_bytes(bytes(2_000_000))
    with pytest.raises(SystemExit):
        submit.main(given)
    assert "has 2 files of 2000007 bytes" in capsys.readouterr().err


def test_code_is_looked_at_before_anything_is_scored_or_read(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.submit.reproduced", None)
    monkeypatch.setattr("shutil.copytree", None)
    (tmp_path / "about.json").write_text(json.dumps(ABOUT | {"code": "code"}))
    code = tmp_path / "code"
    (code / "inner").mkdir(parents=True)
    (code / "solver.py").write_text("one = 1")
    given = [
        f"rows={made / 'rows'}",
        f"about={tmp_path / 'about.json'}",
        f"folder={made / 'suite'}",
        f"out={tmp_path / 'o'}",
    ]
    to_file, to_folder, to_nothing, pipe = (code / name for name in ("link.py", "inner/up", "inner/none", "pipe"))
    for odd, target in (
        (to_file, Path("/etc/hostname")),
        (to_folder, tmp_path),
        (to_nothing, Path("none")),
        (pipe, None),
    ):
        if target is None:
            os.mkfifo(odd)
        else:
            odd.symlink_to(target)
        with pytest.raises(SystemExit) as stopped:
            submit.main(given)
        assert stopped.value.code == 2
        assert f"{odd} is a link or no plain file" in capsys.readouterr().err
        odd.unlink()
    (code / "large.bin").write_bytes(bytes(2_000_000))
    with pytest.raises(SystemExit):
        submit.main(given)
    assert "has 2 files of 2000007 bytes" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("seconds", [70.1, -1.0, float("nan")])
def test_a_solver_that_took_too_long_is_refused(rows: list[Row], instances: list[Instance], seconds: float) -> None:
    assert mistakes_of([replace(row, solve_time_s=70.0) for row in rows], instances) == []
    said = mistakes_of([replace(rows[0], solve_time_s=seconds), *rows[1:]], instances)
    assert len(said) == 1
    assert "it must be 70 s or less" in said[0]
