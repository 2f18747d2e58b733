"""The card of a model that is promoted: for people, and for what is asked of the model later."""

import json
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from artifacts import artifact
from artifacts.artifact import Artifact
from classifier import datasets
from registry import data
from reporting.card import card
from tasks.champion import COMPONENTS
from tasks.judge import Training
from tasks.test_sets import TestSet

KIND = "cards"
PICTURES = ("confusion.png", "curves.png")  # which show no image


def write(
    training: Training,
    model: Artifact,
    manifest: Artifact,
    sets: Sequence[TestSet],
    pictures: Artifact | None,
    summary: Mapping[str, Any],
    why: Sequence[str],
) -> Artifact:
    """Write card.md, card.json and the key components of the training; they stay."""
    about = _about(training.dataset, model, manifest, sets, summary, why)
    with artifact.draft(KIND, permanent=True) as new:
        (new.folder / "card.md").write_text(card(about), encoding="utf-8")
        for name, value in (("card.json", about), (COMPONENTS, training.components)):
            text = json.dumps(value, indent=1, default=str) + "\n"
            (new.folder / name).write_text(text, encoding="utf-8")
        for name in PICTURES:
            if pictures is not None:
                shutil.copyfile(pictures.path / name, new.folder / name)
    return new.artifact


def _about(
    dataset: str,
    model: Artifact,
    manifest: Artifact,
    sets: Sequence[TestSet],
    summary: Mapping[str, Any],
    why: Sequence[str],
) -> dict[str, Any]:
    declared = datasets.load(dataset)
    described = model.read_json("model.json")
    metrics = {one.name: one.challenger.read_json("metrics.json") for one in sets}
    made = model.metadata
    return {
        "dataset": dataset,
        "model": model.name,
        "purpose": declared.purpose,
        "licence": declared.licence,
        "shape": described["shape"],
        "classes": described["classes"],
        "summary": dict(summary),
        "trained_at": made.get("at", ""),
        "machine": made.get("machine", {}).get("processor", ""),
        "train_seconds": made.get("train_seconds", 0.0),
        "scores": [_score(name, found) for name, found in metrics.items()],
        "per_class": [
            row | {"class": described["classes"][row["class"]]}
            for row in metrics["official"]["per_class"]
            if row["class"] < len(described["classes"])
        ],
        "why": list(why),
        "parts": _parts(dataset, manifest),
    }


def _score(name: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    from classifier.evaluation.comparison import accuracy_interval

    rows, errors = metrics["rows"], metrics["errors"]
    low, high = accuracy_interval(rows - errors, rows)
    return {
        "name": name,
        "rows": rows,
        "errors": errors,
        "accuracy": metrics["test_accuracy"],
        "low": low,
        "high": high,
        "test_set": metrics["test_set"],
    }


def _parts(dataset: str, manifest: Artifact) -> list[dict[str, Any]]:
    names = {batch.digest: batch.name for batch in data.current(dataset).batches}
    found: dict[str, dict[str, Any]] = {}
    for part in manifest.read_json("manifest.json")["parts"]:
        name = names.get(part["digest"], "published")
        row = found.setdefault(part["digest"], {"name": name, "digest": part["digest"][:8]})
        split = "train" if part["split"] == "train" else "test"
        row[split] = row.get(split, 0) + part["rows"]
    return [{"train": 0, "test": 0} | row for row in found.values()]
