"""`python -m bench.leaderboard`: the standing of all methods as a static site, every row scored again by the twin.

From the reference results and the submissions. A row that the twin of today says something else of is refused by name, and so is a
submission against the rules; the command then ends with code 3, once the site is written.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.comparison.compare import version
from bench.comparison.rows import FILE_NAME, Row, gap_to, read_rows
from bench.shared.command import command
from bench.shared.files import check_file, check_folder
from bench.shared.terminal import console, plain, tracked
from bench.standing.pages import Track, write_site
from bench.standing.scoring import Scores, reproduced
from bench.standing.submission import TRACKS, About, mistakes_of, read_submission
from bench.suites.bounds import best_bounds, fingerprint, is_of
from bench.suites.instance import Instance
from bench.suites.library import FOLDER, load_suite, read_best_known
from twin import UserError

#: Exit code when something was refused.
REFUSED = 3


@dataclass
class LeaderboardConfig:
    """Options of `python -m bench.leaderboard`; `conf/leaderboard.yaml` says what each is for."""

    reference: str = "results/reference"
    submissions: str = "results/submissions"
    folder: str | None = None
    out: str = "build/leaderboard"
    scores: str | None = "results/runs/leaderboard/scores.json"


@command("leaderboard", LeaderboardConfig)
def main(config: LeaderboardConfig) -> None:
    """Read, score again, write the pages and say what was refused."""
    out = check_folder("out", config.out)
    scores = Scores(check_file("scores", config.scores, ".json") if config.scores else None)
    folder = Path(config.folder) if config.folder else FOLDER
    instances = load_suite("benchmark", folder)
    reference = _reference(Path(config.reference), instances)
    taken = {row.solver_label for rows in reference.values() for row in rows}
    abouts, handed_in, refused = _submissions(Path(config.submissions), instances, taken)
    terminal = console()
    tracks = []
    for name in TRACKS:
        rows = [*reference.get(name, []), *(row for row in handed_in if row.service == name)]
        if not rows:
            continue
        good, bad = reproduced(rows, instances, scores, lambda each: tracked(each, "scoring again"))
        refused += bad
        tracks.append(Track(name, tuple(_bounded(good, instances, folder, name)), tuple(instances), tuple(bad)))
    if not tracks:
        raise UserError(f"reference={config.reference}: no {FILE_NAME} in {', '.join(TRACKS)} there, and no submission")
    twins = ", ".join(f"{name} {fingerprint(name)}" for name in sorted({instance.profile for instance in instances}))
    pages = write_site(out, tracks, abouts, {"package": version(), "twin and profile": twins})
    count = sum(len(track.rows) for track in tracks)
    terminal.print(
        f"{count} rows scored again by the twin, {len(abouts)} submission{'s' * (len(abouts) != 1)}; {len(pages)} pages: {pages[0]}",
        soft_wrap=True,
    )
    if refused:
        sys.stderr.write("".join(f"REFUSED {plain(line)}\n" for line in refused))
        sys.exit(REFUSED)


def _reference(folder: Path, instances: Sequence[Instance]) -> dict[str, list[Row]]:
    """Rows of the reference by track, those of the tier as it stands in the suite."""
    by_id = {instance.id: instance for instance in instances}
    found = {}
    for track in TRACKS:
        path = folder / track / FILE_NAME
        if path.is_file():
            rows = [row for row in read_rows(path) if row.service == track]
            found[track] = [row for row in rows if row.instance in by_id and is_of(row, by_id[row.instance])]
    return found


def _submissions(
    folder: Path, instances: Sequence[Instance], taken: Collection[str]
) -> tuple[dict[str, About], list[Row], list[str]]:
    """Who handed in what, their rows, and a line for each that is against the rules."""
    abouts: dict[str, About] = {}
    rows: list[Row] = []
    refused: list[str] = []
    for path in sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []:
        try:
            submission = read_submission(path)
        except UserError as error:
            refused.append(str(error))
            continue
        said = [*submission.about.mistakes(), *mistakes_of(submission.rows, instances)]
        if submission.about.name != path.name:
            said.append(f"its name is {submission.about.name}; the folder must be called so")
        if submission.about.name in taken:
            said.append(f"{submission.about.name} is a solver of this project; choose another name")
        if said:
            refused += [f"{path}: {line}" for line in said]
            continue
        name = submission.about.name
        abouts[name] = submission.about
        # Nobody's word is taken for a bound: those of the suite count.
        rows += [
            replace(row, solver=name, solver_options="", lower_bound=None, certificate=None) for row in submission.rows
        ]
    return abouts, rows, refused


def _bounded(rows: Sequence[Row], instances: Sequence[Instance], folder: Path, track: str) -> list[Row]:
    """The rows with the best bounds known, the reference's own included."""
    of_track = read_best_known(folder, track)
    known = {
        instance.id: best.lower_bound
        for instance in instances
        if (best := of_track.get(instance.id)) and best.twin == fingerprint(instance.profile)
    }
    bounds = best_bounds(rows, known, track)
    return [
        replace(row, best_bound=bounds.get(row.instance), gap=gap_to(bounds.get(row.instance), row)) for row in rows
    ]


if __name__ == "__main__":
    main()
