"""Progress of a long step: a bar in a terminal, a progress artifact in the UI."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import cache
from typing import TYPE_CHECKING, cast

import httpx
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from uuid import UUID

UI_SECONDS = 2.0  # between two updates of the artifact: each is a request

#: Called with what is done so far and, where it is known, the total.
Advance = Callable[[float, float | None], None]


@cache
def console() -> Console:
    """Return standard error, which shows everything that is not a result."""
    return Console(stderr=True, highlight=False)


@contextmanager
def bar(title: str, *, in_bytes: bool = False) -> Iterator[Advance]:
    """Show a bar while the block runs; nothing where standard error is not a terminal."""
    amount = DownloadColumn() if in_bytes else TextColumn("{task.completed:.0f}/{task.total:.0f}")
    columns = (TextColumn("{task.description:<10}"), BarColumn(), amount, TimeRemainingColumn())
    shown = Progress(*columns, console=console(), transient=True, disable=not console().is_terminal)
    with shown:
        line = shown.add_task(title, total=None if in_bytes else 1)
        yield lambda done, total: shown.update(line, completed=done, total=total)


@contextmanager
def counter(title: str) -> Iterator[Callable[[int], None]]:
    """Show a growing number while the block runs, where the total is not known."""
    columns = (TextColumn("{task.description:<10}"), TextColumn("{task.completed:,.0f}"))
    shown = Progress(*columns, console=console(), transient=True, disable=not console().is_terminal)
    with shown:
        line = shown.add_task(title, total=None)
        yield lambda done: shown.update(line, completed=done)


@contextmanager
def ui_progress(title: str) -> Iterator[Advance]:
    """Show a progress artifact in the UI, updated every two seconds and at the end.

    A thread sends the updates, so that the step does not wait for a server that is away.
    """
    from prefect.artifacts import create_progress_artifact
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import ArtifactUpdate
    from prefect.exceptions import PrefectException

    number = cast("UUID", create_progress_artifact(0.0, description=title))  # a flow is synchronous
    percent, ended = 0.0, threading.Event()

    def send() -> None:
        # A client of its own: that of the flow is closed when the flow ends.
        with get_client(httpx_settings={"timeout": 10}, sync_client=True) as client:
            sent, last = 0.0, False
            while not last:
                last = ended.wait(UI_SECONDS)
                if percent != sent:
                    sent = percent
                    with suppress(httpx.HTTPError, PrefectException):  # it decides nothing
                        client.update_artifact(number, ArtifactUpdate(data=sent))

    def advance(done: float, total: float | None) -> None:
        nonlocal percent
        percent = 100 * done / total if total else percent

    sender = threading.Thread(target=copy_context().run, args=(send,), daemon=True, name=title)
    sender.start()
    try:
        yield advance
    finally:
        ended.set()
        sender.join(UI_SECONDS)
