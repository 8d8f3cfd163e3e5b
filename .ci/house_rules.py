"""The measures this code keeps, as a check: `python .ci/house_rules.py [ROOT]`; part of `make lint`.

A file has at most 400 lines, a function at most 60 (without its docstring) and 8 parameters, a folder at most 15
modules. In one package no two modules and no two classes share a name, but for a command and the stage it runs. No
module imports itself through others, wherever in the file the import stands; imports for type checkers alone do not
count.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

FILE_LINES, FUNCTION_LINES, PARAMETERS, FOLDER_MODULES = 400, 60, 8, 15
PACKAGES = ("wsi_pipeline", "pathotune")
CODE = (*PACKAGES, "benchmarks", "tests")
"""Lines are counted in all of it; modules, names and circles where `MODULES` says so."""
MODULES = (*PACKAGES, "benchmarks")
ONE_VOCABULARY = {"commands", "stages"}
"""The modules of these two folders have one name where they are about one stage."""


def faults_of(root: Path) -> list[str]:
    """What breaks a rule below `root`, one sentence each."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in _files(root, CODE)}
    modules = {path: tree for path, tree in trees.items() if path.relative_to(root).parts[0] in MODULES}
    faults = [*_lengths(trees), *_folders(modules), *_circles(root, modules)]
    for package in PACKAGES:
        faults += _names({path: tree for path, tree in modules.items() if path.relative_to(root).parts[0] == package})
    return [fault.replace(f"{root}/", "") for fault in faults]


def _files(root: Path, folders: Iterable[str]) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((root / folder).rglob("*.py"))


def _lengths(trees: dict[Path, ast.Module]) -> Iterator[str]:
    for path, tree in trees.items():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > FILE_LINES:
            yield f"{path}: {lines} lines, at most {FILE_LINES}"
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if _length(node) > FUNCTION_LINES:
                yield f"{path}:{node.lineno}: {node.name} has {_length(node)} lines, at most {FUNCTION_LINES}"
            parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if len(parameters) > PARAMETERS:
                yield f"{path}:{node.lineno}: {node.name} has {len(parameters)} parameters, at most {PARAMETERS}"


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def _folders(trees: dict[Path, ast.Module]) -> Iterator[str]:
    counts: dict[Path, int] = defaultdict(int)
    for path in trees:
        counts[path.parent] += path.name != "__init__.py"
    for folder, count in counts.items():
        if count > FOLDER_MODULES and folder.name != "benchmarks":
            yield f"{folder}: {count} modules, at most {FOLDER_MODULES}"


def _names(trees: dict[Path, ast.Module]) -> Iterator[str]:
    modules: dict[str, list[Path]] = defaultdict(list)
    classes: dict[str, list[Path]] = defaultdict(list)
    for path, tree in trees.items():
        if path.name not in {"__init__.py", "__main__.py"}:
            modules[path.stem].append(path)
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes[node.name].append(path)
    for name, places in modules.items():
        if len(places) > 1 and {place.parent.name for place in places} != ONE_VOCABULARY:
            yield f"module {name} is there {len(places)} times: {', '.join(map(str, places))}"
    for name, places in classes.items():
        if len(places) > 1:
            yield f"class {name} is there {len(places)} times: {', '.join(map(str, places))}"


def _circles(root: Path, trees: dict[Path, ast.Module]) -> Iterator[str]:
    names = {path: _module_name(root, path) for path in trees}
    known = set(names.values())
    imports = {names[path]: _imports(tree, names[path], known) for path, tree in trees.items()}
    for circle in _strongly_connected(imports):
        yield f"import circle: {' <-> '.join(sorted(circle))}"


def _module_name(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(tree: ast.Module, own: str, known: set[str]) -> set[str]:
    """The modules of ours that one imports; importing a name from a package counts for the module of that name."""
    checked = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    wanted: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in checked:
            continue
        if isinstance(node, ast.Import):
            wanted |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & known
            wanted |= inner or {node.module}
    return (wanted & known) - {own}


def _strongly_connected(graph: dict[str, set[str]]) -> list[set[str]]:
    """Sets of two or more modules that reach each other."""
    reach = {name: _reachable(graph, name) for name in graph}
    groups = [{other for other in reach[name] if name in reach[other]} for name in graph if name in reach[name]]
    return [set(group) for group in sorted({tuple(sorted(group)) for group in groups})]


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph.get(name, ())
    return seen


def main() -> int:
    """Print what breaks a rule; 1 where anything does."""
    faults = faults_of(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve())
    print("\n".join(faults) or "house rules: kept")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
