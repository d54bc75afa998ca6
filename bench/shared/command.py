"""What every command shares: Hydra without its chatter, and one clear line for a user's mistake.

A command is a function of one typed configuration::

    @dataclass
    class CalibrateConfig:
        runs: str = MISSING  # folder with the published runs


    @command("calibrate", CalibrateConfig)
    def main(config: CalibrateConfig) -> None: ...


    if __name__ == "__main__":
        main()

Its `conf/calibrate.yaml` starts with::

    defaults:
      - calibrate_schema  # the data class above: types and names of the options
      - common            # run folders, no log files
      - _self_
      - override hydra/job_logging: none
      - override hydra/hydra_logging: none
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from bench.launchers.register import register_launchers
from bench.shared.mistakes import mistakes_as_exit
from bench.shared.notes import notes_on_stderr
from bench.shared.options import check_known, check_options
from bench.shared.overrides import CONF, check_groups
from twin.errors import UserError

Schema = TypeVar("Schema")

# Hydra turns an exception of a callback into a warning and exits with 0; what stands here is raised after the run.
_deferred: list[BaseException] = []


def raise_after_run(error: BaseException) -> None:
    """Let the running command fail with `error` once Hydra has returned; for Hydra callbacks."""
    _deferred.append(error)


def command(
    config_name: str, schema: type[Schema], *, positional: str | None = None
) -> Callable[[Callable[[Schema], object]], Callable[..., None]]:
    """Make a command line of a function.

    Parameters
    ----------
    config_name : str
        Name of the primary configuration in `conf/`, without `.yaml`.
    schema : type
        Data class of the options. It is registered as `<config_name>_schema`, and the function gets an instance of
        it with every interpolation resolved. An option that must be given is `MISSING` in it.
    positional : str, optional
        Option that may be given as the first argument by its value alone: `bench.report FILE` for `bench.report rows=FILE`.

    Returns
    -------
    callable
        Decorator. What the function returns is what a job of a sweep (`-m`) hands back to its sweeper, wherever it ran.
        The decorated function takes the arguments of the command line, by default those of the process, and
        exits with code 2 and one line on stderr after a user's mistake.
    """
    ConfigStore.instance().store(name=f"{config_name}_schema", node=schema)

    def decorate(function: Callable[[Schema], object]) -> Callable[..., None]:
        @functools.wraps(function)
        def task(config: DictConfig) -> object:
            # SystemExit passes through Hydra in silence; any other exception is announced with a line of Hydra's.
            with mistakes_as_exit(), notes_on_stderr():
                _check_given(config)
                check_known(config, schema)
                check_options(cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True)))
                returned = function(cast("Schema", OmegaConf.to_object(config)))
                # A reader that went away is noticed here, not at exit.
                sys.stdout.flush()
                return returned

        run = hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(task)

        @functools.wraps(function)
        def main(arguments: Sequence[str] | None = None) -> None:
            _deferred.clear()
            register_launchers()
            with _arguments(arguments, positional), mistakes_as_exit(), _interruptible(), _raising_hydra():
                check_groups(sys.argv[1:])
                run()
                sys.stdout.flush()
                if _deferred:
                    raise _deferred[0]

        return main

    return decorate


def _check_given(config: DictConfig) -> None:
    """Raise `UserError` that names the options which have no default and were not given."""
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        how = " ".join(f"{key}=VALUE" for key in missing)
        raise UserError(f"{' and '.join(missing)} must be given: {how}")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C raise `KeyboardInterrupt` from now on: while a command is being imported it ends the process (`bench`)."""
    if getattr(signal.getsignal(signal.SIGINT), "__module__", None) == "bench":
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield


@contextlib.contextmanager
def _arguments(arguments: Sequence[str] | None, positional: str | None) -> Iterator[None]:
    """Let Hydra, which reads `sys.argv`, see these arguments, the first one as the value of the option `positional`."""
    saved = sys.argv
    given = saved[1:] if arguments is None else list(arguments)
    if positional is not None and given and "=" not in given[0] and not given[0].startswith(("-", "+", "~")):
        quoted = given[0].replace("'", "\\'")
        given = [f"{positional}='{quoted}'", *given[1:]]
    sys.argv = [saved[0], *given]
    try:
        yield
    finally:
        sys.argv = saved


@contextlib.contextmanager
def _raising_hydra() -> Iterator[None]:
    """Make Hydra raise what went wrong instead of printing a part of it and exiting."""
    saved: Any = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if saved is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = saved
