"""Cache records: what was made from what, and in what a new key differs from an older one.

    <root>/cache/records/<task>/<dataset>/<key>              Prefect's: names one artifact, as JSON
    <root>/cache/records/<task>/<dataset>/<key>.parts.json   all that the key depends on

A record's modification time is when it was last used. Nothing here imports Prefect.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from classifier import datasets
from tasks import artifacts
from tasks.artifacts import Artifact
from tasks.source_code import closure, fingerprint, versions

#: What a key depends on, flat: what can be named when it changes.
Parts = dict[str, Any]

#: The only serialiser that a record may name: plain JSON, with artifacts as its one own type.
SERIALISER = {
    "type": "json",
    "jsonlib": "json",
    "object_encoder": "tasks.artifacts.to_json",
    "object_decoder": "tasks.artifacts.from_json",
    "dumps_kwargs": {},
    "loads_kwargs": {},
}
#: What is noted beside the parts: that the record was taken over, or why it was dropped.
NOT_IN_KEY = {"adopted", "dropped"}
SHOWN = 3  # differences that a sentence names
_SHA_256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One record that can be trusted; whether its artifact is intact is another question.

    Fields:
        key: `<task>/<dataset>/<hash>`.
        artifact: what was made.
        used: when it was last used, in seconds since the epoch.
    """

    key: str
    artifact: Artifact
    used: float

    @property
    def task(self) -> str:
        """Which step made it."""
        return self.key.partition("/")[0]

    def parts(self) -> Parts:
        """All that the key depends on; nothing where that was lost."""
        return parts_of(self.key)


def path_of(key: str) -> Path:
    """The file of the record under that key."""
    return artifacts.records() / key


def parts_path(key: str) -> Path:
    """The file of the parts of that key."""
    return artifacts.records() / f"{key}{_PARTS}"


_PARTS = ".parts.json"


def parts_of(key: str) -> Parts:
    """All that the key depends on; nothing where that was lost."""
    try:
        return dict(json.loads(parts_path(key).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def adoption(parts: Parts) -> str | None:
    """That the record was taken over from another key, if it was."""
    about = parts.get("adopted")
    return f"adopted on {about['at']} after {about['because']}" if about else None


def take_over(record: Record, key: str, parts: Parts, because: str) -> None:
    """Let the record's artifact count under another key too, and note that."""
    about = {"from": record.key, "at": f"{datetime.now(UTC):%Y-%m-%d}", "because": because}
    content = path_of(record.key).read_text(encoding="utf-8").replace(record.key, key)
    artifacts.write_atomically(parts_path(key), json.dumps(parts | {"adopted": about}, indent=1))
    artifacts.write_atomically(path_of(key), content)


def drop(key: str, why: str | None = None) -> None:
    """Forget the record; with a reason, that is what the next run will give for making it again."""
    path_of(key).unlink(missing_ok=True)
    if why:
        artifacts.write_atomically(parts_path(key), json.dumps(parts_of(key) | {"dropped": why}))
    else:
        parts_path(key).unlink(missing_ok=True)


def read(key: str) -> Record | str:
    """The record under that key, or what is wrong with it.

    Read as plain JSON, before Prefect reads it: Prefect obeys the serialiser that a record names.
    """
    return _read(key, os.fspath(path_of(key)))


def _read(key: str, path: str) -> Record | str:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - ten thousand of them
            used = os.fstat(file.fileno()).st_mtime
            content = json.load(file)
        metadata = content["metadata"]
        if metadata["serializer"] != SERIALISER:
            return "its record names another serialiser"
        if not metadata["storage_key"].endswith(key):
            return "its record is of another key"
        artifact = json.loads(content["result"], object_hook=artifacts.from_json)
    except FileNotFoundError:
        return "its record is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "its record is damaged"
    if not isinstance(artifact, Artifact) or not _lies_in_cache(artifact):
        return "its record is damaged"
    return Record(key=key, artifact=artifact, used=used)


def _lies_in_cache(artifact: Artifact) -> bool:
    """Whether all is as it should be, and so cannot lead out of the root."""
    return (
        artifact.kind in artifacts.KINDS
        and bool(_SHA_256.fullmatch(str(artifact.digest)))
        and isinstance(artifact.size, int)
        and isinstance(artifact.made, dict)
    )


def all_keys(within: str = "") -> Iterator[str]:
    """The keys of all records below `<task>/<dataset>`, readable or not."""
    top = os.fspath(artifacts.records())
    for folder, _, names in os.walk(os.path.join(top, within)):  # noqa: PTH118 - ten thousand of them
        place = folder[len(top) + 1 :]
        yield from (f"{place}/{name}" for name in names if _SHA_256.fullmatch(name))


def everything() -> Iterator[Record]:
    """All records that can be trusted."""
    top = os.fspath(artifacts.records())
    found = (_read(key, f"{top}/{key}") for key in all_keys())
    return (record for record in found if isinstance(record, Record))


# Keys


def parts(task: str, module: str, arguments: Mapping[str, Any]) -> Parts:
    """All that a step depends on. `module` is its file, relative to the project."""
    found: Parts = {"task": task, "format": artifacts.FORMAT, "module": module}
    for argument, value in arguments.items():
        found |= _flat(argument, value)
    return found | _of_code(module, arguments.get("dataset"))


def with_present_code(old: Parts) -> Parts | None:
    """The same step on the same inputs with the code that stands here now.

    None if that is not all that differs: its module is gone, or a package has another version.
    """
    kept = {name: value for name, value in old.items() if name not in NOT_IN_KEY}
    try:
        now = _of_code(old["module"], old.get("dataset"))
    except (OSError, KeyError):
        return None
    versions_now = {name: value for name, value in now.items() if name.startswith("version ")}
    if any(old.get(name, value) != value for name, value in versions_now.items()):
        return None
    return {n: v for n, v in kept.items() if not n.startswith(("code ", "version "))} | now


def _of_code(module: str, dataset: str | None) -> Parts:
    code = closure(artifacts.PROJECT / module)
    if dataset:
        code |= closure(datasets.declared()[dataset][1])
    found: Parts = {f"code {path}": fingerprint(path) for path in sorted(code)}
    found |= {f"version {package}": number for package, number in versions(code).items()}
    found["version python"] = f"{sys.version_info.major}.{sys.version_info.minor}"
    return found


def key(parts: Parts, dataset: str) -> str:
    """`<task>/<dataset>/<hash>`."""
    text = json.dumps(parts, sort_keys=True)
    return f"{parts['task']}/{dataset}/{hashlib.sha256(text.encode()).hexdigest()}"


def _flat(name: str, value: Any) -> Parts:
    if isinstance(value, Artifact):
        return {f"{_INPUT}{name}": value.digest}
    if is_dataclass(value):
        return {f"{name}.{item.name}": getattr(value, item.name) for item in fields(value)}
    return {name: value}


_INPUT = "input "


def inputs(parts: Parts) -> dict[str, str]:
    """Digests of the input artifacts, by the names of the arguments."""
    return {
        name.removeprefix(_INPUT): str(value)
        for name, value in parts.items()
        if name.startswith(_INPUT)
    }


# Reasons


def reason(key: str, parts: Parts) -> str | None:
    """Why there is no record under the key although the step ran before; None if it never did.

    It is held against the record of the same task and dataset that was used last.
    """
    if parts_path(key).exists():
        return str(parts_of(key).get("dropped", "its record is missing"))
    place, _, _ = key.rpartition("/")
    for other in sorted(all_keys(place), key=_used, reverse=True):
        if old := parts_of(other):
            return "; ".join(_short(difference(old, parts))) or None
    return None


def _used(key: str) -> float:
    try:
        return path_of(key).stat().st_mtime
    except OSError:
        return 0.0


def _short(said: list[str]) -> list[str]:
    more = len(said) - SHOWN
    return said if more <= 1 else [*said[:SHOWN], f"{more} more"]


def difference(old: Parts, new: Parts) -> list[str]:
    """What changed from one key's parts to another's, in words; code and versions come last."""
    names = [name for name in new | old if name not in NOT_IN_KEY]
    return [_change(n, old.get(n), new.get(n)) for n in names if old.get(n) != new.get(n)]


def _change(name: str, old: Any, new: Any) -> str:
    kind, _, rest = name.partition(" ")
    if kind == "code":
        return f"{rest} {'is new' if old is None else 'is gone' if new is None else 'changed'}"
    if kind == "input":
        return f"its {rest} is another ({_value(old)} -> {_value(new)})"
    return f"{rest if kind == 'version' else name} {_value(old)} -> {_value(new)}"


def _value(value: Any) -> str:
    if value is None:
        return "none"
    text = str(value)
    return f"{text[:8]}…" if _SHA_256.fullmatch(text) else text
