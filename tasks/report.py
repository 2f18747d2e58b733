"""Report: what a run found, handed to `reporting/`. Written by every run, never cached."""

from statistics import fmean
from typing import Any

from artifacts import layout
from artifacts.artifact import Artifact
from artifacts.outcomes import outcomes
from classifier import datasets
from registry import data
from reporting.contents import Contents
from reporting.report import Run
from tasks.report_details import details

#: Title of each picture, in the order of the page.
PICTURES = {
    "newly-wrong": "Newly wrong: champion \N{RIGHTWARDS ARROW} challenger",
    "newly-right": "Newly right: champion \N{RIGHTWARDS ARROW} challenger",
    "mistakes": "The most confident mistakes: true/predicted",
    "predictions": "Predictions: true/predicted",
    "confusion": "Confusion",
    "curves": "Loss and accuracy",
    "samples": "Samples of the data",
}


def report(run: Run, about: dict[str, Any], results: dict[str, Artifact]) -> dict[str, Any]:
    """Write the report of a train flow, and return its figures, JSON-ready.

    Args:
        run: the run.
        about: what was asked for and found: dataset, recipe, seed, and what `summarise` gives.
        results: what each step returned, by its name in the report.
    """
    drawn = [results[step].path for step in ("plot-flips", "plot") if step in results]
    files = {path.stem: path for folder in drawn for path in folder.glob("*.png")}
    shown = {title: files[name] for name, title in PICTURES.items() if name in files}
    done = outcomes(results, str(run.flow_run_id))
    told = details(about, results)
    return run.report(Contents(summary=about, outcomes=done, pictures=shown, details=told))


def summarise(run: Run, about: dict[str, Any], results: dict[str, Artifact]) -> dict[str, Any]:
    """Return the figures of a training, JSON-ready; arguments as `report`."""
    done = outcomes(results, str(run.flow_run_id))
    model = results["train"]
    metrics = results["evaluate"].read_json("metrics.json")
    rows = results["manifest"].metadata
    trained = next(outcome for outcome in done if outcome.step == "train").outcome == "ran"
    summary = {
        **about,
        "device": model.metadata["device"],
        "metric": datasets.load(about["dataset"]).metric,
        "test_accuracy": metrics["test_accuracy"],
        "test_interval": metrics.get("interval"),  # one that was adopted may have none
        "macro_recall": _macro_recall(metrics["per_class"]),
        "errors": metrics["errors"],
        "test_rows": metrics["rows"],
        "test_set": metrics["test_set"],
        "train_rows": rows["train_rows"],
        "train_seconds": model.metadata["train_seconds"] if trained else None,
        "resumed": trained and model.metadata.get("resumed", False),
        "model": layout.relative(model.folder),
        "manifest": layout.relative(results["manifest"].folder),
        "batches": _batches(about["dataset"], results["manifest"]),
    }
    if recent := results.get("evaluate-recent"):
        score = recent.read_json("metrics.json")
        summary |= {
            "recent_accuracy": score["test_accuracy"],
            "recent_interval": score.get("interval"),
            "recent_rows": score["rows"],
            "recent_test_set": score["test_set"],
        }
    return summary


def _macro_recall(per_class: list[dict[str, Any]]) -> float:
    """Return the mean recall of the classes that have test rows."""
    return fmean(row["recall"] for row in per_class if row["support"])


def _batches(dataset: str, manifest: Artifact) -> list[dict[str, Any]]:
    """Return the batches of new data that count, with their rows."""
    rows: dict[str, dict[str, int]] = {}
    for part in manifest.read_json("manifest.json")["parts"]:
        if part["kind"] == data.BATCHES:
            rows.setdefault(part["digest"], {})[part["split"]] = part["rows"]
    left_out = manifest.metadata["left_out"]
    return [
        {
            "name": batch.name,
            "train": rows[batch.digest].get("train", 0),
            "recent": rows[batch.digest].get("recent", 0),
            "left_out": left_out.get(batch.digest, 0),
        }
        for batch in (data.current(dataset).batches if rows else ())
        if batch.digest in rows
    ]
