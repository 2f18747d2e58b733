"""The report of a run: a folder with a page, the pictures, the figures as JSON, and the log.

Every run writes one, and none is cached; the UI shows the same as artifacts of the run.
"""

import base64
import json
import re
import shutil
from collections.abc import Iterator, Mapping
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

from artifacts import layout, pruning, runs
from artifacts.errors import InputError
from artifacts.files import explain_write_errors, write_atomically
from artifacts.outcomes import Outcome
from artifacts.text import one_line
from reporting import retention
from reporting.log import RunLog, listening

#: The figures that the table in the UI shows, by page.
METRICS = {
    "train": (
        "test_accuracy",
        "errors",
        "test_rows",
        "macro_recall",
        "recent_accuracy",
        "recent_rows",
        "train_rows",
        "train_seconds",
        "device",
        "precision",
        "model",
    ),
    "ingest": ("batch", "accepted", "recent_test", "refused_rows"),
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution of a flow.

    Fields:
        id: its name: the UTC second of its start, and the first digits of its flow run's id.
        flow_run_id: of Prefect.
        folder: of its report.
        cache_limit: bytes that the cache may hold.
    """

    id: str
    flow_run_id: UUID
    folder: Path
    cache_limit: int

    def report(
        self,
        summary: Mapping[str, Any],
        outcomes: list[Outcome],
        pictures: Mapping[str, Path],
        *,
        page: str = "train",
    ) -> dict[str, Any]:
        """Write the report, and keep the cache below its limit.

        Args:
            summary: the figures of the run, JSON-ready.
            outcomes: of its steps.
            pictures: PNG files by title; no two have one name.
            page: which of the templates.

        Returns:
            The summary with `run_id`, `steps` and `report`.
        """
        full = {
            "run_id": self.id,
            **summary,
            "steps": {step.step: step.outcome for step in outcomes},
            "report": layout.relative(self.folder),
        }
        with explain_write_errors(self.folder):
            self._write_files(full, outcomes, pictures, page)
        _show_in_ui(full, outcomes, pictures, page)
        if "ran" in full["steps"].values():
            _limit_cache(self.cache_limit)
        return full

    def _write_files(
        self,
        summary: dict[str, Any],
        outcomes: list[Outcome],
        pictures: Mapping[str, Path],
        page: str,
    ) -> None:
        more = {"flow_run_id": str(self.flow_run_id), "timeline": [o.row() for o in outcomes]}
        for path in pictures.values():
            if path.parent != self.folder:
                shutil.copyfile(path, self.folder / path.name)
        names = {title: path.name for title, path in pictures.items()}
        text = _render(f"{page}.html", summary, outcomes, names)
        write_atomically(self.folder / "report.html", text)
        write_atomically(
            self.folder / "report.json", json.dumps(summary | more, indent=2) + "\n"
        )  # last: a run with this file has finished


@contextmanager
def open_run() -> Iterator[Run]:
    """Open the report of this flow run, and log everything that is said while the block runs.

    If the block fails, only the log stays.

    Raises:
        ArgumentError: the limit of the cache is no size, or that of the reports no number.
        InputError: the data root cannot be written.
    """
    flow_run_id, cache_limit, keep = UUID(flow_run.id), pruning.limit(), retention.limit()
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{flow_run_id.hex[:8]}"
    folder = layout.reports() / name
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        log = RunLog(folder / "log.txt", flow_run_id)
    try:
        with runs.running(name), listening(log):
            yield Run(id=name, flow_run_id=flow_run_id, folder=folder, cache_limit=cache_limit)
    except BaseException as error:
        for path in folder.iterdir():
            if path.name != "log.txt":
                with suppress(OSError):
                    path.unlink()
        error.add_note(f"{folder / 'log.txt'}")
        log.failed(error)
        raise
    finally:
        log.close()
        retention.keep_to_limit(keep, name)


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


def _show_in_ui(
    summary: dict[str, Any], outcomes: list[Outcome], pictures: Mapping[str, Path], page: str
) -> None:
    key = summary["dataset"] if page == "train" else f"{summary['dataset']}-{page}"
    embedded = {title: _data_uri(path) for title, path in pictures.items()}
    create_markdown_artifact(
        _render(f"{page}.md", summary, outcomes, embedded),
        key=f"{key}-report",
        description="Report of the run",
    )
    create_table_artifact(
        [
            {"metric": n.replace("_", " "), "value": summary[n]}
            for n in METRICS[page]
            if n in summary
        ],
        key=f"{key}-metrics",
        description="Figures of the run",
    )


def _render(
    template: str, summary: dict[str, Any], outcomes: list[Outcome], pictures: dict[str, str]
) -> str:
    return render(template, run=summary, steps=outcomes, pictures=pictures)


def render(template: str, **values: Any) -> str:
    """Return the template of that name with the values in it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=StrictUndefined,
        autoescape=template.endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _cell
    return environment.get_template(template).render(**values)


def _cell(text: str) -> str:
    """Return the text for one cell of a Markdown table, as text and not as markup."""
    return re.sub(r"([\\`*_|<\[\]$~])", r"\\\1", one_line(text))


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
