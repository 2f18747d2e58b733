"""Artifacts in the Prefect UI: the report in short, and a table of its figures."""

from collections.abc import Mapping, Sequence

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from reporting.contents import Contents
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


def markdown(contents: Contents) -> str:
    """Return the report in short, of at most MOST_BYTES.

    Tables are cut first, then the pictures that come last are left out.
    """

    def text(rows: int, shown: Mapping[str, str], left_out: Sequence[str]) -> str:
        return render(
            f"{contents.kind}.md",
            run=contents.summary,
            steps=contents.outcomes,
            details=contents.details,
            pictures=shown,
            left_out=left_out,
            most=rows,
        )

    everything = list(contents.pictures)
    for rows in ROWS:
        short = len(text(rows, {}, everything).encode())
        if short <= MOST_BYTES // 2:
            break
    titles = sum(len(title.encode()) for title in everything)
    room = MOST_BYTES - short - 10 * titles - 100 * len(everything)  # each title stands twice
    return text(rows, *fitting(contents.pictures, room))


def show(contents: Contents) -> None:
    """Create both artifacts of the flow run."""
    kind, summary = contents.kind, contents.summary
    key = summary["dataset"] if kind == "train" else f"{summary['dataset']}-{kind}"
    create_markdown_artifact(
        markdown(contents),
        key=f"{key}-report",
        description="Report of the run",
    )
    create_table_artifact(
        [
            {"metric": n.replace("_", " "), "value": summary[n]}
            for n in METRICS[kind]
            if n in summary
        ],
        key=f"{key}-metrics",
        description="Figures of the run",
    )
