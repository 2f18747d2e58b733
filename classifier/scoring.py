"""Scoring: how good predictions are, and the file that keeps them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
)

from classifier.errors import BadInput

Bytes = NDArray[np.uint8]
Chances = NDArray[np.float32]


def score(labels: Bytes, probabilities: Chances) -> dict[str, Any]:
    """Metrics of scikit-learn, JSON-ready; the prediction is the arg-max of the probabilities.

    Takes labels [N] and probabilities [N, K]. `per_class` has an entry for each of the K classes,
    also for one without rows; `confusion` is K x K, a row a true class.
    """
    predictions = probabilities.argmax(axis=1)
    classes = np.arange(probabilities.shape[1])
    per_class = precision_recall_fscore_support(
        labels, predictions, labels=classes, zero_division=0.0
    )
    names = ("precision", "recall", "f1", "support")
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)  # in float32 they add up to one only nearly
    return {
        "test_accuracy": float(accuracy_score(labels, predictions)),
        "errors": int((predictions != labels).sum()),
        "rows": len(labels),
        "log_loss": float(log_loss(labels, exact, labels=classes)),
        "per_class": [
            {"class": number, **dict(zip(names, map(float, values), strict=True))}
            for number, values in enumerate(zip(*per_class, strict=True))
        ],
        "confusion": confusion_matrix(labels, predictions, labels=classes).tolist(),
    }


def write_predictions(path: Path, labels: Bytes, probabilities: Chances) -> None:
    """One row a test image: label, prediction, probabilities. Equal values give equal bytes."""
    wanted = _schema(probabilities.shape[1])
    flat = pa.array(np.ascontiguousarray(probabilities, dtype=np.float32).ravel())
    columns = [
        pa.array(labels),
        pa.array(probabilities.argmax(axis=1).astype(np.uint8)),
        pa.FixedSizeListArray.from_arrays(flat, type=wanted.field("probabilities").type),
    ]
    pq.write_table(pa.table(columns, schema=wanted), path, compression="zstd")


def read_predictions(path: Path) -> tuple[Bytes, Bytes, Chances]:
    """Labels [N], predictions [N] and probabilities [N, K].

    Raises:
        BadInput: the file is missing, damaged or of another schema.
    """
    try:
        with pq.ParquetFile(path) as file:
            _check_schema(file.schema_arrow)
            table = file.read(use_threads=False)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise BadInput(
            f"{path} holds no predictions ({error}): delete it; the next run makes it again."
        ) from error
    labels, predictions, probabilities = (column.combine_chunks() for column in table.columns)
    flat = probabilities.flatten().to_numpy()
    return labels.to_numpy(), predictions.to_numpy(), flat.reshape(len(labels), -1)


def _check_schema(found: pa.Schema) -> None:
    kind = found.field("probabilities").type
    if not found.equals(_schema(getattr(kind, "list_size", 0))):
        raise ValueError("its columns are others")


def _schema(classes: int) -> pa.Schema:
    chance = pa.field("element", pa.float32(), nullable=False)
    return pa.schema(
        [
            pa.field("label", pa.uint8(), nullable=False),
            pa.field("prediction", pa.uint8(), nullable=False),
            pa.field("probabilities", pa.list_(chance, classes), nullable=False),
        ]
    )
