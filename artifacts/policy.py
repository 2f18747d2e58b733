"""The cache policy: Prefect's machinery, with keys by content and by code.

`compute_key` runs in the process and thread of its step. Under the key's lock it validates the
record, or evicts it; then Prefect takes the lock again and looks. What the step needs to know of
its key travels in a context variable.
"""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.locking.protocol import LockManager
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_TASKS_REFRESH_CACHE

from artifacts import code, layout, records, sharing
from artifacts.errors import InputError
from artifacts.files import explain_write_errors
from artifacts.keys import KeyComponents, KeyRule
from artifacts.locks import Lock, shared_lock
from artifacts.outcomes import Outcome


@dataclass(frozen=True, kw_only=True)
class KeyRequest:
    """What the running step was asked for.

    Fields:
        task_run: id of its task run.
        key, components: of the call; no key where none could be computed.
        why: why it runs although it ran before.
        error: why there is no key.
    """

    task_run: str
    key: str | None = None
    components: KeyComponents | None = None
    why: str | None = None
    error: Exception | None = None

    @property
    def group(self) -> str:
        """The group of the key."""
        return str(self.key).split("/")[1]


_request: ContextVar[KeyRequest] = ContextVar("request")


def current_request() -> KeyRequest:
    """Return the request of the step that is running.

    Raises:
        RuntimeError: no step is running.
    """
    context, request = TaskRunContext.get(), _request.get(None)
    if context is None or request is None or request.task_run != str(context.task_run.id):
        raise RuntimeError("No step is running here: call it in a flow.")
    return request


@dataclass
class ByContent(CachePolicy):
    """Keys by the content of inputs, the value of arguments, and the code."""

    rule: KeyRule | None = None

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],  # noqa: ARG002 - a step knows its own slice alone
        **_: Any,
    ) -> str | None:
        """Return the key, and settle whether its record may serve.

        Prefect would log an error that is raised here, and run the step uncached: the step raises
        it instead.
        """
        run = str(task_ctx.task_run.id)
        try:
            request = self._request(run, inputs, refresh=_refreshes(task_ctx))
        except Exception as error:  # noqa: BLE001 - raised again by the step
            request = KeyRequest(task_run=run, error=error)
        _request.set(request)
        return request.key

    def _request(self, run: str, arguments: dict[str, Any], *, refresh: bool) -> KeyRequest:
        if self.rule is None:
            raise InputError("The cache policy of a step comes from the `step` decorator alone.")
        components = self.rule.components(arguments)
        key = self.rule.key(components, arguments)
        why = _settle(key, components, refresh=refresh)
        return KeyRequest(task_run=run, key=key, components=components, why=why)


def _settle(key: str, components: KeyComponents, *, refresh: bool) -> str | None:
    """Validate or evict the record; return why the step runs, if it ran before."""
    log = get_run_logger()
    step = key.partition("/")[0]
    with explain_write_errors(layout.root()):
        held, _ = _acquire(key)
        try:
            why = _why(key, components, refresh=refresh)
            record = records.read(key)
            if not refresh and (isinstance(record, records.Record) or sharing.pull(key)):
                why, record = None, records.read(key)
                if isinstance(record, records.Record):
                    log.info(str(Outcome.of(record.artifact, cached=True)))
        finally:
            held.release()
    if why:
        log.info("%s runs: %s", step, why)
    return why


def _acquire(key: str) -> tuple[Lock, bool]:
    """Take the key's lock, and say in the log of the run whom it waits for; return whether so."""
    held, step, log = shared_lock(key), key.partition("/")[0], get_run_logger()
    waited_for = []

    def on_wait(who: str) -> None:
        waited_for.append(who)
        log.info("%s: waiting for %s, which computes the same result", step, who)

    held.acquire(str(flow_run.name), on_wait)
    return held, bool(waited_for)


def _why(key: str, components: KeyComponents, *, refresh: bool) -> str | None:
    """Say why the step runs by what is here; an unfit record is evicted."""
    if not records.path_of(key).exists():
        return records.reason(key, components)
    return "a refresh was requested" if refresh else records.validate_or_evict(key)


def _refreshes(context: TaskRunContext) -> bool:
    own = context.task.refresh_cache
    return bool(PREFECT_TASKS_REFRESH_CACHE.value() if own is None else own)


class KeyLocks(LockManager):
    """One lock a key, for Prefect's transactions. Steps are synchronous."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, Lock]] = {}  # by key: holder and lock

    def acquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,  # noqa: ARG002 - a transaction waits without limit
        hold_timeout: float | None = None,  # noqa: ARG002 - and holds until its step has ended
    ) -> bool:
        """Wait for the key's lock, and bring what another machine computed meanwhile."""
        with explain_write_errors(layout.root()):
            held, waited = _acquire(key)
            self._held[key] = holder, held
            try:
                if waited and not records.path_of(key).exists():
                    sharing.pull(key)
            except BaseException:
                self.release_lock(key, holder)
                raise
        return True

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock back, if it is this holder's."""
        if self.is_lock_holder(key, holder):
            self._held.pop(key)[1].release()

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Return whether this holder has the lock."""
        return key in self._held and self._held[key][0] == holder

    def is_locked(self, key: str) -> bool:
        """Return whether anyone has the lock."""
        return not shared_lock(key).is_free()

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:  # noqa: ARG002
        """Wait until the lock is free."""
        with shared_lock(key):
            return True

    async def aacquire_lock(self, key: str, holder: str, *limits: float | None) -> bool:
        """Wait for the key's lock."""
        return await asyncio.to_thread(self.acquire_lock, key, holder, *limits)

    async def await_for_lock(self, key: str, *limit: float | None) -> bool:
        """Wait until the lock is free."""
        return await asyncio.to_thread(self.wait_for_lock, key, *limit)

    def __getstate__(self) -> dict[str, Any]:
        """Travel to another process without the locks that are held here."""
        return {"_held": {}}


def edited_code(request: KeyRequest, rule: KeyRule) -> str | None:
    """Return a file that changed after this process started, or None."""
    return code.edited_since_start(request.components or {}, rule.rule.root)
