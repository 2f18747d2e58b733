"""What a task's result depends on besides its arguments: code, and versions of packages."""

import ast
import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path

from tasks.artifacts import PROJECT

#: Followed by import name; what any other import brings is known by its version.
ROOMS = ("classifier", "tasks")
#: Left out: recipes enter keys by value; the others carry a format number or only show.
LEFT_OUT = {
    "classifier/recipe.py",
    "tasks/artifacts.py",
    "tasks/caching.py",
    "tasks/locks.py",
    "tasks/progress.py",
    "tasks/records.py",
    "tasks/source_code.py",
    "tasks/steps.py",
}
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}  # import name -> package name


def closure(start: Path) -> frozenset[str]:
    """The file and the project's modules that it imports, directly or not, within functions too.

    Paths are relative to the project.
    """
    found: set[str] = set()
    waiting = [start.relative_to(PROJECT).as_posix()]
    while waiting:
        path = waiting.pop()
        if path not in found and path not in LEFT_OUT:
            found.add(path)
            waiting += [there for name in _imports(path) if (there := _file(name))]
    return frozenset(found)


@cache
def fingerprint(path: str) -> str:
    """SHA-256 of the syntax tree without docstrings: comments and layout do not count.

    In a dataset file the `sources` and `recipes` of its declaration do not count either: where
    data comes from is checked by its content, and recipes enter keys by value.
    """
    tree = _tree(path)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            body[0] = ast.Pass()
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "Dataset":
            node.keywords = [key for key in node.keywords if key.arg not in ("sources", "recipes")]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def versions(code: Iterable[str]) -> dict[str, str]:
    """Versions of the third-party packages that the classifier/ modules among these import.

    Local tags such as +cpu are left out: where something runs is no part of a key.
    """
    subject = [path for path in code if path.startswith("classifier/")]
    names = {name.partition(".")[0] for path in subject for name in _imports(path)}
    packages = sorted(names - sys.stdlib_module_names - set(ROOMS))
    return {package: _version(DISTRIBUTIONS.get(package, package)) for package in packages}


@cache
def _version(distribution: str) -> str:
    return version(distribution).partition("+")[0]


@cache
def _imports(path: str) -> frozenset[str]:
    """Dotted names that the file imports; `from a import b` gives a and a.b: b may be a module.

    What is imported for type checkers alone does not count.
    """
    names: set[str] = set()
    waiting: list[ast.AST] = [_tree(path)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update((node.module, *(f"{node.module}.{name.name}" for name in node.names)))
    return frozenset(names)


@cache
def _file(name: str) -> str | None:
    """The project's file of that dotted name; None for all else."""
    base = Path(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if base.parts[0] in ROOMS and (PROJECT / path).is_file():
            return path.as_posix()
    return None


def _tree(path: str) -> ast.Module:
    return ast.parse((PROJECT / path).read_text(encoding="utf-8"), filename=path)


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
