"""Report: what a run found, handed to `reporting/`. Written by every run, never cached."""

from typing import Any

from artifacts import layout
from artifacts.artifact import Artifact
from artifacts.outcomes import outcomes
from reporting.report import Run

#: Title of each picture, in the order of the page.
PICTURES = {
    "predictions": "Predictions: true/predicted",
    "mistakes": "The most confident mistakes",
    "confusion": "Confusion",
    "curves": "Loss and accuracy",
    "samples": "Samples of the data",
}


def report(run: Run, about: dict[str, Any], results: dict[str, Artifact]) -> dict[str, Any]:
    """Write the report of a train flow, and return its figures, JSON-ready.

    Args:
        run: the run.
        about: what was asked for: dataset, recipe, seed.
        results: what each step returned, by its name in the report.
    """
    done = outcomes(results, str(run.flow_run_id))
    model, pictures = results["train"], results["plot"].path
    metrics = results["evaluate"].read_json("metrics.json")
    trained = next(outcome for outcome in done if outcome.step == "train").outcome == "ran"
    summary = {
        **about,
        "device": model.metadata["device"],
        "test_accuracy": metrics["test_accuracy"],
        "errors": metrics["errors"],
        "test_rows": metrics["rows"],
        "train_seconds": model.metadata["train_seconds"] if trained else None,
        "model": layout.relative(model.path),
    }
    shown = {title: pictures / f"{name}.png" for name, title in PICTURES.items()}
    return run.report(summary, done, shown)
