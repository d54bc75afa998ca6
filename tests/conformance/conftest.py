"""Leave these tests alone where vLLM is not installed, and say at the end what was compared."""

import importlib.util
from collections import Counter
from dataclasses import dataclass, field

import pytest

collect_ignore_glob = [] if importlib.util.find_spec("vllm") else ["*.py"]


@dataclass
class Tally:
    """What the comparisons with vLLM's scheduler add up to."""

    workloads: int = 0
    steps: int = 0
    divergences: int = 0
    #: Steps and workloads in which each rule decided something.
    rules: Counter[str] = field(default_factory=Counter)
    #: Workloads that diverged, by what differed first and the rules of their profile.
    diverged: Counter[str] = field(default_factory=Counter)


TALLY = pytest.StashKey[Tally]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Tally()


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    return pytestconfig.stash[TALLY]


def pytest_unconfigure(config: pytest.Config) -> None:
    # After pytest's own last line, so that this one is the last.
    tally = config.stash[TALLY]
    if tally.workloads:
        import vllm

        print(f"\nconformance: compared with vLLM {vllm.__version__}; steps by what decided them:")  # noqa: T201
        print("  " + ", ".join(f"{rule} {count}" for rule, count in tally.rules.most_common()))  # noqa: T201
        for what, count in tally.diverged.most_common():
            print(f"conformance: {count} workloads differ first in {what}")  # noqa: T201
        print(  # noqa: T201
            f"conformance: {tally.workloads} workloads, {tally.steps} steps, {tally.divergences} divergences"
        )
