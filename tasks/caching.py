"""The cache policy: a step runs again only if something that it depends on has changed.

A key is made of the task's name, the content of its input artifacts, its other arguments by value,
the code of its module and of all classifier/ modules that it imports, directly or not, and the
versions of the packages that those import. Under one key one process works at a time, and what is
recorded is looked at only by the one that has the key's lock.
"""

import asyncio
import inspect
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from prefect import Task, task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.filesystems import LocalFileSystem
from prefect.locking.protocol import LockManager
from prefect.logging import get_run_logger
from prefect.results import get_result_store
from prefect.runtime import flow_run
from prefect.serializers import JSONSerializer
from prefect.transactions import IsolationLevel, Transaction, get_transaction

from tasks import artifacts, records, steps
from tasks.artifacts import Artifact
from tasks.records import Parts

if TYPE_CHECKING:
    from tasks.locks import Lock

RECORD = JSONSerializer.model_validate(records.SERIALISER)

P = ParamSpec("P")


@dataclass(frozen=True)
class Asked:
    """What a step was asked for: all that its key depends on, and whether to run in any case."""

    parts: Parts
    refresh: bool


_asked: dict[str, Asked] = {}  # by key


class StepLocks(LockManager):
    """One lock a key. Who gets it drops a record that cannot be used, and says why a step runs."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[str, Lock]] = {}  # by key: holder and lock

    def acquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,  # noqa: ARG002 - a transaction waits without limit
        hold_timeout: float | None = None,  # noqa: ARG002 - and holds until its step has ended
    ) -> bool:
        """Wait for the key's lock, saying for whom, and look at the record under it."""
        log = get_run_logger()
        lock = artifacts.lock(key)
        name = key.partition("/")[0]
        with artifacts.writing(artifacts.root()):
            lock.acquire(
                str(flow_run.name),
                lambda who: log.info("%s waits for %s, which is making the same", name, who),
            )
            self.held[key] = holder, lock
            try:
                if why := _settle(key):
                    log.info("%s runs: %s", name, why)
            except BaseException:
                self.release_lock(key, holder)
                raise
        return True

    async def aacquire_lock(self, key: str, holder: str, *limits: float | None) -> bool:
        """The same for a step that is a coroutine."""
        return await asyncio.to_thread(self.acquire_lock, key, holder, *limits)

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock back, if it is this holder's."""
        if self.is_lock_holder(key, holder):
            self.held.pop(key)[1].release()

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether this holder has it."""
        return key in self.held and self.held[key][0] == holder

    def is_locked(self, key: str) -> bool:
        """Whether anyone holds it."""
        lock = artifacts.lock(key)
        if free := lock.free():
            lock.release()
        return not free

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:  # noqa: ARG002
        """Until it is free."""
        with artifacts.lock(key):
            return True

    async def await_for_lock(self, key: str, *limit: float | None) -> bool:
        """The same for a step that is a coroutine."""
        return await asyncio.to_thread(self.wait_for_lock, key, *limit)


def _settle(key: str) -> str | None:
    """Mark the record as used now, or drop it; why the step then runs, if it ever ran before."""
    asked, found = _asked[key], records.read(key)
    if not records.path_of(key).exists():
        why = records.reason(key, asked.parts)
    elif asked.refresh:
        why = "a refresh was asked for"
    else:
        why = found if isinstance(found, str) else artifacts.damage(found.artifact)
        if why is None:
            os.utime(records.path_of(key))
            steps.explain(records.adoption(records.parts_of(key)))
            return None
    if records.path_of(key).exists():
        records.drop(key, why)
    steps.explain(why)
    return why


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
        """The key."""
        arguments = {name: value for name, value in inputs.items() if name not in self.left_out}
        written = Path(inspect.getfile(inspect.unwrap(task_ctx.task.fn)))
        module = written.relative_to(artifacts.PROJECT).as_posix()
        parts = records.parts(task_ctx.task.name, module, arguments)
        key = records.key(parts, _dataset(arguments))
        # The data root is known only now, and a moved root moves its records with it.
        get_result_store().result_storage = LocalFileSystem(basepath=str(artifacts.records()))
        _asked[key] = Asked(parts, refresh=bool(flow_parameters.get("refresh")))
        return key


BY_CONTENT = ByContent(isolation_level=IsolationLevel.SERIALIZABLE, lock_manager=StepLocks())


def _dataset(arguments: dict[str, Any]) -> str:
    of_artifacts = (value.dataset for value in arguments.values() if isinstance(value, Artifact))
    return str(arguments.get("dataset") or next(of_artifacts))


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
        @wraps(function)
        def signed(*args: P.args, **kwargs: P.kwargs) -> Artifact:
            artifact = function(*args, **kwargs)
            about = {"run": flow_run.id, "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
            return replace(artifact, made=artifact.made | about)

        made: Task[P, Artifact] = as_task(signed)
        made.on_commit(_keep_parts)
        return made

    return decorate


def _keep_parts(done: Transaction) -> None:
    """Write the parts of a key just before its record: a step that fails leaves neither."""
    key = str(done.key)
    artifacts.write_atomically(records.parts_path(key), json.dumps(_asked[key].parts, indent=1))


_keep_parts.log_on_run = False  # type: ignore[attr-defined] # each step would have two lines of it


def current_key() -> str:
    """The key of the step that is running."""
    transaction = get_transaction()
    if transaction is None or transaction.key is None:
        raise RuntimeError("current_key() is for the inside of a step.")
    return transaction.key
