"""Evaluate: what the model says of every image of a test set, and how good that is."""

import hashlib
import json
from typing import TYPE_CHECKING, Any

from artifacts.artifact import Artifact
from artifacts.step import draft
from tasks.parts import open_split
from tasks.step import DATASET, step

if TYPE_CHECKING:
    import numpy as np


@step(kind="evaluations", code=DATASET, ignored=("device",))
def evaluate(
    model: Artifact,
    manifest: Artifact,
    parts: list[Artifact],  # noqa: ARG001 - inputs, which lineage follows
    dataset: str,  # noqa: ARG001 - its file counts in the key: the networks that it brings
    device: str,
) -> Artifact:
    """Write predictions for the official test set, and their metrics.

    Args:
        model: what `train` returned.
        manifest: which rows there are.
        parts: that hold them.
        dataset: its name.
        device: cpu, cuda or mps.
    """
    return _evaluate(model, manifest, "test", device)


@step(kind="evaluations", name="evaluate-recent", code=DATASET, ignored=("device",))
def evaluate_recent(
    model: Artifact,
    manifest: Artifact,
    parts: list[Artifact],  # noqa: ARG001 - as above
    dataset: str,  # noqa: ARG001
    device: str,
) -> Artifact:
    """Write predictions for the test rows of new data, and their metrics; as `evaluate`."""
    return _evaluate(model, manifest, "recent", device)


def _evaluate(model: Artifact, manifest: Artifact, split: str, device: str) -> Artifact:
    from classifier.evaluation import metrics

    labels, probabilities, about = scores(model, manifest, split, device)
    with draft() as new:
        metrics.write_predictions(new.folder / "predictions.parquet", labels, probabilities)
        text = json.dumps(about, indent=2) + "\n"
        (new.folder / "metrics.json").write_text(text, encoding="utf-8")
    return new.artifact


def scores(
    model: Artifact, manifest: Artifact, split: str, device: str
) -> "tuple[np.ndarray, np.ndarray, dict[str, Any]]":
    """Return labels [N], probabilities [N, K] and metrics of a model on a split.

    The metrics have `test_set`, the digest of the rows and their labels.

    Raises:
        InputError: the model or a part is missing or damaged, or the model takes other images.
    """
    import numpy as np

    from classifier import devices, models
    from classifier.data.digests import row_digests
    from classifier.evaluation import metrics

    _, table = open_split(manifest, split)
    place = devices.resolve_device(device)
    network = models.load(model.path)
    test_set = hashlib.sha256()
    labels = np.empty(len(table), np.uint8)
    probabilities = np.zeros((len(table), table.classes), np.float32)
    start = 0
    for images, there in table.chunks():
        rows = slice(start, start + len(there))
        labels[rows] = there
        found = models.predict(network, images.astype(np.float32) / 255, place)
        probabilities[rows, : found.shape[1]] = found  # an older model may know fewer classes
        test_set.update(row_digests(images).tobytes() + there.tobytes())
        start = rows.stop
    about = metrics.score(labels, probabilities) | {"test_set": test_set.hexdigest()}
    return labels, probabilities, about
