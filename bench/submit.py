"""`python -m bench.submit rows=DIR about=FILE`: a solver's rows on the benchmark tier, checked and packed for the leaderboard.

Every mistake is a line; nothing is written while there is one. The rows of each track are scored again by the twin.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import MISSING

from bench.comparison.rows import read_any
from bench.shared.command import command
from bench.shared.files import check_folder
from bench.shared.terminal import console, plain, tracked
from bench.standing.scoring import Scores, reproduced
from bench.standing.submission import ABOUT, CODE, TRACKS, Submission, about_of, check_code, keep_code, mistakes_of
from bench.suites.library import FOLDER, load_suite
from twin import UserError
from twin.inputs import read_json


@dataclass
class SubmitConfig:
    """Options of `python -m bench.submit`; `conf/submit.yaml` says what each is for."""

    rows: str = MISSING
    about: str = MISSING
    solver: str | None = None
    folder: str | None = None
    out: str | None = None


@command("submit", SubmitConfig)
def main(config: SubmitConfig) -> None:
    """Check, say what is wrong, and pack what is right."""
    about = about_of(read_json(config.about, "a description of a submission", key="about"), f"about={config.about}")
    said = about.mistakes()
    out = check_folder("out", config.out or f"results/submissions/{about.name}") if not said else None
    instances = load_suite("benchmark", Path(config.folder) if config.folder else FOLDER)
    rows = read_any(Path(config.rows))
    labels = sorted({row.solver_label for row in rows})
    if config.solver is not None:
        if config.solver not in labels:
            raise UserError(f"solver={config.solver}: the rows are of {', '.join(labels)}")
        rows = [row for row in rows if row.solver_label == config.solver]
    wrong = mistakes_of(rows, instances)
    said += wrong
    code = Path(config.about).parent / CODE
    unfit = _unfit(code) if about.code == CODE else []
    said += unfit
    if not (wrong or unfit):
        said += reproduced(rows, instances, Scores(), lambda each: tracked(each, "scoring again"))[1]
    if said or out is None:
        sys.stderr.write("".join(f"error: {plain(line)}\n" for line in said))
        sys.exit(2)
    # By the name of the submission: that of the solver's class is its package's own affair.
    submission = Submission(about, tuple(replace(row, solver=about.name, solver_options="") for row in rows))
    out.parent.mkdir(parents=True, exist_ok=True)
    if about.code == CODE:
        keep_code(code, out)
    submission.write(out)
    tracks = [track for track in TRACKS if submission.of_track(track)]
    terminal = console()
    terminal.print(
        f"{about.name} {about.version}: {len(rows)} rows on {', '.join(tracks)}, each scored again", soft_wrap=True
    )
    terminal.print(f"written  {out / ABOUT} and rows.parquet: hand this folder in", soft_wrap=True)


def _unfit(code: Path) -> list[str]:
    """Why the code cannot be handed in."""
    try:
        check_code(code)
    except UserError as error:
        return [str(error)]
    return []


if __name__ == "__main__":
    main()
