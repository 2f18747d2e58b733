"""The log of a run: what its flow, its steps and the classifier say, in one file."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

#: Prefect's loggers of flows and tasks, and the loggers of modules that do not know Prefect.
LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "classifier")


class RunLog(logging.FileHandler):
    """The log file. On a full disk it ends early: the step that fails then says why."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s  %(message)s"))

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


@contextmanager
def listening(handler: logging.Handler) -> Iterator[None]:
    """Hand every log line of a run to the handler while the block runs."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
