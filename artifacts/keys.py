"""Cache keys: all that a step depends on, as named components, and how two keys differ.

Components are flat and JSON-ready: `step`, each argument by value (`recipe.epochs`), each input
artifact by digest (`input model`), and the code of `code.py`.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from artifacts import code, layout
from artifacts.artifact import Artifact
from artifacts.code import CodeRule, IgnoredKeywords
from artifacts.errors import ArgumentError

KeyComponents = dict[str, Any]

#: What stands beside the components: the record was adopted, or why it was evicted.
ANNOTATIONS = frozenset({"adopted", "evicted"})
_OWN = {"step", "module"} | ANNOTATIONS  # components that are no arguments
SHOWN = 3  # differences that a sentence names
CODE = ("code ", "format ", "version ")  # components that follow from the code
_INPUT = "input "
_DEFAULT_GROUP = "all"


@dataclass(frozen=True, kw_only=True)
class Extra:
    """Further code that an argument brings into a key, such as the file of a named plug-in.

    Fields:
        file: maps the argument's value to a file of the project.
        ignored_keywords: keywords of calls in it that do not count.
    """

    file: Callable[[Any], Path]
    ignored_keywords: IgnoredKeywords = ()


@dataclass(frozen=True, kw_only=True)
class KeyRule:
    """What counts in the keys of a step.

    Fields:
        step: its name.
        file: the file of its function.
        rule: which code counts.
        ignored: arguments that do not count.
        group_by: the argument by whose value records are grouped; without that argument a step
            takes the group of its first input artifact.
        extra: further code, by the name of the argument that brings it.
        environment: variables that the step reads, and that its key therefore holds otherwise.
    """

    step: str
    file: Path
    rule: CodeRule
    ignored: frozenset[str] = frozenset()
    group_by: str | None = None
    extra: tuple[tuple[str, Extra], ...] = ()
    environment: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not layout.GROUP.fullmatch(self.step):
            raise ArgumentError(
                f"{self.step!r} cannot name a step: use letters, digits, dots, dashes and "
                "underscores."
            )

    def components(self, arguments: Mapping[str, Any]) -> KeyComponents:
        """Return the key components of one call.

        Raises:
            ArgumentError: an argument has no JSON form, so that it cannot be part of a key, or its
                name means something else in one.
            InputError: code cannot be read or found.
        """
        found: KeyComponents = {"step": self.step, "module": self._module}
        for name, value in arguments.items():
            if name in self.ignored:
                continue
            if name in _OWN:
                raise ArgumentError(
                    f"{self.step} cannot be cached: its argument {name} has a name that means "
                    "something else in a key. Rename it."
                )
            found |= _flatten(name, value, self.step)
        return found | self.code(arguments)

    def code(self, arguments: Mapping[str, Any]) -> KeyComponents:
        """Return the components of the code alone, with `extra <argument>` for its plug-ins."""
        found: KeyComponents = dict(code.components(self.file, self.rule))
        for name, extra in self.extra:
            if name in arguments:
                rule = CodeRule(
                    root=self.rule.root,
                    by_value=self.rule.by_value,
                    ignored_keywords=extra.ignored_keywords,
                )
                found = code.components(extra.file(arguments[name]).resolve(), rule) | found
        return found

    def key(self, components: KeyComponents, arguments: Mapping[str, Any]) -> str:
        """Return `<step>/<group>/<hash>`.

        Raises:
            ArgumentError: the group is no name of a folder.
        """
        group = str(arguments.get(self.group_by or "", "")) or _group_of_inputs(arguments)
        if not layout.GROUP.fullmatch(group):
            raise ArgumentError(
                f"{self.group_by} is {group!r}: use letters, digits, dots, dashes and underscores."
            )
        return key_of(components, group)

    @property
    def _module(self) -> str:
        return self.file.relative_to(self.rule.root).as_posix()


def key_of(components: KeyComponents, group: str) -> str:
    """Return the key of these components: `<step>/<group>/<hash>`."""
    text = json.dumps(components, sort_keys=True)
    return f"{components['step']}/{group}/{hashlib.sha256(text.encode()).hexdigest()}"


def _group_of_inputs(arguments: Mapping[str, Any]) -> str:
    for artifact in artifacts_of(arguments.values()):
        if group := artifact.metadata.get("group"):
            return str(group)
    return _DEFAULT_GROUP


def artifacts_of(values: Iterable[Any]) -> Iterable[Artifact]:
    """Return the artifacts among these values, also those in lists."""
    for value in values:
        if isinstance(value, Artifact):
            yield value
        elif isinstance(value, list | tuple):
            yield from artifacts_of(value)


def _flatten(name: str, value: Any, step: str) -> KeyComponents:
    if isinstance(value, Artifact):
        return {f"{_INPUT}{name}": value.digest}
    if isinstance(value, list | tuple) and any(isinstance(item, Artifact) for item in value):
        found: KeyComponents = {}
        for number, item in enumerate(value):
            found |= _flatten(f"{name}[{number}]", item, step)
        return found
    if is_dataclass(value) and not isinstance(value, type):
        found = {name: type(value).__name__}
        for item in fields(value):
            found |= _flatten(f"{name}.{item.name}", getattr(value, item.name), step)
        return found
    try:
        return {name: _plain(value)}
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"{step} cannot be cached: its argument {name} is {type(value).__name__}, which has no "
            "JSON form. Pass an artifact, a dataclass or plain values."
        ) from error


def _plain(value: Any) -> Any:
    """Return the value as JSON has it; keys of objects are texts, and so cannot coincide."""

    def check(item: Any) -> None:
        if isinstance(item, dict):
            if not all(isinstance(key, str) for key in item):
                raise TypeError("a key is no text")
            item = item.values()
        elif not isinstance(item, list | tuple):
            return
        for inner in item:
            check(inner)

    text = json.dumps(value, allow_nan=False)
    check(value)
    return json.loads(text)


def inputs(components: KeyComponents) -> dict[str, str]:
    """Return the digests of the input artifacts, by the names of the arguments."""
    return {name: str(digest) for name, digest in _under(_INPUT, components).items()}


def parameters(components: KeyComponents) -> dict[str, Any]:
    """Return the arguments that count by value."""
    return {n: v for n, v in components.items() if " " not in n and n not in _OWN}


def files(components: KeyComponents) -> dict[str, str]:
    """Return the digests of the code files, by path."""
    return _under("code ", components)


def versions(components: KeyComponents) -> dict[str, str]:
    """Return the versions of the packages, by import name."""
    return _under("version ", components)


def same_but_for_code(old: KeyComponents, new: KeyComponents) -> bool:
    """Return whether code is all that differs: no argument, input or version of a package."""
    for name in old | new:
        is_code = name.startswith(("code ", "format "))
        new_package = name.startswith("version ") and not (name in old and name in new)
        if is_code or new_package or name in ANNOTATIONS:
            continue
        if old.get(name) != new.get(name):
            return False
    return True


def _under(prefix: str, components: KeyComponents) -> dict[str, Any]:
    return {n.removeprefix(prefix): v for n, v in components.items() if n.startswith(prefix)}


def differences(old: KeyComponents, new: KeyComponents) -> list[str]:
    """Say what changed from one key to another; code and versions come last."""
    old, new = ({n: v for n, v in each.items() if v != []} for each in (old, new))  # as if absent
    names = [name for name in new | old if name not in ANNOTATIONS]
    return [
        _describe_change(name, old.get(name), new.get(name))
        for name in sorted(names, key=lambda name: name.startswith(CODE))
        if old.get(name) != new.get(name)
    ]


def shorten(differences: list[str]) -> str:
    """Join differences into one sentence that names a few of them."""
    more = len(differences) - SHOWN
    shown = differences if more <= 1 else [*differences[:SHOWN], f"{more} more"]
    return "; ".join(shown)


def _describe_change(name: str, old: Any, new: Any) -> str:
    kind, _, rest = name.partition(" ")
    if kind == "code":
        change = "was added" if old is None else "was removed" if new is None else "changed"
        return f"{rest} {change}"
    if kind == "input" and (old is None or new is None):
        return f"its {rest} was {'added' if old is None else 'removed'} ({_short(new or old)})"
    if kind == "input":
        return f"its {rest} changed ({_short(old)} -> {_short(new)})"
    if kind == "format":
        return f"format of {rest} {_short(old)} -> {_short(new)}"
    return f"{rest if kind == 'version' else name} {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    if value is None:
        return "none"
    text = str(value)
    return f"{text[:8]}…" if layout.SHA_256.fullmatch(text) else text
