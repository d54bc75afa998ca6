"""One look for every picture that a command draws, and one way to write it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.shared.files import written

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, PALE = "#22303c", "#8795a1"
#: Markers of series that colour alone would not tell apart.
MARKERS = "osD^vP*Xh<>pd8"

_STYLE: dict[str, Any] = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": PALE,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@contextlib.contextmanager
def png_figure(
    path: Path, size: tuple[float, float] = (6.4, 4.8), *, font_size: float = 9.0, dpi: int = 150
) -> Iterator[Figure]:
    """An empty figure that is written to a PNG file once it is drawn, whole or not at all.

    Parameters
    ----------
    path : Path
        Folders on the way are made.
    size : (float, float)
        Width and height in inches; what is drawn may set another.
    font_size : float
        In points.
    dpi : int
        Pixels per inch.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # No pyplot: it would look for a screen and keep the figure.
    style: Any = {**_STYLE, "font.size": font_size}
    with mpl.rc_context(style):
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        yield figure
        with written(path) as temporary:
            figure.savefig(temporary, format="png", dpi=dpi)
