"""Artifacts in the Prefect UI: the report in short, and a table of its figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from artifacts.outcomes import Outcome
from reporting.details import Details
from reporting.pictures import fitting
from reporting.rendering import render

#: Bytes that the report may have there: each is kept in the server's database.
MOST_BYTES = 150_000
ROWS = (50, 10, 0)  # of a table or list: the first number with which the text leaves room

#: The figures that the table shows, by page.
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
    "sweep": ("recipe", "device", "validation_rows", "best"),
    "ingest": ("batch", "accepted", "recent_test", "refused_rows"),
}


def markdown(
    page: str,
    summary: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    pictures: Mapping[str, Path],
    details: Details,
) -> str:
    """Return the report in short, of at most MOST_BYTES; arguments as `Run.report`.

    Tables are cut first, then the pictures that come last are left out.
    """

    def text(rows: int, shown: Mapping[str, str], left_out: Sequence[str]) -> str:
        return render(
            f"{page}.md",
            run=summary,
            steps=outcomes,
            details=details,
            pictures=shown,
            left_out=left_out,
            most=rows,
        )

    everything = list(pictures)
    for rows in ROWS:
        short = len(text(rows, {}, everything).encode())
        if short <= MOST_BYTES // 2:
            break
    titles = sum(len(title.encode()) for title in everything)
    room = MOST_BYTES - short - 10 * titles - 100 * len(everything)  # each title stands twice
    return text(rows, *fitting(pictures, room))


def show(
    page: str,
    summary: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    pictures: Mapping[str, Path],
    details: Details,
) -> None:
    """Create both artifacts of the flow run; arguments as `Run.report`."""
    key = summary["dataset"] if page == "train" else f"{summary['dataset']}-{page}"
    create_markdown_artifact(
        markdown(page, summary, outcomes, pictures, details),
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
