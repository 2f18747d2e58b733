"""Steps: Prefect tasks whose result is one artifact, kept and reused under a key.

@step(kind="sums", retries=2)
def add(numbers: Artifact, offset: int) -> Artifact:
    total = offset + sum(numbers.read_json("numbers.json")["values"])
    with draft() as new:
        (new.folder / "sum.json").write_text(json.dumps({"sum": total}))
    return new.artifact
"""

import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from functools import wraps
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, ParamSpec

from prefect import Task
from prefect.logging import get_run_logger
from prefect.runtime import flow_run, task_run
from prefect.serializers import JSONSerializer
from prefect.settings import PREFECT_TASKS_REFRESH_CACHE, temporary_settings
from prefect.transactions import IsolationLevel, Transaction, get_transaction

from artifacts import artifact, keys, layout, machine, policy, records, sharing
from artifacts.artifact import Artifact, Draft
from artifacts.code import CodeRule, files_of, project_root, source_file
from artifacts.files import explain_write_errors
from artifacts.forecast import current as current_forecast
from artifacts.keys import Extra, KeyRule
from artifacts.outcomes import Outcome

P = ParamSpec("P")
#: (folder of a result, folder of another) -> how they differ more than they may, or None.
Alike = Callable[[Path, Path], str | None]
#: Of the step that is running in this context: the kind of its artifacts, and its request.
_running: ContextVar[tuple[str, policy.KeyRequest]] = ContextVar("running")


class Step(Task[P, Artifact]):
    """A task whose records lie below the data root of the call, which may change between calls."""

    rule: KeyRule
    alike: Alike | None
    unavailable: tuple[type[Exception], ...]
    #: Given to `with_options` since the step was defined.
    changed: dict[str, Any]

    def with_options(self, **options: Any) -> "Step[P]":
        """As `Task.with_options`."""
        made = super().with_options(**options)
        made.__class__ = type(self)
        assert isinstance(made, Step)  # noqa: S101 - for the type checker
        made.rule, made.alike, made.unavailable = self.rule, self.alike, self.unavailable
        made.changed = self.changed | options
        return made

    def here(self) -> "Step[P]":
        """Return the step with the records of the present data root."""
        return self.with_options(result_storage=layout.records())

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process by name: there it has that one's code and data root."""
        options = {name: value for name, value in self.changed.items() if name != "result_storage"}
        return _of_this_process, (self.fn.__module__, self.fn.__qualname__, options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As `Task.__call__`; within `forecasting`, only say what would happen."""
        if forecast := current_forecast():
            bound = inspect.signature(self.fn).bind(*args, **kwargs)
            bound.apply_defaults()
            return forecast.call(self.rule, bound.arguments)
        return Task.__call__(self.here(), *args, **kwargs)

    def key_components(self, *args: Any, **kwargs: Any) -> keys.KeyComponents:
        """Return the key components that a call would have; nothing runs.

        Raises:
            ArgumentError: as `KeyRule.components`.
            InputError: the same.
        """
        bound = inspect.signature(self.fn).bind(*args, **kwargs)
        bound.apply_defaults()
        return self.rule.components(bound.arguments)

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """As `Task.submit`."""
        return Task.submit(self.here(), *args, **kwargs)

    def map(self, *args: Any, **kwargs: Any) -> Any:
        """As `Task.map`."""
        return Task.map(self.here(), *args, **kwargs)


def step(
    *,
    kind: str,
    name: str | None = None,
    ignored: tuple[str, ...] = (),
    by_value: tuple[type, ...] = (),
    group_by: str | None = None,
    code: Mapping[str, Extra] | None = None,
    environment: tuple[str, ...] = (),
    alike: Alike | None = None,
    unavailable: tuple[type[Exception], ...] = (),
    **options: Any,
) -> Callable[[Callable[P, Artifact]], Step[P]]:
    """Make a cached Prefect task of a function that returns an artifact.

    Args:
        kind: what its artifacts are: their folder in the cache.
        name: of the task; the function's name unless given.
        ignored: arguments that change no result, such as a device. An audit passes them again, but
            for those with a default.
        by_value: types whose values count, and the modules that define them therefore do not.
        group_by: the argument by whose value records are grouped, so that reasons compare like
            with like.
        code: further code, by the argument that brings it.
        environment: variables that the step reads. An audit clears all others. What they lead to
            must be in an argument, such as a digest of what lies there.
        alike: compares two results where an audit cannot expect equal bytes: on another processor,
            or where the metadata has `exact` False.
        unavailable: errors that say that something outside is not there; an audit finds nothing.
        options: of `prefect.task`, such as retries.

    Raises:
        ArgumentError: kind or name cannot be that of a folder.
    """
    artifact.check_kind(kind)

    def decorate(function: Callable[P, Artifact]) -> Step[P]:
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{function.__name__} is a coroutine function: a step is synchronous.")
        rule = KeyRule(
            step=name or function.__name__,
            file=source_file(function),
            rule=CodeRule(root=project_root(function), by_value=files_of(by_value)),
            ignored=frozenset(ignored),
            group_by=group_by,
            extra=tuple((code or {}).items()),
            environment=environment,
        )
        made: Step[P] = Step(
            _recorded(function, rule, kind),
            name=rule.step,
            persist_result=True,
            result_serializer=JSONSerializer.model_validate(records.SERIALISER),
            cache_result_in_memory=False,  # a record is read from disk, where it was just validated
            cache_policy=policy.ByContent(
                rule=rule,
                isolation_level=IsolationLevel.SERIALIZABLE,
                lock_manager=policy.KeyLocks(),
            ),
            on_commit=[_remove_scratch],
            **{"task_run_name": task_run_name} | options,
        )
        made.rule, made.alike, made.unavailable = rule, alike, unavailable
        made.changed = {}
        return made

    return decorate


def _of_this_process(module: str, name: str, options: dict[str, Any]) -> Step[Any]:
    """Return the step of that name, with the data root of this process."""
    found: Step[Any] = attrgetter(name)(import_module(module))
    return found.with_options(**options).here()


def _recorded(function: Callable[P, Artifact], rule: KeyRule, kind: str) -> Callable[P, Artifact]:
    """Return the function with what its record should say, and its outcome in the log."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Artifact:
        return _run(function, rule, kind, args, kwargs)  # so that `run` holds nothing unpicklable

    return run


def _run(
    function: Callable[..., Artifact],
    rule: KeyRule,
    kind: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Artifact:
    request = policy.current_request()
    if request.error:
        raise request.error
    start = time.monotonic()
    outer = _running.set((kind, request))
    try:
        with sharing.scratch(str(request.key)):
            made = function(*args, **kwargs)
    finally:
        _running.reset(outer)  # a step may run within a step
    about = {
        "step": rule.step,
        "group": request.group,
        "flow_run": flow_run.id,
        "task_run": request.task_run,
        "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "seconds": time.monotonic() - start,
        "why": request.why,
        "machine": machine.describe(),
        "ignored": _ignored(function, rule, args, kwargs),
    }
    made = replace(made, metadata=made.metadata | about)
    _record(request, rule, made)
    get_run_logger().info(str(Outcome.of(made, cached=False)))
    return made


def _ignored(
    function: Callable[P, Artifact], rule: KeyRule, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments that are not in the key, as far as JSON can hold them.

    Those that have a default are left out: an audit computes the step with the default.
    """
    signature = inspect.signature(function)
    bound = signature.bind(*args, **kwargs)
    needed = {n for n, p in signature.parameters.items() if p.default is inspect.Parameter.empty}
    return {
        n: v
        for n, v in bound.arguments.items()
        if n in rule.ignored and n in needed and _is_plain(v)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, str | int | float | bool | None)


def _record(request: policy.KeyRequest, rule: KeyRule, made: Artifact) -> None:
    """Write components and record, unless code was edited.

    Prefect writes the same record when it commits. A process that is killed before that has
    already lost nothing.
    """
    transaction = get_transaction()
    if edited := policy.edited_code(request, rule):
        get_run_logger().warning(
            "%s is not cached: %s was edited while this process was running", rule.step, edited
        )
        if transaction is not None:
            transaction.write_on_commit = False
        return
    with explain_write_errors(layout.root()):
        records.write_components(str(request.key), request.components or {})
        records.write(str(request.key), made)
        sharing.push(str(request.key))


def _remove_scratch(done: Transaction) -> None:
    """Remove the unfinished work of a step that has finished."""
    layout.scratch(str(done.key)).unlink(missing_ok=True)
    sharing.drop_scratch(str(done.key))


_remove_scratch.log_on_run = False  # type: ignore[attr-defined] # two lines a step


def draft(kind: str | None = None) -> AbstractContextManager[Draft]:
    """Publish what the block writes, as an artifact of the running step's kind.

    Raises:
        InputError: the data root cannot be written, or its disk is full.
        RuntimeError: no kind is given, and no step is running.
    """
    return artifact.draft(kind or _current()[0])


def scratch() -> tuple[str, Path]:
    """Return the running step's key, and the file in which it may keep unfinished work.

    Raises:
        RuntimeError: no step is running.
    """
    key = str(_current()[1].key)
    return key, layout.scratch(key)


def code_in_key() -> dict[str, str]:
    """Return the fingerprint of each code file in the running step's key, by its path.

    Raises:
        RuntimeError: no step is running.
    """
    return keys.files(_current()[1].components or {})


def _current() -> tuple[str, policy.KeyRequest]:
    if running := _running.get(None):
        return running
    raise RuntimeError("No step is running here: call this within a step.")


@contextmanager
def refreshing(*, refresh: bool) -> Iterator[None]:
    """Run every step of the block, cached or not."""
    with temporary_settings({PREFECT_TASKS_REFRESH_CACHE: True} if refresh else {}):
        yield


def task_run_name() -> str:
    """Name a task run after the task and its flow run."""
    return f"{task_run.task_name} {flow_run.name}"
