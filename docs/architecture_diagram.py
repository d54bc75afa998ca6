# ruff: noqa: INP001  # a script that stands alone
"""Draw the layers with who imports whom, and list the folders: python docs/architecture_diagram.py.

Writes docs/architecture.svg and the table of folders in docs/architecture.md. The rows of the picture are the layers of the
contracts in pyproject.toml. Below the name of a box stands what its code imports of the same package; what follows from two
others is left out.
"""

from __future__ import annotations

import re
import sys
import textwrap
import tomllib
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PICTURE, PAGE = ROOT / "docs" / "architecture.svg", ROOT / "docs" / "architecture.md"
PACKAGES = ("bench", "solvers", "predictors", "twin")
#: The table in the page stands between these.
TABLE = re.compile(r"(<!-- folders -->\n).*?(\n<!-- end of folders -->)", re.DOTALL)
#: A layer of more modules than this is one box.
MOST_BOXES = 6

#: Pixels.
WIDTH, MARGIN, TITLE, LINE, GAP, CHARACTER = 960, 16, 26, 17, 8, 7.2
STYLE = """
text { font: 13px sans-serif; fill: #1f2430; }
.title { font-weight: bold; }
.imports { fill: #6b7385; font-size: 12px; }
.page { fill: #ffffff; }
.package { fill: #f2f4fa; stroke: #9aa5c4; }
.box { fill: #ffffff; stroke: #3f51b5; }
.down { stroke: #7a86a8; stroke-width: 2; }
"""


def layers_of(package: str) -> list[list[tuple[str, ...]]]:
    """The boxes of each layer of a package, highest first, each the names of its modules."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    contracts = {contract["id"]: contract for contract in tool["contracts"]}
    if package in contracts:
        layers = [re.split(r"\s*[|:]\s*", " ".join(layer.split())) for layer in contracts[package]["layers"]]
    else:
        layers = [sorted(path.stem for path in (ROOT / package).glob("*.py") if path.stem != "__init__")]
    return [[tuple(layer)] if len(layer) > MOST_BOXES else [(name,) for name in layer] for layer in layers]


def imports_of(package: str, graph: grimp.ImportGraph) -> dict[tuple[str, ...], list[str]]:
    """What each box imports of its own package, without what another of these imports as well."""
    boxes = [box for layer in layers_of(package) for box in layer]
    owner = {f"{package}.{name}": box for box in boxes for name in box}
    below: dict[tuple[str, ...], set[tuple[str, ...]]] = {box: set() for box in boxes}
    for module in graph.modules:
        importer = owner.get(".".join(module.split(".")[:2]))
        for name in graph.find_modules_directly_imported_by(module):
            imported = owner.get(".".join(name.split(".")[:2]))
            if importer is not None and imported is not None and importer != imported:
                below[importer].add(imported)

    def reached(start: tuple[str, ...]) -> set[tuple[str, ...]]:
        return below[start].union(*(reached(box) for box in below[start]))

    return {
        box: [
            imported[0] if len(imported) == 1 else f"other {package}"
            for imported in boxes
            if imported in below[box] and not any(imported in reached(other) for other in below[box] - {imported})
        ]
        for box in boxes
    }


def drawn_layer(
    layer: list[tuple[str, ...]], imports: dict[tuple[str, ...], list[str]], y: float
) -> tuple[list[str], float]:
    """The boxes of a layer as SVG, side by side below `y`, and where they end."""
    width = (WIDTH - 4 * MARGIN - GAP * (len(layer) - 1)) / len(layer)
    texts = []
    for box in layer:
        lines = [("", line) for line in textwrap.wrap(" ".join(box), int(width / CHARACTER))]
        lines += [
            ("imports", line)
            for line in textwrap.wrap(f"imports {', '.join(imports[box])}", int(width / CHARACTER))
            if imports[box]
        ]
        texts.append(lines)
    height = LINE * max(map(len, texts)) + 8
    shapes = []
    for place, lines in enumerate(texts):
        x = 2 * MARGIN + place * (width + GAP)
        shapes.append(f'<rect class="box" x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="5"/>')
        for number, (kind, line) in enumerate(lines):
            at = f'x="{x + width / 2:.0f}" y="{y + LINE * (number + 1):.0f}"'
            shapes.append(f'<text class="{kind}" {at} text-anchor="middle">{escape(line)}</text>')
    return shapes, y + height


def picture() -> str:
    """The picture as SVG."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    shapes: list[str] = []
    top = float(MARGIN)
    for package in PACKAGES:
        if package != PACKAGES[0]:
            shapes.append(
                f'<path class="down" d="M {WIDTH / 2} {top - 16:.0f} v 16 m -5 -6 l 5 6 l 5 -6" fill="none"/>'
            )
        imports = imports_of(package, graph)
        y = top + TITLE
        inside: list[str] = []
        for layer in layers_of(package):
            drawn, y = drawn_layer(layer, imports, y)
            inside += drawn
            y += GAP
        at = f'x="{MARGIN}" y="{top:.0f}" width="{WIDTH - 2 * MARGIN}" height="{y - top:.0f}"'
        shapes.append(f'<rect class="package" {at} rx="8"/>')
        shapes.append(f'<text class="title" x="{2 * MARGIN}" y="{top + 18:.0f}">{package}</text>')
        shapes += inside
        top = y + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top:.0f}" viewBox="0 0 {WIDTH} {top:.0f}">',
            f"<style>{STYLE}</style>",
            f'<rect class="page" width="{WIDTH}" height="{top:.0f}"/>',
            *shapes,
            "</svg>\n",
        ]
    )


def folders() -> str:
    """The folders of the packages with the first line of each docstring, as a table."""
    lines = ["| folder | what |", "| --- | --- |"]
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("__init__.py")):
            opening = re.match(r'"""(.*?)(?:"""|\n)', path.read_text(encoding="utf-8"))
            if opening is None:
                raise SystemExit(f"{path}: the first line must say what the folder is for")
            lines.append(f"| `{path.parent.relative_to(ROOT).as_posix()}/` | {opening[1]} |")
    return "\n".join(lines)


def page() -> str:
    """The page with today's table."""
    return TABLE.sub(lambda match: f"{match[1]}\n{folders()}\n{match[2]}", PAGE.read_text(encoding="utf-8"))


def main() -> None:
    """Write both, whole or not at all."""
    for path, text in ((PICTURE, picture()), (PAGE, page())):
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
