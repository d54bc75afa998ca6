"""A user's mistake as one clear line and an exit code."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from bench.shared.overrides import explain_group, explain_value, missing_name
from bench.shared.terminal import plain
from twin.errors import UserError
from twin.files import refusal

#: Exit code of a user's mistake, the one that argparse uses as well.
USER_ERROR_EXIT = 2

#: Exit code when whoever reads the output goes away: what a shell makes of the signal SIGPIPE.
BROKEN_PIPE_EXIT = 141


@contextlib.contextmanager
def mistakes_as_exit() -> Iterator[None]:
    """Turn a user's mistake into one line on stderr and exit code 2; any other exception passes.

    With `HYDRA_FULL_ERROR=1` in the environment of the process nothing is hidden.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None
    except BrokenPipeError:
        # The reader (head, less) has seen enough.
        _give_up_stdout()
        raise SystemExit(BROKEN_PIPE_EXIT) from None
    except Exception as error:
        line = explain(error)
        if line is None or _full_error_wanted:
            raise
        sys.stderr.write(f"error: {plain(line)}\n")
        _give_up_stdout_if_full()
        raise SystemExit(USER_ERROR_EXIT) from None


def _give_up_stdout_if_full() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        _give_up_stdout()


def _give_up_stdout() -> None:
    """Let what Python still holds back for stdout go nowhere, so that it does not fail at exit either."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_full_error_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"


def explain(error: BaseException) -> str | None:  # noqa: C901, PLR0911  # one return for each kind of mistake
    """One line that tells the user what to change, or None if `error` is not a user's mistake.

    Parameters
    ----------
    error : BaseException
        What came out of Hydra, OmegaConf or the command itself.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, UserError):
            return _one_line(str(cause))
    match error:
        case MissingConfigException():
            return _explain_missing_config(error)
        case OverrideParseException():
            return f"cannot read the option {error.override!r}: {_one_line(str(error).splitlines()[0])}"
        case OSError():
            return _explain_system(error)
        case InstantiationException():
            return explain_instantiation(error)
        case ConfigCompositionException() | ValueError() | TypeError() if _raised_by_hydra(error) and (
            line := explain_group(error, sys.argv[1:])
        ):
            return _one_line(line)
        case ConfigCompositionException() | OmegaConfBaseException():
            for cause in causes:
                if isinstance(cause, OmegaConfBaseException):
                    return _explain_omegaconf(cause, error)
    if isinstance(error, HydraException) or (isinstance(error, ValueError) and _raised_by_hydra(error)):
        return _one_line(str(error))
    return None


def _explain_system(error: OSError) -> str | None:
    """What the system refused, where it was asked for a file: the folder of a run, an input without permission, stdout."""
    if error.filename is not None and error.errno is not None:
        where = "" if Path(os.fsdecode(error.filename)).is_absolute() else f" (working folder: {_working_folder()})"
        return f"{os.fsdecode(error.filename)}: {refusal(error)}{where}"
    if error.errno == errno.ENOENT and _working_folder() == "removed":
        return "the working folder is no longer there; change to one that is"
    return refusal(error) if error.errno in _DISK else None


#: The disk is full, the quota used up, the file system read-only, the device broken.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def _working_folder() -> str:
    try:
        return str(Path.cwd())
    except OSError:
        return "removed"


def explain_instantiation(error: InstantiationException) -> str:
    """One line on why Hydra could not make the object of a `_target_`: what it says itself, and the first cause of it."""
    said = str(error).splitlines()[0].partition(", set env var")[0].removesuffix(":")
    *_, first = _causes(error)
    return _one_line(said if first is error else f"{said}: {type(first).__name__}: {first}")


def _raised_by_hydra(error: BaseException) -> bool:
    """Whether Hydra raised an exception itself: it does so for flags that do not go together, with a bare `ValueError`."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).split(".")[0] == "hydra"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it was raised from, the outermost first."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def _explain_missing_config(error: MissingConfigException) -> str:
    missing = missing_name(error)
    if missing is None:
        return _one_line(str(error))
    group, name, available = missing
    return f"{group}={name}: no such {group}; available are {', '.join(available)}{_did_you_mean(name, available)}"


def _explain_omegaconf(cause: OmegaConfBaseException, error: BaseException) -> str:
    key = cause.full_key or str(cause.key or "")
    reason = _one_line(str(cause.msg or cause).splitlines()[0])
    if isinstance(cause, (ConfigKeyError, ConfigAttributeError)):
        known = [str(name) for name in cause.parent_node] if isinstance(cause.parent_node, DictConfig) else []
        known = [name for name in known if name != "hydra"]
        if known and str(cause.key) not in known:
            where = key.rpartition(".")[0]
            inside = f" in {where}" if where else ""
            return (
                f"{key}: no such option{_did_you_mean(str(cause.key), known)}; "
                f"the options{inside} are {', '.join(known)}"
            )
    if isinstance(cause, MissingMandatoryValue):
        return f"{key} must be given: {key}=VALUE"
    if (line := explain_value(cause, str(error))) is not None:
        return _one_line(line)
    if isinstance(cause, ValidationError):
        return f"{key}: {reason}"
    outer = (
        _one_line(str(error).splitlines()[0]) if isinstance(error, ConfigCompositionException) and str(error) else ""
    )
    return ": ".join(part for part in (outer or key, reason) if part)


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())
