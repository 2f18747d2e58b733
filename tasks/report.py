"""The report of a run: a folder with a page, the pictures, the figures as JSON and the log.

It is written by every run and never cached; in the UI the same stands as artifacts of the run.
"""

import base64
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from tasks import artifacts, pruning, steps
from tasks.artifacts import Artifact

PICTURES = {
    "predictions": "Predictions: true/predicted",
    "mistakes": "The most confident mistakes",
    "confusion": "Confusion",
    "curves": "Loss and accuracy",
    "samples": "Samples of the data",
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution of a flow, the folder of its report, and the bytes that the cache may hold."""

    id: str
    flow_run_id: UUID
    folder: Path
    cache_limit: int

    def write(
        self, *, model: Artifact, evaluation: Artifact, pictures: Artifact, **given: Any
    ) -> dict[str, Any]:
        """Write the report and give its figures, which are JSON-ready."""
        taken = steps.taken(self.flow_run_id)
        metrics = evaluation.read_json("metrics.json")
        trained = next(step for step in taken if step.task == "train").outcome == "ran"
        summary = {
            "run_id": self.id,
            **given,
            "device": model.made["device"],
            "test_accuracy": metrics["test_accuracy"],
            "errors": metrics["errors"],
            "test_rows": metrics["rows"],
            "train_seconds": model.made["seconds"] if trained else None,
            "steps": {step.task: step.outcome for step in taken},
            "model": _relative(model.path),
            "report": _relative(self.folder),
        }
        with artifacts.writing(self.folder):
            self._write_files(summary, taken, pictures)
        _show_in_ui(summary, taken, pictures)
        if "ran" in summary["steps"].values():
            _keep_in_bounds(self.cache_limit)
        return summary

    def _write_files(
        self, summary: dict[str, Any], taken: list[steps.Step], pictures: Artifact
    ) -> None:
        more = {"flow_run_id": str(self.flow_run_id), "timeline": [step.row() for step in taken]}
        text = json.dumps(summary | more, indent=2) + "\n"
        artifacts.write_atomically(self.folder / "report.json", text)
        for name in PICTURES:
            shutil.copyfile(pictures.path / f"{name}.png", self.folder / f"{name}.png")
        page = _render("report.html", summary, taken, {name: f"{name}.png" for name in PICTURES})
        artifacts.write_atomically(self.folder / "report.html", page)


class Log(logging.FileHandler):
    """The log of a run. Where the disk is full it ends early: the step that fails then says why."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s  %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Say nothing; logging would print two tracebacks a line."""

    def close(self) -> None:
        """Close the file, also if its last lines cannot be written."""
        with suppress(OSError):
            super().close()


@contextmanager
def opened() -> Iterator[Run]:
    """The run of this flow: its folder, with a log of all that is said while the block runs.

    If the block fails, the log is all that stays of the folder.
    """
    flow_run_id, cache_limit = UUID(flow_run.id), pruning.limit()
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{flow_run_id.hex[:8]}"
    folder = artifacts.reports() / name
    under_way = artifacts.lock(f"runs/{name}")
    with artifacts.writing(folder):
        under_way.acquire(name)
        folder.mkdir(parents=True)
        log = Log(folder / "log.txt")
    try:
        with _heard(log):
            yield Run(id=name, flow_run_id=flow_run_id, folder=folder, cache_limit=cache_limit)
    except BaseException as error:
        for path in folder.iterdir():
            if path.name != "log.txt":
                with suppress(OSError):
                    path.unlink()
        error.add_note(f"{folder / 'log.txt'}")
        log.handle(_record_of(error))
        raise
    finally:
        log.close()
        under_way.release()


def _keep_in_bounds(limit: int) -> None:
    gone = pruning.prune(max_size=limit)
    if gone:
        freed = sum(entry.size for entry in gone) / 1e6
        get_run_logger().info(
            "The cache is kept to its limit: %d artifacts, %.1f MB, long unused, went",
            len(gone),
            freed,
        )


@contextmanager
def _heard(log: logging.Handler) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs")]
    for logger in loggers:
        logger.addHandler(log)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(log)


def _record_of(error: BaseException) -> logging.LogRecord:
    failed = {"levelname": "ERROR", "name": "flow", "msg": "failed"}
    return logging.makeLogRecord(failed | {"exc_info": (type(error), error, error.__traceback__)})


def _show_in_ui(summary: dict[str, Any], taken: list[steps.Step], pictures: Artifact) -> None:
    embedded = {name: _data_uri(pictures.path / f"{name}.png") for name in PICTURES}
    create_markdown_artifact(
        _render("report.md", summary, taken, embedded),
        key=f"{summary['dataset']}-report",
        description="What the model says of the test images",
    )
    shown = ("test_accuracy", "errors", "test_rows", "train_seconds", "device", "model")
    create_table_artifact(
        [{"metric": name.replace("_", " "), "value": summary[name]} for name in shown],
        key=f"{summary['dataset']}-metrics",
        description="Figures of the run",
    )


def _render(
    template: str, summary: dict[str, Any], taken: list[steps.Step], pictures: dict[str, str]
) -> str:
    folder = FileSystemLoader(Path(__file__).with_name("templates"))
    environment = Environment(
        loader=folder,
        undefined=StrictUndefined,
        autoescape=template.endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    titled = [(PICTURES[name], address) for name, address in pictures.items()]
    return environment.get_template(template).render(run=summary, steps=taken, pictures=titled)


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _relative(path: Path) -> str:
    return path.relative_to(artifacts.root()).as_posix()
