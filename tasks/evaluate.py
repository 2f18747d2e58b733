"""Evaluate: what the model says of every test image, and how good that is."""

import json

from tasks import artifacts
from tasks.artifacts import Artifact
from tasks.caching import BY_CONTENT, step


@step(name="evaluate", cache_policy=BY_CONTENT - "device")
def evaluate(model: Artifact, table: Artifact, dataset: str, device: str) -> Artifact:
    """Predictions for the test table, and their metrics.

    Args:
        model: what `train` gave.
        table: what `normalise` gave.
        dataset: its name, for the networks that it brings.
        device: auto, cpu, cuda or mps.
    """
    from classifier import devices, models, scoring, tables

    images, labels = tables.read(table.path, "test")
    chances = models.predict(models.load(model.path), images, devices.pick(device))
    with artifacts.draft("evaluations", dataset=dataset) as new:
        scoring.write_predictions(new.folder / "predictions.parquet", labels, chances)
        metrics = json.dumps(scoring.score(labels, chances), indent=2) + "\n"
        (new.folder / "metrics.json").write_text(metrics, encoding="utf-8")
    return new.finished()
