"""One measured window of a real server: what the client saw and what the server exported, kept on disk."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.shared.files import write_table, write_text
from bench.vllm.client import ClientLoad, Replay
from twin import Judgement, Requests, ServiceLevel
from twin.service import STARVATION_SHARE


@dataclass(frozen=True)
class Figures:
    """What is compared between a measured and a simulated window; latencies in ms, NaN where nothing was observed.

    `throughput` counts prompt and output tokens of the requests finished inside the window, as everywhere.
    """

    throughput: float
    offered_throughput: float
    memory_error: bool
    arrived: int
    finished: int
    ttft_ms: float
    itl_ms: float
    e2e_ms: float
    judgement: Judgement | None = None

    @property
    def goodput(self) -> float:
        """Share of the judged requests that met the limits of the service level; NaN where it has none, or nothing starts."""
        return float("nan") if self.judgement is None else self.judgement.goodput

    @property
    def worst_goodput(self) -> float:
        """The least `goodput` of the GPU and of each adapter (`twin.Judgement`)."""
        return float("nan") if self.judgement is None else self.judgement.worst

    @property
    def failing_adapters(self) -> int:
        """Adapters that the service level is not kept for."""
        return 0 if self.judgement is None else len(self.judgement.failing)

    @property
    def fails(self) -> bool:
        """Whether the GPU fails its service level; the published rule where that judges no requests."""
        if self.memory_error or self.judgement is None:
            return self.starved
        return self.judgement.worst < self.judgement.level.share

    @property
    def starved(self) -> bool:
        """Whether the GPU falls short of 90 % of what it was offered."""
        return self.memory_error or self.throughput < STARVATION_SHARE * self.offered_throughput


def no_start(offered_throughput: float, arrived: int) -> Figures:
    """Figures of a server that does not start for want of memory."""
    nan = float("nan")
    return Figures(0.0, offered_throughput, True, arrived, 0, nan, nan, nan)


def figures_of(answers: pd.DataFrame, offered_throughput: float, duration_s: float) -> Figures:
    """Figures of a measured window.

    A request's times count from when it was due, not from when the client got to send it.
    """
    answers = answers[answers.due_s < duration_s]
    done = answers[np.isfinite(answers.finish_s) & (answers.finish_s <= duration_s)]
    served = (done.prompt_tokens + done.output_tokens).sum()
    gaps = (done.output_tokens - 1).sum()
    itl = float((done.finish_s - done.first_token_s).sum() / gaps * 1000) if gaps else float("nan")
    return Figures(
        throughput=float(served / duration_s),
        offered_throughput=offered_throughput,
        memory_error=False,
        arrived=len(answers),
        finished=len(done),
        ttft_ms=float((done.first_token_s - done.due_s).mean() * 1000),
        itl_ms=itl,
        e2e_ms=float((done.finish_s - done.due_s).mean() * 1000),
    )


def judgement_of(answers: pd.DataFrame, requests: Requests, level: ServiceLevel, duration_s: float) -> Judgement:
    """The judged requests of a measured window, by the limits of a level.

    Parameters
    ----------
    answers : DataFrame
        One row for each request, in their order.
    requests : Requests
        What was sent; they go on after the window.
    level : ServiceLevel
    duration_s : float
        End of the window.
    """
    first, last = answers.first_token_s.to_numpy(np.float64), answers.finish_s.to_numpy(np.float64)
    # What the server gave up on has met nothing, whatever it had sent by then.
    failed = (answers.error != "").to_numpy()
    first, last = np.where(failed, np.nan, first), np.where(failed, np.nan, last)
    judged = level.judged(requests, duration_s)
    met = level.met(requests, first, last, 0.0)[judged]
    adapter, count = requests.adapter[judged], int(requests.adapter.max(initial=-1)) + 1
    return Judgement(level, np.bincount(adapter, minlength=count), np.bincount(adapter[met], minlength=count))


def answers_table(replay: Replay) -> pd.DataFrame:
    """One row per request of a window."""
    return pd.DataFrame(
        {
            "due_s": [answer.due_s for answer in replay.answers],
            "sent_s": [answer.sent_s for answer in replay.answers],
            "first_token_s": [answer.first_token_s for answer in replay.answers],
            "finish_s": [answer.finish_s for answer in replay.answers],
            "adapter": [answer.call.model for answer in replay.answers],
            "prompt_tokens": [answer.call.prompt_tokens for answer in replay.answers],
            "output_tokens": [answer.call.output_tokens for answer in replay.answers],
            "received_tokens": [len(answer.token_s) for answer in replay.answers],
            "token_s": [np.array(answer.token_s, dtype=np.float32) for answer in replay.answers],
            "error": [answer.error for answer in replay.answers],
        }
    )


@dataclass(frozen=True)
class Measurement:
    """A window as it is kept: `<name>.requests.parquet`, `<name>.metrics.parquet` and, last, `<name>.json`."""

    answers: pd.DataFrame
    metrics: pd.DataFrame
    about: dict[str, Any]

    @property
    def client(self) -> ClientLoad:
        """The load generator's own load."""
        return ClientLoad(**self.about["client"])

    def save(self, folder: Path, name: str) -> None:
        """Write it; the JSON file is there only if all is."""
        for part, table in (("requests", self.answers), ("metrics", self.metrics)):
            write_table(table, folder / f"{name}.{part}.parquet")
        write_json(self.about, folder / f"{name}.json")


def measurement_of(replay: Replay, metrics: pd.DataFrame, about: dict[str, Any]) -> Measurement:
    """A finished window with what is to be known of it."""
    answers = answers_table(replay)
    failed = answers[answers.error != ""]
    return Measurement(
        answers,
        metrics,
        {
            **about,
            "duration_s": replay.duration_s,
            "client": asdict(replay.client),
            "failed_requests": len(failed),
            "first_failure": str(failed.error.iloc[0]) if len(failed) else "",
        },
    )


def load_measurement(folder: Path, name: str) -> Measurement | None:
    """A kept window, or None if it is not there or was not finished."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    return Measurement(
        pd.read_parquet(folder / f"{name}.requests.parquet"),
        pd.read_parquet(folder / f"{name}.metrics.parquet"),
        json.loads(path.read_text(encoding="utf-8")),
    )


def write_json(data: dict[str, Any], path: Path) -> None:
    """Write a JSON file."""
    write_text(path, json.dumps(data, indent=1) + "\n")


def open_requests(answers: pd.DataFrame, at_s: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Requests that had a first token but no last one, and those still without a first token, at some times."""
    first = np.sort(answers.first_token_s.fillna(np.inf).to_numpy())
    begun = np.sort(answers.due_s.to_numpy())
    end = np.sort(answers.finish_s.fillna(np.inf).to_numpy())
    started = np.searchsorted(first, at_s, side="right")
    return started - np.searchsorted(end, at_s, side="right"), np.searchsorted(begun, at_s, side="right") - started
