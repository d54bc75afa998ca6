"""A distilled tree as boxes of its rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.shared.figures import png_figure
from predictors.meanfield import INPUT_NAMES
from predictors.trees import Forest

#: What the leaves of a target's tree hold.
LEAVES = {
    "throughput": "log(throughput / estimate)",
    "starvation": "probability of starvation",
    "itl": "log(ITL / estimated step time)",
    "ttft": "log(TTFT / estimated step time)",
    "feasible_load": "log(load at which it starves)",
}


@dataclass(frozen=True)
class Box:
    """A node of the picture: where it stands (x in leaves, level from the top), and what is written in it."""

    x: float
    level: int
    text: str
    children: tuple[Box, Box] | tuple[()]


def draw(tree: Forest, title: str, path: Path, depth: int) -> None:
    """Draw the first levels of a tree.

    Parameters
    ----------
    tree : Forest
        Of one tree.
    title : str
    path : Path
        PNG file.
    depth : int
        Levels that are drawn; a subtree below is told by its leaves.
    """
    top, n_columns = _layout(tree, int(tree.roots[0]), 0, depth, 0.0)
    boxes = list(_walk(top))
    n_levels = 1 + max(box.level for box in boxes)
    size = (max(8.0, 0.62 * n_columns), max(3.0, 1.05 * n_levels))
    with png_figure(path, size, dpi=130) as figure:
        axis = figure.subplots()
        for box in boxes:
            for side, child in zip(("yes", "no"), box.children, strict=False):
                axis.plot([box.x, child.x], [-box.level, -child.level], color="#9aa5b1", linewidth=0.8, zorder=1)
                if box.level == 0:
                    axis.text((box.x + child.x) / 2, -0.5, side, fontsize=7, ha="center", color="#52606d")
            colour = "#dceefb" if box.children else "#f0f4f8"
            style = {"boxstyle": "round,pad=0.25", "facecolor": colour, "edgecolor": "#829ab1", "linewidth": 0.6}
            rotation = 90 if not box.children and n_columns > 12 else 0
            axis.text(box.x, -box.level, box.text, fontsize=6, ha="center", va="center", bbox=style, rotation=rotation)
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
        axis.set_ylim(-n_levels + 0.3, 0.6)


def _layout(tree: Forest, node: int, level: int, depth: int, left: float) -> tuple[Box, float]:
    """The box of a node and of what is below it, and the first free column to the right of them."""
    place = int(tree.feature[node])
    value = f"{tree.threshold[node]:.3g}"
    if place < 0:
        return Box(left, level, value, ()), left + 1
    if level == depth:
        leaves = list(_leaves(tree, node))
        return Box(left, level, f"{min(leaves):.2g} to {max(leaves):.2g}\n({len(leaves)} leaves)", ()), left + 1
    low, middle = _layout(tree, node + 1, level + 1, depth, left)
    high, right = _layout(tree, int(tree.right[node]), level + 1, depth, middle)
    return Box((low.x + high.x) / 2, level, f"{INPUT_NAMES[place]}\n<= {value}", (low, high)), right


def _leaves(tree: Forest, node: int) -> Iterator[float]:
    """Values of the leaves below a node."""
    todo = [node]
    while todo:
        node = todo.pop()
        if tree.feature[node] < 0:
            yield float(tree.threshold[node])
        else:
            todo += [node + 1, int(tree.right[node])]


def _walk(box: Box) -> Iterator[Box]:
    yield box
    for child in box.children:
        yield from _walk(child)
