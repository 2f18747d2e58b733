"""Report details: scores beside the champion's, curves, confusion, checks and lineage of a run."""

from collections.abc import Iterable, Mapping
from typing import Any

from prefect.logging import get_run_logger

from artifacts.artifact import Artifact
from artifacts.errors import InputError
from classifier import datasets
from registry import data, models
from registry.data import Batch
from registry.models import Promotion
from reporting.details import Checked, Confused, Confusion, Details, Score, Source
from reporting.page import OFFICIAL

RECENT = "Recent test set, of new data"
MOST_CLASSES = 20  # of which the counts of a confusion matrix can be read
MOST_CONFUSED = 8

Results = Mapping[str, Artifact]


def details(about: Mapping[str, Any], results: Results) -> Details:
    """Return what the page shows beside figures and steps; arguments as `tasks.report.report`."""
    scores, note = _scores(about, results)
    curves = _curves(results["train"]) if "train" in results else {}
    confusion, confused = _confusion(about, results)
    return Details(
        scores=scores,
        note=note,
        curves=curves,
        confusion=confusion,
        confused=confused,
        checks=_checks(about, results),
        lineage=_lineage(about, results),
        drawn=frozenset({"curves"} if curves else ()) | ({"confusion"} if confusion else set()),
        on_white=frozenset({"curves", "confusion"}),
    )


def _scores(about: Mapping[str, Any], results: Results) -> tuple[dict[str, list[Score]], str]:
    """Return the scores of this model and the champion's by test set, and a note."""
    if "test_accuracy" not in about:
        return {}, ""
    mine = Score(
        label="This model",
        accuracy=about["test_accuracy"],
        interval=about.get("test_interval"),
        errors=about["errors"],
        rows=about["test_rows"],
        model=_model(about),
        is_this=True,
    )
    found = {OFFICIAL: [mine]}
    if recent := results.get("evaluate-recent"):
        found[RECENT] = [_scored("This model", recent, _model(about), is_this=True)]
    try:
        history = models.current(about["dataset"]).history
    except InputError as error:  # a training needs no champion
        get_run_logger().warning("The champion is not shown: %s", error)
        return found, "The champion is not known: see log.txt."
    if about.get("outcome") == "promoted":  # it is the last one
        history = history[:-1]
    champion = history[-1] if history else None
    if before := results.get("evaluate-champion"):
        name = str(about["bar"])
        label = "Champion before" if about.get("outcome") == "promoted" else "Champion"
        if champion is None or champion.model != name:  # it rests on a retracted batch
            label = "Earlier champion"
        found[OFFICIAL].append(_scored(label, before, name))
        if recent := results.get("evaluate-champion-recent"):
            found[RECENT].append(_scored(label, recent, name))
        return found, ""
    score, note = _champion(champion, about)
    found[OFFICIAL] += [score] if score else []
    return found, note


def _champion(champion: Promotion | None, about: Mapping[str, Any]) -> tuple[Score | None, str]:
    """Return the score of the champion as of its promotion, or why it says nothing here."""
    if champion is None:
        return None, "There is no champion to compare it with."
    summary = champion.about["summary"]
    if champion.model == _model(about):
        return None, "This model is the champion."
    if summary.get("test_set") != about["test_set"]:
        return None, "The champion was scored on other test rows, so it is not shown here."
    return Score(
        label="Champion",
        accuracy=summary["test_accuracy"],
        interval=summary.get("test_interval"),
        errors=summary["errors"],
        rows=summary["test_rows"],
        model=champion.model,
    ), ""


def _model(about: Mapping[str, Any]) -> str:
    return str(about["model"]).removeprefix("cache/")


def _scored(label: str, evaluation: Artifact, model: str | None, *, is_this: bool = False) -> Score:
    metrics = evaluation.read_json("metrics.json")
    return Score(
        label=label,
        accuracy=metrics["test_accuracy"],
        interval=metrics.get("interval"),
        errors=metrics["errors"],
        rows=metrics["rows"],
        model=model,
        is_this=is_this,
    )


def _curves(model: Artifact) -> dict[str, dict[str, list[float]]]:
    """Return loss and accuracies by epoch, as far as the training measured them."""
    history = model.read_json("history.json")
    accuracies = {
        name: history[f"{name}_accuracy"]
        for name in ("train", "validation")
        if history.get(f"{name}_accuracy")
    }
    found = {"Loss": {"train": history["loss"] or []}, "Accuracy": accuracies}
    return {title: series for title, series in found.items() if any(series.values())}


def _confusion(
    about: Mapping[str, Any], results: Results
) -> tuple[Confusion | None, list[Confused]]:
    if "evaluate" not in results:
        return None, []
    counts = results["evaluate"].read_json("metrics.json")["confusion"]
    declared = datasets.load(about["dataset"]).classes
    classes = list(declared or results["train"].read_json("model.json")["classes"])
    wrong = [
        Confused(true=classes[true], predicted=classes[predicted], errors=count, rows=sum(row))
        for true, row in enumerate(counts)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    wrong.sort(key=lambda one: -one.errors)
    readable = len(counts) <= MOST_CLASSES
    return Confusion(classes=classes, counts=counts) if readable else None, wrong[:MOST_CONFUSED]


def _checks(about: Mapping[str, Any], results: Results) -> list[Checked]:
    """Return what the looks at the batches found that count in this run, or that stopped it."""
    if "manifest" in results:
        parts = results["manifest"].read_json("manifest.json")["parts"]
        used = {part["digest"] for part in parts if part["kind"] == data.BATCHES}
        there = data.current(about["dataset"]).batches if used else ()
        return _checked(batch for batch in there if batch.digest in used)
    live = data.current(about["dataset"]).live
    return _checked(sorted(live, key=lambda batch: not batch.broken))


def _checked(batches: Iterable[Batch]) -> list[Checked]:
    return [
        Checked(
            batch=batch.name,
            outcome=(batch.check or {}).get("outcome"),
            sentences=[
                *(batch.check or {}).get("why", ()),
                *filter(None, [(batch.check or {}).get("note")]),
            ],
            accepted=batch.accepted,
        )
        for batch in batches
    ]


def _lineage(about: Mapping[str, Any], results: Results) -> list[Source]:
    """Return the model, what it was made from, and what that was made from."""
    if "model" not in about:
        return []
    found = [Source(what="Model", artifact=_model(about), depth=0)]
    if weights := results.get("initial-weights"):
        found.append(Source(what="Initial weights", artifact=weights.name, depth=1))
    if "manifest" in results:
        rows = results["manifest"]
        found.append(Source(what="Manifest: which rows count", artifact=rows.name, depth=1))
        found += _parts(about["dataset"], rows, results.get("download"))
    return found


def _parts(dataset: str, manifest: Artifact, raw: Artifact | None) -> list[Source]:
    rows: dict[tuple[str, str], dict[str, int]] = {}
    for part in manifest.read_json("manifest.json")["parts"]:
        splits = rows.setdefault((part["kind"], part["digest"]), {})
        splits[part["split"]] = splits.get(part["split"], 0) + part["rows"]
    there = data.current(dataset).batches if any(kind == data.BATCHES for kind, _ in rows) else ()
    names = {batch.digest: batch.name for batch in there}
    found = []
    for (kind, digest), splits in rows.items():
        is_batch = kind == data.BATCHES
        found.append(
            Source(
                what=f"Batch {names.get(digest, '')}" if is_batch else "Published rows, as a table",
                artifact=f"{kind}/{digest}",
                depth=2,
                about=", ".join(f"{count:,} {split}" for split, count in splits.items()),
            )
        )
        if raw is not None and not is_batch:
            found.append(Source(what="Raw files", artifact=raw.name, depth=3))
    return found
