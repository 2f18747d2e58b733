"""Metrics: how good predictions are, and the file that keeps them."""

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

from classifier.errors import InputError
from classifier.evaluation.comparison import accuracy_interval

Bytes = NDArray[np.uint8]
Probabilities = NDArray[np.float32]


def score(labels: Bytes, probabilities: Probabilities) -> dict[str, Any]:
    """Return scikit-learn's metrics, JSON-ready; the prediction is the arg-max.

    Args:
        labels: uint8 [N].
        probabilities: float32 [N, K].

    Returns:
        Among others `interval`, the exact 95 % interval of the accuracy, `per_class`, an entry for
        each of the K classes, also for one without rows, and `confusion`, K x K, a row a true
        class.
    """
    predictions = probabilities.argmax(axis=1)
    errors = int((predictions != labels).sum())
    classes = np.arange(probabilities.shape[1])
    per_class = precision_recall_fscore_support(
        labels, predictions, labels=classes, zero_division=0.0
    )
    names = ("precision", "recall", "f1", "support")
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)  # in float32 they add up to one only approximately
    return {
        "test_accuracy": float(accuracy_score(labels, predictions)),
        "interval": list(accuracy_interval(len(labels) - errors, len(labels))),
        "errors": errors,
        "rows": len(labels),
        "log_loss": float(log_loss(labels, exact, labels=classes)),
        "per_class": [
            {"class": number, **dict(zip(names, map(float, values), strict=True))}
            for number, values in enumerate(zip(*per_class, strict=True))
        ],
        "confusion": confusion_matrix(labels, predictions, labels=classes).tolist(),
    }


def write_predictions(path: Path, labels: Bytes, probabilities: Probabilities) -> None:
    """Write one row a test image: label, prediction, probabilities; equal values, equal bytes."""
    wanted = _schema(probabilities.shape[1])
    flat = pa.array(np.ascontiguousarray(probabilities, dtype=np.float32).ravel())
    columns = [
        pa.array(labels),
        pa.array(probabilities.argmax(axis=1).astype(np.uint8)),
        pa.FixedSizeListArray.from_arrays(flat, type=wanted.field("probabilities").type),
    ]
    pq.write_table(pa.table(columns, schema=wanted), path, compression="zstd")


def read_predictions(path: Path) -> tuple[Bytes, Bytes, Probabilities]:
    """Return labels [N], predictions [N] and probabilities [N, K].

    Raises:
        InputError: the file is missing, damaged or of another schema.
    """
    try:
        with pq.ParquetFile(path) as file:
            _check_schema(file.schema_arrow)
            table = file.read(use_threads=False)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(
            f"{path} holds no predictions ({error}): delete it; the next run computes it again."
        ) from error
    labels, predictions, probabilities = (column.combine_chunks() for column in table.columns)
    flat = probabilities.flatten().to_numpy()
    return labels.to_numpy(), predictions.to_numpy(), flat.reshape(len(labels), -1)


def _check_schema(found: pa.Schema) -> None:
    kind = found.field("probabilities").type
    if not found.equals(_schema(getattr(kind, "list_size", 0))):
        raise ValueError("it has other columns")


def _schema(classes: int) -> pa.Schema:
    probability = pa.field("element", pa.float32(), nullable=False)
    return pa.schema(
        [
            pa.field("label", pa.uint8(), nullable=False),
            pa.field("prediction", pa.uint8(), nullable=False),
            pa.field("probabilities", pa.list_(probability, classes), nullable=False),
        ]
    )
