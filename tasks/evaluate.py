"""Evaluate: what the model says of every test image, and how good that is."""

import json

from artifacts.artifact import Artifact
from artifacts.step import draft
from tasks.step import DATASET, step


@step(kind="evaluations", code=DATASET, ignored=("device",))
def evaluate(
    model: Artifact,
    table: Artifact,
    dataset: str,  # noqa: ARG001 - its file counts in the key: the networks that it brings
    device: str,
) -> Artifact:
    """Write predictions for the test table, and their metrics.

    Args:
        model: what `train` returned.
        table: what `normalise` returned.
        dataset: its name.
        device: cpu, cuda or mps.
    """
    from classifier import devices, models
    from classifier.data import tables
    from classifier.evaluation import metrics

    images, labels = tables.read(table.path, "test")
    place = devices.resolve_device(device)
    probabilities = models.predict(models.load(model.path), images, place)
    with draft() as new:
        metrics.write_predictions(new.folder / "predictions.parquet", labels, probabilities)
        text = json.dumps(metrics.score(labels, probabilities), indent=2) + "\n"
        (new.folder / "metrics.json").write_text(text, encoding="utf-8")
    return new.artifact
