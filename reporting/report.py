"""The report of a run: a folder with a page, the pictures, the figures as JSON, and the log.

Every run writes one, and none is cached; the UI shows the same in short as artifacts of the run,
and an index all runs.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Any
from uuid import UUID

from prefect.context import TagsContext
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from artifacts import layout, pruning, runs, sharing
from artifacts.errors import InputError
from artifacts.files import explain_write_errors, write_atomically
from artifacts.outcomes import Outcome
from artifacts.text import one_line
from reporting import index, page, rendering, retention, ui
from reporting.contents import Contents
from reporting.log import RunLog, listening

LONGEST = 1_000  # characters of what is said of the flow itself


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution of a flow.

    Fields:
        id: its name: the UTC second of its start, and the first digits of its flow run's id.
        flow: its name.
        flow_run_id: of Prefect.
        folder: of its report.
        cache_limit: bytes that the cache may hold.
    """

    id: str
    flow: str
    flow_run_id: UUID
    folder: Path
    cache_limit: int

    def report(self, contents: Contents) -> dict[str, Any]:
        """Write the report, and keep the cache below its limit.

        Returns:
            The summary with `run_id`, `steps` and `report`.
        """
        outcomes = contents.outcomes
        full = {
            "run_id": self.id,
            **contents.summary,
            "steps": {step.step: step.outcome for step in outcomes},
            "report": layout.relative(self.folder),
        }
        shown = replace(contents, summary=full)
        with explain_write_errors(self.folder):
            for path in contents.pictures.values():
                if path.parent != self.folder:
                    shutil.copyfile(path, self.folder / path.name)
            write_atomically(self.folder / "report.html", page.html(shown))
            # Last: a run with this file has finished.
            text = json.dumps(full | self._about(outcomes), indent=2) + "\n"
            write_atomically(self.folder / "report.json", text)
        ui.show(shown)
        if "ran" in full["steps"].values():
            _limit_cache(self.cache_limit)
        return full

    def _about(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """Return what report.json says beside the figures."""
        return {
            "flow": self.flow,
            "flow_run_id": str(self.flow_run_id),
            "seconds": round(time() - runs.started_at(self.id), 1),
            "timeline": [outcome.row() for outcome in outcomes],
        }


@contextmanager
def open_run() -> Iterator[Run]:
    """Open the report of this flow run, and log everything that is said while the block runs.

    If the block fails, only the log stays.

    Raises:
        ArgumentError: the limit of the cache is no size, or that of the reports no number.
        InputError: the data root cannot be written, or the remote refuses access.
    """
    rendering.load()
    flow_run_id, cache_limit, keep = UUID(flow_run.id), pruning.limit(), retention.limit()
    sharing.begin()
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{flow_run_id.hex[:8]}"
    folder, flow = layout.reports() / name, str(flow_run.flow_name)
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        log = RunLog(folder / "log.txt", flow_run_id)
    try:
        # Prefect asks the server for a place for each task with a tag, without a second try.
        with runs.running(name), listening(log), TagsContext():
            _say(log, logging.INFO, f"started {flow} of {flow_run.parameters.get('dataset')}")
            yield Run(
                id=name,
                flow=flow,
                flow_run_id=flow_run_id,
                folder=folder,
                cache_limit=cache_limit,
            )
    except BaseException as error:
        for path in folder.iterdir():
            if path.name != "log.txt":
                with suppress(OSError):
                    path.unlink()
        error.add_note(f"{folder / 'log.txt'}")
        log.failed(error)
        _say(log, logging.ERROR, f"ended: {type(error).__name__}: {error}")
        raise
    finally:
        log.close()
        retention.keep_to_limit(keep, name)
        _write_index()


def _say(log: RunLog, level: int, text: str) -> None:
    """Write a line about the flow itself: the index reads it where a run has no page."""
    about = {"name": "flow", "levelno": level, "levelname": logging.getLevelName(level)}
    log.handle(logging.makeLogRecord(about | {"msg": one_line(text)[:LONGEST]}))


def _write_index() -> None:
    try:
        index.write()
    except OSError as error:  # as on a full disk: the run itself has ended
        get_run_logger().warning("%s was not written: %s", layout.reports() / index.NAME, error)


def _limit_cache(limit: int) -> None:
    log = get_run_logger()
    try:
        gone = pruning.prune(max_size=limit)
    except InputError as error:  # the run itself is done
        log.warning("The cache was not kept to its limit: %s", error)
        return
    orphans = [entry for entry in gone if entry.orphaned]
    others = [entry for entry in gone if not entry.orphaned]
    for entries, sentence in (
        (orphans, "Removed %d artifacts that no step uses any more, %.1f MB"),
        (others, "Cache limit exceeded: removed %d least recently used artifacts, %.1f MB"),
    ):
        if entries:
            log.info(sentence, len(entries), sum(entry.size for entry in entries) / 1e6)
