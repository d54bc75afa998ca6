"""Token counts of many requests at once: what `twin.lengths` gives, by tables, to the digit.

The output of a request that is correlated with its prompt goes through three functions of the normal distribution, each
increasing, so that the outcome is a whole number which grows with one normal variable. That variable is interpolated, and
compared with the values at which the number changes. Where it is nearer to one of them than interpolation tells, the request is
left to `twin.lengths`.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from twin.compiled import njit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Cells of the table of normal quantiles: so many for a level, which reaches down to a sixteenth of its uppermost uniform draw.
_CELLS, _LEVELS, _FACTOR = 1024, 5, 16
# Normal variables further out are left to the reference; so are those so near to where a token count changes.
_OUTERMOST, _NEAR = 5.0, 1e-7
# Cells of the table of where to begin to look for a token count, for each unit of the normal variable.
_CELLS_OF_A_UNIT = 256
#: More tokens than this have no table.
MOST_TABLED = 1 << 16


class OutputTable(NamedTuple):
    """Where the token count changes, as the normal variable grows.

    Attributes
    ----------
    least : int
        Tokens below the first change.
    bounds : array of shape (n,)
        Normal variables at which there is one token more, and infinity.
    begins : array of shape (2 * _OUTERMOST * _CELLS_OF_A_UNIT + 1,)
        Changes below each cell of the normal variable.
    """

    least: int
    bounds: Floats
    begins: Ints


@cache
def normal_table() -> Floats:
    """Cubics of the normal quantile function below a half, shape (levels * cells, 4)."""
    from scipy.special import ndtri

    level = np.repeat(np.arange(_LEVELS), _CELLS)
    width = float(_CELLS) ** -1 * float(_FACTOR) ** -level
    left = np.tile(np.arange(_CELLS), _LEVELS) * width
    used = (np.tile(np.arange(_CELLS), _LEVELS) >= _CELLS // _FACTOR) & (left < 0.5)
    table = np.zeros((_LEVELS * _CELLS, 4))
    left, width = left[used], width[used]
    below, above = ndtri(left), ndtri(left + width)
    slope, end_slope = (np.sqrt(2 * np.pi) * np.exp(value**2 / 2) * width for value in (below, above))
    table[used] = np.column_stack(
        [below, slope, 3 * (above - below) - 2 * slope - end_slope, 2 * (below - above) + slope + end_slope]
    )
    table.flags.writeable = False
    return table


def output_table(quantiles: Floats, grid: Floats, least: int, most: int) -> OutputTable:
    """The table of a distribution of tokens.

    Parameters
    ----------
    quantiles, grid : arrays of shape (n_cells,)
        Ascending quantiles in tokens, and the shares that they are of.
    least, most : int
        Fewest and most tokens.
    """
    from scipy.special import ndtri

    bounds = np.append(ndtri(np.interp(np.arange(least, most) + 0.5, quantiles, grid)), np.inf)
    edges = np.linspace(-_OUTERMOST, _OUTERMOST, round(2 * _OUTERMOST) * _CELLS_OF_A_UNIT + 1)
    return OutputTable(least, bounds, np.searchsorted(bounds, edges - _NEAR))


@njit(cache=True, nogil=True)
def _interpolated(share: float, grid: Floats, cell_share: float, table: Floats) -> float:
    """As `numpy.interp`, on a grid that is even but for its ends."""
    n_ends = (len(grid) - int(1 / cell_share) - 1) // 2
    if cell_share <= share < 1 - cell_share:  # noqa: SIM108  # two ways to find it
        cell = n_ends + int(share / cell_share)
    else:
        cell = int(np.searchsorted(grid, share, side="right")) - 1
    if cell == len(grid) - 1 or grid[cell] == share:
        return float(table[cell])
    slope = (table[cell + 1] - table[cell]) / (grid[cell + 1] - grid[cell])
    return float(slope * (share - grid[cell]) + table[cell])


@njit(cache=True, nogil=True)
def tokens_by_quantile(  # noqa: PLR0913  # a kernel takes arrays and scalars only
    uniform: Floats, order: Ints, grid: Floats, cell_share: float, table: Floats, least: int, most: int
) -> Ints:
    """Token counts of the draws `uniform[order]`.

    Parameters
    ----------
    uniform, order : arrays of shape (n,)
    grid, table : arrays of shape (n_cells,)
        Shares, and the quantiles at them.
    cell_share : float
        Width of the even cells of the grid.
    least, most : int
    """
    tokens = np.empty(len(order), np.int64)
    for row in range(len(order)):
        value = int(np.rint(_interpolated(uniform[order[row]], grid, cell_share, table)))
        tokens[row] = min(max(value, least), most)
    return tokens


@njit(cache=True, nogil=True)
def _normal(share: float, table: Floats) -> float:
    """Normal variable of a uniform draw, to nine digits; NaN beyond the table."""
    below = min(share, 1 - share)
    first, scale, lowest = 0, float(_CELLS), 1.0 / _FACTOR
    while below < lowest:
        first += _CELLS
        scale *= _FACTOR
        lowest /= _FACTOR
        if first == _LEVELS * _CELLS:
            return np.nan
    place = below * scale
    cell = min(int(place), _CELLS // 2 - 1) if first == 0 else int(place)
    t = place - cell
    cubic = table[first + cell]
    value: float = cubic[0] + t * (cubic[1] + t * (cubic[2] + t * cubic[3]))
    return value if share <= 0.5 else -value


@njit(cache=True, nogil=True)
def correlated_tokens(  # noqa: PLR0913  # a kernel takes arrays and scalars only
    prompt_uniform: Floats,
    own_uniform: Floats,
    order: Ints,
    correlation: float,
    normals: Floats,
    least: int,
    bounds: Floats,
    begins: Ints,
) -> tuple[Ints, Ints]:
    """Token counts of a draw correlated with another, of the draws in `order`.

    Parameters
    ----------
    prompt_uniform, own_uniform, order : arrays of shape (n,)
    correlation : float
    normals : array
        `normal_table()`.
    least, bounds, begins
        `OutputTable`.

    Returns
    -------
    tokens : array of shape (n,)
    doubtful : array of shape (n_doubtful,)
        Rows that the reference has to tell.
    """
    tokens = np.empty(len(order), np.int64)
    doubtful = np.empty(len(order), np.int64)
    n_doubtful = 0
    own = np.sqrt(1 - correlation**2)
    for row in range(len(order)):
        drawn = order[row]
        value = correlation * _normal(prompt_uniform[drawn], normals) + own * _normal(own_uniform[drawn], normals)
        tokens[row] = least
        if not -_OUTERMOST < value < _OUTERMOST:
            doubtful[n_doubtful] = row
            n_doubtful += 1
            continue
        change = begins[int((value + _OUTERMOST) * _CELLS_OF_A_UNIT)]
        while bounds[change] <= value:
            change += 1
        tokens[row] += change
        if bounds[change] - value < _NEAR or (change > 0 and value - bounds[change - 1] < _NEAR):
            doubtful[n_doubtful] = row
            n_doubtful += 1
    return tokens, doubtful[:n_doubtful].copy()
