"""What a step depends on besides its arguments: project modules and versions of packages.

Components are named `code <path>`, `format <package>` and `version <package>`. A project module
lies below the step's project root, outside site-packages, virtual environments and tests. A
top-level package whose `__init__.py` sets FORMAT counts by that number alone, and so does this one.
"""

import ast
import hashlib
import importlib.util
import inspect
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from artifacts import FORMAT
from artifacts.errors import InputError

Components = dict[str, str]

_STARTED_AT = time.time_ns()  # this module is among the first that a process imports
_OUTSIDE = {"site-packages", "dist-packages", "tests"}
#: This package, wherever it lies, carries a FORMAT; what it imports changes no result.
_MACHINERY = {"artifacts", "prefect", "filelock"}
#: Import name -> distribution, for the common ones: asking the installation takes 0.2 s.
_DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "PyYAML"}


#: Keywords of calls that do not count, by the name of what is called.
IgnoredKeywords = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class CodeRule:
    """Which code counts.

    Fields:
        root: project root; paths in components are relative to it.
        by_value: files that do not count, because what they define counts by value.
        ignored_keywords: keywords of calls that do not count.
    """

    root: Path
    by_value: frozenset[Path] = frozenset()
    ignored_keywords: IgnoredKeywords = ()


def source_file(function: Callable[..., object]) -> Path:
    """Return the file in which a step's function is written."""
    return Path(inspect.getfile(inspect.unwrap(function))).resolve()


def project_root(function: Callable[..., object]) -> Path:
    """Return the folder from which the function's module is imported."""
    file = source_file(function)
    folder = file.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    by_name = file.parents[function.__module__.count(".")]
    return min(folder, by_name, key=lambda path: len(path.parts))


def files_of(types: Iterable[type]) -> frozenset[Path]:
    """Return the files that define these types."""
    modules = (sys.modules[kind.__module__] for kind in types)
    return frozenset(Path(str(module.__file__)).resolve() for module in modules)


def components(start: Path, rule: CodeRule) -> Components:
    """Return the components of a file and of all that it imports, directly or not.

    Imports within functions count; those for type checkers alone do not. Within one process the
    first look at a file holds: see `edited_since_start`.

    Raises:
        InputError: a module is neither part of the project nor of an installed package.
    """
    return dict(_components(start, rule))


@cache
def _components(start: Path, rule: CodeRule) -> tuple[tuple[str, str], ...]:
    found: Components = {
        "version python": f"{sys.version_info.major}.{sys.version_info.minor}",
        f"format {__package__}": str(FORMAT),
    }
    waiting, seen = [start], set(rule.by_value)
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        inside = path.relative_to(rule.root)
        if not _is_empty(path):
            found[f"code {inside.as_posix()}"] = _fingerprint(path, rule.ignored_keywords)
        for name in _imports(path, inside.parent.parts):
            files, elsewhere = _resolve(name, rule.root)
            number = _format_number(files[0]) if files else None
            if elsewhere:
                found |= _external(elsewhere, path)
            elif number is not None:
                found[f"format {files[0].parent.name}"] = str(number)
            else:
                waiting += files
    return tuple(sorted(found.items()))


def edited_since_start(found: Mapping[str, str], root: Path) -> str | None:
    """Return the first of these files that was written after this process started.

    The process may hold the older code in memory, so its results do not belong to the newer.
    """
    for name in found:
        kind, _, path = name.partition(" ")
        if kind != "code":
            continue
        try:
            stat = (root / path).stat()
        except OSError:
            return path
        if max(stat.st_mtime_ns, stat.st_ctime_ns) > _STARTED_AT:
            return path
    return None


@cache
def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path} cannot be read as Python ({error}): correct it.") from error


def _is_empty(path: Path) -> bool:
    """Return whether the file holds a docstring at most."""
    return all(_is_docstring(node) for node in _parse(path).body)


@cache
def _fingerprint(path: Path, ignored: IgnoredKeywords) -> str:
    """Return the SHA-256 of the tree without docstrings, comments and ignored keywords."""
    return hashlib.sha256(_dump(_parse(path), dict(ignored)).encode()).hexdigest()


@cache
def _format_number(path: Path) -> int | None:
    """Return the value of a line `FORMAT = 3` in a package's `__init__.py`."""
    for node in _parse(path).body if path.name == "__init__.py" else ():
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = [getattr(target, "id", None) for target in node.targets]
            if names == ["FORMAT"] and isinstance(node.value.value, int):
                return node.value.value
    return None


def _imports(path: Path, package: tuple[str, ...]) -> list[str]:
    """Return the absolute dotted names that a module of that package imports.

    `from a import b` gives a and a.b, because b may be a module.
    """
    names: set[str] = set()
    for node in _statements(_parse(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            names.add(base)
            names.update(f"{base}.{alias.name}".strip(".") for alias in node.names)
    return sorted(names - {""})


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Walk the tree, but not into `if TYPE_CHECKING:`."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and _is_type_checking(node.test):
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        yield node


def _is_type_checking(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", None), getattr(test, "attr", None))


def _dump(node: object, ignored: Mapping[str, tuple[str, ...]]) -> str:
    """Return the tree as text, as `ast.dump` does, without what does not count."""
    if not isinstance(node, ast.AST):
        if isinstance(node, list):
            return "[" + ",".join(_dump(item, ignored) for item in node) + "]"
        return repr(node)
    values = []
    for name, value in ast.iter_fields(node):
        kept = value
        if name == "body" and isinstance(value, list) and value and _is_docstring(value[0]):
            kept = value[1:]
        if name == "keywords" and isinstance(node, ast.Call):
            left_out = ignored.get(str(getattr(node.func, "id", None)), ())
            kept = [keyword for keyword in value if keyword.arg not in left_out]
        values.append(f"{name}={_dump(kept, ignored)}")
    return f"{type(node).__name__}({','.join(values)})"


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


@cache
def _resolve(name: str, root: Path) -> tuple[tuple[Path, ...], str | None]:
    """Return the project files that importing this name runs, or the top-level name elsewhere.

    The files are those of the packages on the way, the outermost first, and of the module.
    """
    parts = name.split(".")
    found: list[Path] = []
    for depth in range(1, len(parts) + 1):
        base = root.joinpath(*parts[:depth])
        candidates = (base / "__init__.py", base.with_suffix(".py"))
        path = next((path for path in candidates if path.is_file()), None)
        if path is None and not base.is_dir():
            break  # a name within the module before
        if path:
            found.append(path)
    inside = root / parts[0]
    standard = parts[0] in sys.stdlib_module_names
    if (found or (inside.is_dir() and not standard)) and not _is_outside(inside, root):
        return tuple(found), None
    return (), None if standard else parts[0]


def _is_outside(path: Path, root: Path) -> bool:
    inside = path.relative_to(root).parts
    return any(part in _OUTSIDE or (root / part / "pyvenv.cfg").is_file() for part in inside)


def _external(package: str, importer: Path) -> Components:
    if package in _MACHINERY:
        return {}
    return {f"version {package}": _version(package, importer)}


@cache
def _version(package: str, importer: Path) -> str:
    """Return the version of the distribution that brings this import name.

    Local tags such as +cpu do not count, because they say where something runs. A module that is
    nowhere counts as absent: its import fails, or stands in a `try`.
    """
    known = _DISTRIBUTIONS.get(package, package)
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(known).partition("+")[0]
    if distributions := sorted(set(_installed().get(package, ()))):  # several share a namespace
        return ", ".join(metadata.version(name).partition("+")[0] for name in distributions)
    if importlib.util.find_spec(package) is None:
        return "absent"
    raise InputError(
        f"{importer} imports {package}, which is neither part of this project nor of an installed "
        "package, so a change in it would go unnoticed. Move it into the project."
    )


@cache
def _installed() -> Mapping[str, list[str]]:
    """Return the distributions of each import name."""
    return metadata.packages_distributions()
