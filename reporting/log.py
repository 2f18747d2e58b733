"""The log of a run: what its flow, its steps and the classifier say, in one file."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.context import FlowRunContext, TaskRunContext

#: Prefect's loggers of flows and tasks, and the loggers of modules that do not know Prefect.
RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")
LOGGERS = (*RUN_LOGGERS, "artifacts", "classifier", "registry")
_PROJECT = Path(__file__).resolve().parent.parent
_listening: list[logging.Handler] = []
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
    attach(handler)
    _listening.append(handler)
    try:
        yield
    finally:
        _listening.remove(handler)
        detach(handler)


def attach(handler: logging.Handler) -> None:
    """Hand every log line of a run to the handler, until `detach`."""
    leave_out_chatter()
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)


def detach(handler: logging.Handler) -> None:
    """Hand no more lines to the handler."""
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(handler)


class Forwarder(logging.Handler):
    """Sends the lines of one run, as plain values, to the process that has its log.

    Each begins with the name of its task run: those of several processes come in between.
    """

    def __init__(self, flow_run_id: str, send: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self.flow_run_id, self.send = flow_run_id, send

    def emit(self, record: logging.LogRecord) -> None:
        """Send a line, if it is of that run."""
        said_by = getattr(record, "flow_run_id", None) or _current_flow_run()
        if said_by != self.flow_run_id:
            return
        task = getattr(record, "task_run_name", None)
        error = record.exc_info and logging.Formatter().formatException(record.exc_info)
        path = Path(record.pathname)
        own = path.relative_to(_PROJECT) if path.is_relative_to(_PROJECT) else path
        self.send(
            {
                "name": record.name,
                "levelno": record.levelno,
                "levelname": record.levelname,
                "msg": f"{task}: {record.getMessage()}" if task else record.getMessage(),
                "created": record.created,
                "msecs": record.msecs,
                "pathname": str(own),
                "exc_text": error or None,
                "flow_run_id": said_by,
            }
        )


def hear(line: Mapping[str, Any]) -> None:
    """Hand a line that a `Forwarder` sent to all who listen here."""
    record = logging.makeLogRecord({**line, "pathname": str(_PROJECT / line["pathname"])})
    for handler in _listening:
        handler.handle(record)
