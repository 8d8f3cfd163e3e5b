"""Draw the packages ("rooms") and their imports, as they are in the source, and count them.

    python docs/site/rooms.py              # writes docs/img/rooms*.svg: run it when tests/project/test_rooms.py says so
    python docs/site/rooms.py --counts     # how many rooms, imports between them, modules in each folder
    python docs/site/rooms.py --counts --root ANOTHER_CHECKOUT

A room of a package is what lies directly in it: a package or a module. There is an arrow from one to another where any
module of the one imports any module of the other, inside functions too. Pictures leave out an arrow where a longer way
leads to the same room, since what imports a room may import what lies below it.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOUSE = "wsi_pipeline"
DRAWN = {"rooms": HOUSE, **{f"rooms-{name}": f"{HOUSE}.{name}" for name in ("slides", "mil", "report", "stages")}}
LEFT_OUT = {"wsi_pipeline.__main__"}

Arrows = dict[str, set[str]]

_BOX, _GAP, _ROW, _WIDE = 118, 22, 74, 34
_FONT = "font-family='Helvetica, Arial, sans-serif'"


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name; a package stands for its __init__.py."""
    found = {}
    for path in sorted((root / HOUSE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(root: Path) -> tuple[tuple[str, str], ...]:
    """(importing module, imported module), within the package; every file is parsed once."""
    return tuple(_imports(modules(root)))


def _imports(known: dict[str, Path]) -> Iterator[tuple[str, str]]:
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                below = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [one if one in known else node.module for one in below]
            else:
                continue
            yield from ((name, target) for target in targets if target in known and target != name)


def rooms_of(package: str, root: Path = ROOT) -> Arrows:
    """The rooms of a package, each with those it imports."""
    prefix, arrows = f"{package}.", defaultdict(set)
    for name in modules(root):
        if name.startswith(prefix) and name not in LEFT_OUT:
            arrows[name.removeprefix(prefix).split(".")[0]] |= set()
    for one, other in imports(root):
        if one.startswith(prefix) and other.startswith(prefix) and one not in LEFT_OUT:
            a, b = (name.removeprefix(prefix).split(".")[0] for name in (one, other))
            if a != b:
                arrows[a].add(b)
    return dict(arrows)


def below(arrows: Arrows, room: str, seen: set[str] | None = None) -> set[str]:
    """Every room that a room needs, by any way."""
    seen = set() if seen is None else seen
    for other in arrows[room] - seen:
        seen.add(other)
        below(arrows, other, seen)
    return seen


def shortest(arrows: Arrows) -> Arrows:
    """The arrows without those to a room that another arrow leads to as well."""
    return {
        room: {one for one in others if not any(one in below(arrows, other) for other in others - {one})}
        for room, others in arrows.items()
    }


def depths(arrows: Arrows) -> dict[str, int]:
    """The row of each room, from 0 at the top: one below the lowest room that imports it."""
    importers: Arrows = {room: {one for one, others in arrows.items() if room in others} for room in arrows}
    found: dict[str, int] = {}

    def depth(room: str) -> int:
        if room not in found:
            found[room] = 1 + max((depth(other) for other in sorted(importers[room])), default=-1)
        return found[room]

    return {room: depth(room) for room in sorted(arrows)}


def places(arrows: Arrows) -> dict[str, tuple[float, int]]:
    """How far across each room stands, in boxes, and its row: rooms stand near those that import them."""
    row_of, drawn = depths(arrows), shortest(arrows)
    rows = [[room for room in sorted(arrows) if row_of[room] == row] for row in range(max(row_of.values()) + 1)]
    widest = max(map(len, rows))
    at: dict[str, tuple[float, int]] = {}
    for number, row in enumerate(rows):
        above = {room: [at[one][0] for one in at if room in drawn[one]] for room in row}
        wanted = {room: sum(xs) / len(xs) if xs else widest / 2 for room, xs in above.items()}
        for column, room in enumerate(sorted(row, key=lambda room: (wanted[room], room))):
            at[room] = ((widest - len(row)) / 2 + column, number)
    return at


def draw(package: str, root: Path = ROOT) -> str:
    """The picture of a package as SVG: boxes are rooms, lines are imports, downwards."""
    arrows, known = rooms_of(package, root), modules(root)
    at = places(arrows)
    across, rows = max(x for x, _ in at.values()) + 1, max(y for _, y in at.values()) + 1
    width, height = round(across * (_BOX + _GAP) + _GAP), rows * _ROW + _GAP

    size = f"width='{width}' height='{height}'"

    def corner(room: str) -> tuple[float, float]:
        x, y = at[room]
        return _GAP + x * (_BOX + _GAP), _GAP + y * _ROW

    lines, boxes = [], []
    for room, others in sorted(shortest(arrows).items()):
        left, top = corner(room)
        for other in sorted(others):
            x, y = corner(other)
            start, end = (left + _BOX / 2, top + _WIDE), (x + _BOX / 2, y)
            bend = (end[1] - start[1]) / 2
            lines.append(
                f"<path d='M{start[0]:.0f} {start[1]:.0f} C{start[0]:.0f} {start[1] + bend:.0f} "
                f"{end[0]:.0f} {end[1] - bend:.0f} {end[0]:.0f} {end[1]:.0f}'/>"
            )
        suffix = "" if known[f"{package}.{room}"].name == "__init__.py" else ".py"
        boxes.append(
            f"<rect x='{left:.0f}' y='{top:.0f}' width='{_BOX}' height='{_WIDE}' rx='5'/>"
            f"<text x='{left + _BOX / 2:.0f}' y='{top + 22:.0f}'>{room}{suffix}</text>"
        )
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' {size}>",
            f"<rect {size} fill='#fff'/>",
            "<g fill='none' stroke='#8aa' stroke-width='1.2'>",
            *lines,
            f"</g><g fill='#eef4f4' stroke='#477' {_FONT} font-size='13' text-anchor='middle'>",
            *(box.replace("<text", "<text fill='#123' stroke='none'") for box in boxes),
            "</g></svg>\n",
        ]
    )


def counts(root: Path) -> str:
    """A table: of each package with rooms in it, how many rooms, arrows between them, and modules beside each other."""
    known = modules(root)
    folders = defaultdict(int)
    for name, path in known.items():
        if path.name not in ("__init__.py", "__main__.py"):
            folders[name.rpartition(".")[0]] += 1
    lines = [f"{'package':36}{'rooms':>7}{'arrows':>8}{'modules':>9}"]
    for package in sorted(name for name, path in known.items() if path.name == "__init__.py"):
        arrows = rooms_of(package, root)
        lines.append(f"{package:36}{len(arrows):7}{sum(map(len, arrows.values())):8}{folders[package]:9}")
    full = sum(count > 15 for count in folders.values())
    lines.append(f"{sum(folders.values())} modules in {len(folders)} folders; {full} folders of more than 15")
    return "\n".join(lines)


def main() -> None:
    """Write the pictures, or print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", action="store_true", help="print the counts in place of drawing")
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout to look at (default: this one)")
    asked = parser.parse_args()
    if asked.counts:
        sys.stdout.write(counts(asked.root) + "\n")
        return
    for name, package in DRAWN.items():
        (ROOT / "docs/img" / f"{name}.svg").write_text(draw(package, asked.root), encoding="utf-8")


if __name__ == "__main__":
    main()
