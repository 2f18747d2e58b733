"""Cache records: which key gave which artifact.

    <root>/cache/records/<step>/<group>/<hash>                    names one artifact, as JSON
    <root>/cache/records/<step>/<group>/<hash>.components.json    the components of the key

Prefect writes and reads the first; nothing of it is believed that was not validated here, as plain
JSON, because Prefect obeys the serialiser that a record names. A record's modification time is
that of its last use. Nothing here imports Prefect.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from artifacts import artifact as encoding
from artifacts import keys, layout
from artifacts.artifact import Artifact, find_damage, to_json
from artifacts.files import write_atomically
from artifacts.keys import KeyComponents

#: The only serialiser that a record may name: plain JSON, with artifacts as its one own type.
SERIALISER: dict[str, Any] = {
    "type": "json",
    "jsonlib": "json",
    "object_encoder": f"{encoding.__name__}.to_json",
    "object_decoder": f"{encoding.__name__}.from_json",
    "dumps_kwargs": {},
    "loads_kwargs": {},
}
_FIELDS = {"kind", "digest", "size", "metadata"}
_MOST = 2**63  # bytes, more than any file system holds
_METADATA = {
    "step": str,
    "group": str,
    "flow_run": str,
    "task_run": str,
    "at": str,
    "seconds": float,
    "why": str | None,
}


@dataclass(frozen=True, kw_only=True)
class Record:
    """A validated record; whether its artifact is intact is another question.

    Fields:
        key: `<step>/<group>/<hash>`.
        artifact: what the key gave.
        last_used: in seconds since the epoch.
    """

    key: str
    artifact: Artifact
    last_used: float

    @property
    def step(self) -> str:
        """The step that made the artifact."""
        return self.key.partition("/")[0]

    @property
    def place(self) -> str:
        """Step and group: `<step>/<group>`."""
        return self.key.rpartition("/")[0]

    def components(self) -> KeyComponents:
        """Return the components of the key; nothing where they are lost."""
        return components_of(self.key)


def path_of(key: str) -> Path:
    """Return the file of the record."""
    return layout.records() / key


def components_path(key: str) -> Path:
    """Return the file of the key's components."""
    return layout.records() / f"{key}.components.json"


def components_of(key: str) -> KeyComponents:
    """Return the components of the key; nothing where they are lost."""
    try:
        found = json.loads(components_path(key).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write_components(key: str, components: KeyComponents) -> None:
    """Write the components of the key."""
    write_atomically(components_path(key), json.dumps(components, indent=1))


def write(key: str, artifact: Artifact) -> None:
    """Write a record as Prefect writes it."""
    metadata = {"storage_key": key, "expiration": None, "serializer": SERIALISER}
    content = {"metadata": metadata, "result": json.dumps(to_json(artifact))}
    write_atomically(path_of(key), json.dumps(content))


def read(key: str) -> Record | str:
    """Return the record under that key, or say why it cannot be used."""
    return _read(key, os.fspath(path_of(key)))


def _read(key: str, path: str) -> Record | str:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - ten thousand of them
            last_used = os.fstat(file.fileno()).st_mtime
            content = json.load(file)
        metadata = content["metadata"]
        if metadata["serializer"] != SERIALISER:
            return "its record names another serialiser"
        if f"/{metadata['storage_key']}".endswith(f"/{key}"):
            value = json.loads(content["result"])
            if is_valid(value):
                return Record(key=key, artifact=Artifact(**value), last_used=last_used)
        else:
            return "its record belongs to another key"
    except FileNotFoundError:
        return "its record is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return "its record is damaged"


def is_valid(value: Any) -> bool:
    """Return whether the value describes an artifact, and nothing in it leads out of the cache."""
    return (
        isinstance(value, dict)
        and value.keys() == _FIELDS
        and isinstance(value["kind"], str)
        and bool(layout.KIND.fullmatch(value["kind"]))
        and value["kind"] not in layout.RESERVED
        and isinstance(value["digest"], str)
        and bool(layout.SHA_256.fullmatch(value["digest"]))
        and type(value["size"]) is int
        and 0 <= value["size"] < _MOST
        and _describes_a_step(value["metadata"])
    )


def _describes_a_step(metadata: Any) -> bool:
    """Return whether the metadata has what `step.py` writes into every record."""
    if not isinstance(metadata, dict) or not _METADATA.keys() <= metadata.keys():
        return False
    if not all(isinstance(metadata[name], kind) for name, kind in _METADATA.items()):
        return False
    adopted = metadata.get("adopted", {"at": "", "because": ""})
    return (
        bool(layout.GROUP.fullmatch(metadata["group"]))
        and isinstance(adopted, dict)
        and adopted.keys() >= {"at", "because"}
    )


def validate_or_evict(key: str) -> str | None:
    """Let the record serve, or evict it and say why; the key's lock is held.

    A record that serves is written anew from what was validated, and so counts as used now.
    """
    found = read(key)
    if isinstance(found, str):
        why: str | None = found
    else:
        why = find_damage(found.artifact)
    if why is None and isinstance(found, Record):
        write(key, found.artifact)
    elif path_of(key).exists():
        evict(key, why)
    return why


def evict(key: str, why: str | None = None) -> None:
    """Remove the record; the next run gives the reason for computing its artifact again."""
    path_of(key).unlink(missing_ok=True)
    if why:
        write_components(key, components_of(key) | {"evicted": why})
    else:
        components_path(key).unlink(missing_ok=True)


def adopt(record: Record, key: str, components: KeyComponents, because: str) -> None:
    """Let the record's artifact count under another key too, and note that."""
    about = {"from": record.key, "at": f"{datetime.now(UTC):%Y-%m-%d}", "because": because}
    metadata = record.artifact.metadata | {"adopted": about}
    write_components(key, components | {"adopted": about})
    write(key, replace(record.artifact, metadata=metadata))


def adoption(about: dict[str, Any]) -> str | None:
    """Say that a record was adopted, from its artifact's metadata or its components."""
    adopted = about.get("adopted")
    if not isinstance(adopted, dict):
        return None
    return f"adopted on {adopted.get('at')} after {adopted.get('because')}"


def all_keys(within: str = "") -> Iterator[str]:
    """Return the keys of all records below `<step>/<group>`, valid or not."""
    top = os.fspath(layout.records())
    for folder, _, names in os.walk(os.path.join(top, within)):  # noqa: PTH118 - ten thousand of them
        place = folder[len(top) + 1 :]
        yield from (f"{place}/{name}" for name in names if layout.SHA_256.fullmatch(name))


def everything(within: str = "") -> Iterator[Record]:
    """Return all valid records below `<step>/<group>`, in no order."""
    top = os.fspath(layout.records())
    found = (_read(key, f"{top}/{key}") for key in all_keys(within))
    return (record for record in found if isinstance(record, Record))


def reason(key: str, components: KeyComponents) -> str | None:
    """Say why there is no record under the key although the step ran before; None if it never did.

    The key is compared with the record of the same step and group that was used last; where none
    is left, the one evicted last says why.
    """
    if components_path(key).exists():
        return str(components_of(key).get("evicted", "its record is missing"))
    place, _, _ = key.rpartition("/")
    for other in sorted(all_keys(place), key=_last_used, reverse=True):
        if old := components_of(other):
            return keys.shorten(keys.differences(old, components)) or None
    return _last_eviction(place, components)


def _last_eviction(place: str, components: KeyComponents) -> str | None:
    """Say what changed since the record that was evicted last, and why that was."""
    noted = (layout.records() / place).glob("*.components.json")
    for file in sorted(noted, key=_changed, reverse=True):
        key = f"{place}/{file.name.removesuffix('.components.json')}"
        old = components_of(key)
        if why := old.get("evicted"):
            return "; ".join(filter(None, [keys.shorten(keys.differences(old, components)), why]))
    return None


def _last_used(key: str) -> float:
    return _changed(path_of(key))


def _changed(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
