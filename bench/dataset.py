"""`python -m bench.dataset`: contents of a GPU, labelled by the twin, in one Parquet file.

The sample is designed (`predictors.design`): a part covers the space, the rest crowds about the boundary of starvation as
a model trained on the first contents sees it (`predictors.boundary`). It is made in pieces that depend on nothing but the
configuration, so an interrupted command goes on where it was, and several jobs can share the pieces. Both parts grow
together once there is a model of the boundary, so that the pieces at any time are a smaller sample of the same kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow.parquet as pq
from omegaconf import MISSING

from bench.shared.command import command
from bench.shared.terminal import console
from bench.training.labels import DatasetOptions, make_dataset
from twin import load_profile


@dataclass
class DatasetConfig(DatasetOptions):
    """Options of `python -m bench.dataset`; `conf/dataset.yaml` says what each is for."""

    profile: str = MISSING


@command("dataset", DatasetConfig)
def main(config: DatasetConfig) -> None:
    """Label a sample of contents and write it."""
    terminal = console(stderr=True)
    path = make_dataset(config, load_profile(config.profile), terminal)
    if path:
        starved = pq.read_table(path, columns=["starved"])["starved"].to_numpy()
        console().print(
            f"{len(starved)} contents, {100 * starved.mean():.1f} % starved, seed {config.seed}: {path}",
            soft_wrap=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
