"""Draws the packages and what they import, from the imports: ``python docs/house.py``.

Packages stand in the order of the import contract in ``pyproject.toml``, so that every arc goes
down. An import that follows from others is left out, and so are the lowest modules, which all read.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "docs" / "images" / "house.svg"
PACKAGE = "palrp_onnx"
WIDTH, ROW, RIGHT = 960, 34, 700


def layers() -> list[list[str]]:
    """Names of the packages, layer by layer, as the import contract lists them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    rows = next(c["layers"] for c in contracts if c["type"] == "layers")
    return [["cli"], *([name.strip() for name in row.split("|")] for row in rows)]


def imports(names: list[str]) -> dict[str, set[str]]:
    """For every package those that it imports directly."""
    sys.path.insert(0, str(ROOT))
    graph = grimp.build_graph(PACKAGE, "cli", exclude_type_checking_imports=True)
    found: dict[str, set[str]] = {name: set() for name in names}
    owners = {
        module: name
        for name in names
        for top in [name if name == "cli" else f"{PACKAGE}.{name}"]
        for module in {top, *graph.find_descendants(top)}
    }
    for module, name in owners.items():
        for imported in graph.find_modules_directly_imported_by(module):
            if (owner := owners.get(imported, name)) != name:
                found[name].add(owner)
    return found


def reduced(found: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same without imports that follow from others."""
    reached: dict[str, set[str]] = {}

    def reach(name: str) -> set[str]:
        if name not in reached:
            reached[name] = found[name].union(*(reach(each) for each in found[name]))
        return reached[name]

    return {
        name: {each for each in below if not any(each in reach(b) for b in below - {each})}
        for name, below in found.items()
    }


def summary(name: str) -> str:
    """The first sentence of a package's docstring."""
    base = ROOT / name if name == "cli" else ROOT / PACKAGE / name
    file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ").replace("``", "").rstrip(".")


def draw() -> str:
    """The picture, as SVG."""
    rows = layers()
    names = [name for row in rows for name in row]
    middle = {name: 28 + ROW * k for k, name in enumerate(names)}
    parts = [_layer(middle[row[0]], middle[row[-1]]) for row in rows]
    parts += [_line(name, y) for name, y in middle.items()]
    for name, below in reduced(imports(names)).items():
        parts += [_arc(middle[name], middle[each]) for each in sorted(below - set(rows[-1]))]
    height = ROW * len(names) + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="13">\n'
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#34568b"/></marker>\n'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>\n{"".join(parts)}</svg>\n'
    )


def _layer(first: int, last: int) -> str:
    return (
        f'<rect x="10" y="{first - 14}" width="{RIGHT - 10}" height="{last - first + 28}" rx="5" '
        'fill="#eef2f8" stroke="#b9c4d6"/>\n'
    )


def _line(name: str, y: int) -> str:
    return (
        f'<text x="22" y="{y + 5}" font-weight="bold">{escape(name)}</text>'
        f'<text x="112" y="{y + 5}" fill="#445" font-size="12">{escape(summary(name))}</text>\n'
    )


def _arc(start: int, end: int) -> str:
    out = RIGHT + 14 + 0.42 * (end - start)
    return (
        f'<path d="M{RIGHT},{start + 3} C{out:.0f},{start + 3} {out:.0f},{end - 3} {RIGHT + 2},'
        f'{end - 3}" fill="none" stroke="#34568b" marker-end="url(#tip)"/>\n'
    )


if __name__ == "__main__":
    PLACE.write_text(draw(), encoding="utf-8")
