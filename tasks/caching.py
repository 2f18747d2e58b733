"""The cache policy: a step runs again only if something that it depends on has changed.

A key is made of the task's name, the content of its input artifacts, its other arguments by value,
the code of its module and of all classifier/ modules that it imports, directly or not, and the
versions of the packages that those import. Its record is a small JSON file of Prefect's.
"""

import hashlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ParamSpec

from prefect import Task, task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.filesystems import LocalFileSystem
from prefect.results import get_result_store
from prefect.serializers import JSONSerializer
from prefect.transactions import Transaction, get_transaction

from classifier import datasets
from tasks import artifacts, steps
from tasks.artifacts import Artifact
from tasks.source_code import closure, fingerprint, versions

#: The only serialiser that a record may name: plain JSON, with artifacts as its one own type.
RECORD = JSONSerializer(
    object_encoder="tasks.artifacts.to_json", object_decoder="tasks.artifacts.from_json"
)


@dataclass
class ByContent(CachePolicy):
    """Keys by content and by code. `BY_CONTENT - "device"` leaves that argument out."""

    left_out: tuple[str, ...] = ()

    def __sub__(self, other: str) -> "ByContent":
        return replace(self, left_out=(*self.left_out, other))

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **_: Any,
    ) -> str:
        """The key. A record under it that cannot be used is dropped, so that the step runs."""
        arguments = {name: value for name, value in inputs.items() if name not in self.left_out}
        module = Path(inspect.getfile(task_ctx.task.fn))
        parts = key_parts(task_ctx.task.name, module, arguments)
        key = f"{parts['task']}/{_dataset(arguments)}/{_hash(parts)}"
        record = artifacts.records() / key
        # The data root is known only now, and a moved root moves its records with it.
        get_result_store().result_storage = LocalFileSystem(basepath=str(artifacts.records()))
        if flow_parameters.get("refresh") or read_record(record) is None:
            record.unlink(missing_ok=True)
            _parts[key] = parts
        return key


BY_CONTENT = ByContent()
_parts: dict[str, dict[str, Any]] = {}  # by key, for when its record is written
_SHA_256 = re.compile("[0-9a-f]{64}")

P = ParamSpec("P")


def step(**options: Any) -> Callable[[Callable[P, Artifact]], Task[P, Artifact]]:
    """A Prefect task whose result is one artifact, kept and reused under its cache policy's key."""
    as_task = task(
        persist_result=True,
        result_serializer=RECORD,
        cache_result_in_memory=False,  # a record is read from disk, where it was just checked
        task_run_name=steps.task_run_name,
        on_completion=[steps.note],
        on_failure=[steps.note],
        **options,
    )

    def decorate(function: Callable[P, Artifact]) -> Task[P, Artifact]:
        made: Task[P, Artifact] = as_task(function)
        made.on_commit(_keep_parts)
        return made

    return decorate


def _keep_parts(done: Transaction) -> None:
    """Write the parts of a key just before its record: a step that fails leaves neither."""
    key = str(done.key)
    artifacts.write_atomically(
        parts_file(artifacts.records() / key), json.dumps(_parts[key], indent=1)
    )


_keep_parts.log_on_run = False  # type: ignore[attr-defined] # each step would have two lines of it


def current_key() -> str:
    """The key of the step that is running."""
    transaction = get_transaction()
    if transaction is None or transaction.key is None:
        raise RuntimeError("current_key() is for the inside of a step.")
    return transaction.key


def key_parts(name: str, module: Path, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """All that a key depends on, flat: what can be named when it changes."""
    code = closure(module)
    if "dataset" in arguments:
        code |= closure(datasets.declared()[arguments["dataset"]][1])
    parts: dict[str, Any] = {"task": name, "format": artifacts.FORMAT}
    for argument, value in arguments.items():
        parts |= _flat(argument, value)
    parts |= {f"code {path}": fingerprint(path) for path in sorted(code)}
    parts |= {f"version {package}": number for package, number in versions(code).items()}
    parts["version python"] = f"{sys.version_info.major}.{sys.version_info.minor}"
    return parts


def parts_file(record: Path) -> Path:
    """Where the parts of a record's key are kept."""
    return record.with_name(record.name + ".parts.json")


def read_record(record: Path) -> Artifact | None:
    """The artifact of that record, if the record can be trusted and the artifact is intact.

    Read as plain JSON, before Prefect reads it: Prefect obeys the serialiser that a record names.
    """
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        if content["metadata"]["serializer"] != RECORD.model_dump():
            return None
        artifact = json.loads(content["result"], object_hook=artifacts.from_json)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(artifact, Artifact) or not _lies_in_cache(artifact):
        return None
    return artifact if artifacts.intact(artifact) else None


def _lies_in_cache(artifact: Artifact) -> bool:
    """Whether kind and digest are what they should be, and so cannot lead out of the root."""
    return artifact.kind in artifacts.KINDS and bool(_SHA_256.fullmatch(artifact.digest))


def _flat(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Artifact):
        return {name: value.digest}
    if is_dataclass(value):
        return {f"{name}.{item.name}": getattr(value, item.name) for item in fields(value)}
    return {name: value}


def _dataset(arguments: Mapping[str, Any]) -> str:
    of_artifacts = (value.dataset for value in arguments.values() if isinstance(value, Artifact))
    return str(arguments.get("dataset") or next(of_artifacts))


def _hash(parts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
