"""Numbers that a user gives, checked at the door: finite, in range, whole where they count something.

Every file and option is checked with these, so that a mistake is told in the same words everywhere: the key, its value and
what would be right.
"""

from __future__ import annotations

import math
from numbers import Integral, Number, Real

from twin.errors import UserError

#: The largest seed: streams are keyed by 64-bit words, of which one bit is left for what is drawn once for a workload.
LARGEST_SEED = 2**63 - 1
#: More adapters than these are a mistake in a number: each has a random stream of its own.
MOST_ADAPTERS = 1_000_000
#: Requests that are drawn at once; each takes about `BYTES_PER_REQUEST` while they are put in order.
MOST_REQUESTS = 100_000_000
BYTES_PER_REQUEST = 120
#: The longest window, in seconds (three years).
LONGEST_S = 1e8
# A value is shown up to so many characters.
_SHOWN = 60


def shown(value: object) -> str:
    """A value as messages show it: on one line, without control characters, cut where it is long."""
    text = str(value) if isinstance(value, Number) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def number(  # noqa: PLR0913  # a range has two ends, one of which may be open
    key: str,
    value: object,
    *,
    at_least: float = -math.inf,
    above: float = -math.inf,
    at_most: float = math.inf,
    unit: str = "",
) -> float:
    """A finite number in a range.

    Parameters
    ----------
    key : str
        Where it stands, as the message names it: file, option or column.
    value : object
    at_least, above, at_most : float
        The range; `above` is not in it.
    unit : str
        Of the number, in plural, for the message.

    Raises
    ------
    UserError
        If it is no number (a truth value is none), not finite, or out of range.
    """
    given = _as_float(value)
    if not (math.isfinite(given) and given >= at_least and given > above and given <= at_most):
        raise UserError(f"{key}={shown(value)} must be a number{of_unit(unit)}{_range(at_least, above, at_most)}")
    return given


def whole(key: str, value: object, *, at_least: int = 0, at_most: int = LARGEST_SEED, unit: str = "") -> int:
    """A whole number in a range.

    Raises
    ------
    UserError
        If it is no whole number (a truth value is none), or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not at_least <= int(value) <= at_most:
        raise UserError(
            f"{key}={shown(value)} must be a whole number{of_unit(unit)}{_range(at_least, -math.inf, at_most)}"
        )
    return int(value)


def seed_number(key: str, value: object) -> int:
    """A seed of random streams."""
    return whole(key, value, at_least=0, at_most=LARGEST_SEED)


def check_requests(key: str, requests: float) -> None:
    """Refuse to draw more requests than fit into memory, before any is drawn.

    Parameters
    ----------
    key : str
        What asks for them.
    requests : float
        About how many.

    Raises
    ------
    UserError
        With their number and the memory that they would take.
    """
    if not requests <= MOST_REQUESTS:
        raise UserError(
            f"{key} would draw about {requests:.2g} requests ({requests * BYTES_PER_REQUEST / 1e9:.3g} GB); at most "
            f"{MOST_REQUESTS:.0e} are drawn: lower the rates, or shorten the window"
        )


def of_unit(unit: str) -> str:
    """The unit as a message has it after "number"."""
    return f" of {unit}" if unit else ""


def _as_float(value: object) -> float:
    """NaN for whatever is no number, or too large for one."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _range(at_least: float, above: float, at_most: float) -> str:
    low = f"above {above:g}" if above > at_least else f"{at_least:g} or more" if math.isfinite(at_least) else ""
    if not math.isfinite(at_most) or at_most == LARGEST_SEED:
        return f", {low}" if low else ", not NaN or infinite"
    high = f"at most {at_most:,}" if isinstance(at_most, int) else f"at most {at_most:,.10g}"
    return f", {low} and {high}" if low else f", {high}"
