"""The log of a run: what its flow, its steps and the classifier say, in one file."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.context import FlowRunContext, TaskRunContext

#: Prefect's loggers of flows and tasks, and the loggers of modules that do not know Prefect.
RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")
LOGGERS = (*RUN_LOGGERS, "artifacts", "classifier", "registry")
#: How Prefect's lines about its own work begin; the state and the page of the run say the same.
CHATTER = (
    "Beginning flow run ",
    "Beginning subflow run ",
    "View at ",
    "Finished in state ",
    "Running hook ",
    "Hook ",
)


class RunLog(logging.FileHandler):
    """The log file. On a full disk it ends early: the step that fails then says why."""

    def __init__(self, path: Path, flow_run_id: UUID) -> None:
        super().__init__(path, encoding="utf-8")
        self.flow_run_id = str(flow_run_id)
        self.addFilter(self.is_of_this_run)
        form = logging.Formatter("%(asctime)sZ %(levelname)-7s %(name)s  %(message)s")
        form.converter = time.gmtime  # as the names of runs
        self.setFormatter(form)

    def is_of_this_run(self, record: logging.LogRecord) -> bool:
        """Return whether the run itself says it, and not another one of this process."""
        said_by = getattr(record, "flow_run_id", None) or _current_flow_run()
        return said_by in {None, self.flow_run_id}

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Say nothing; logging would print two tracebacks a line."""

    def close(self) -> None:
        """Close the file, also if its last lines cannot be written."""
        with suppress(OSError):
            super().close()

    def failed(self, error: BaseException) -> None:
        """Log the error that ended the flow, with its traceback."""
        about: dict[str, Any] = {"levelname": "ERROR", "name": "flow", "msg": "failed"}
        about["exc_info"] = (type(error), error, error.__traceback__)
        self.handle(logging.makeLogRecord(about))


def _current_flow_run() -> str | None:
    """Return the flow run of this thread; loggers that do not know Prefect name none."""
    task, flow = TaskRunContext.get(), FlowRunContext.get()
    if task is not None and task.task_run.flow_run_id is not None:
        return str(task.task_run.flow_run_id)
    return str(flow.flow_run.id) if flow is not None and flow.flow_run is not None else None


def leave_out_chatter() -> None:
    """Keep Prefect's lines about its own work out of every log; warnings and errors stay.

    This lasts as long as the process: the last such line comes after the run.
    """
    for name in RUN_LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.NOTSET)  # a worker may have silenced it until the flow starts
        logger.addFilter(_is_no_chatter)


def _is_no_chatter(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or not str(record.msg).startswith(CHATTER)


@contextmanager
def listening(handler: logging.Handler) -> Iterator[None]:
    """Hand every log line of a run to the handler while the block runs, without the chatter."""
    leave_out_chatter()
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
