"""Inspection: what a batch holds, and whether it may be trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifier import devices, models
from classifier.data.parts import Table
from classifier.evaluation import drift, features

SEED = 0  # of the rows that are compared, where there are many


@dataclass(frozen=True, kw_only=True)
class Look:
    """What rows look like.

    Fields:
        counts: int [classes].
        means: float32 [classes, *shape] in 0..1, the mean image of each class; zeros without rows.
        brightest: pixel, in 0..255.
    """

    counts: NDArray[np.int64]
    means: NDArray[np.float32]
    brightest: int


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The present model, which may lack the newest classes, and rows that it did not train on.

    Fields:
        model: loaded.
        images: float32 [R, *shape] in 0..1.
        labels: uint8 [R].
        device: cpu, cuda or mps.
    """

    model: models.Model
    images: NDArray[np.float32]
    labels: NDArray[np.uint8]
    device: str


def look_at(table: Table) -> Look:
    """Return what the rows of a table look like; memory does not grow with them."""
    counts = np.zeros(table.classes, np.int64)
    sums = np.zeros((table.classes, *table.description.shape))
    brightest = 0
    for images, labels in table.chunks():
        counts += np.bincount(labels, minlength=table.classes)
        for label in np.unique(labels).tolist():
            sums[label] += images[labels == label].sum(axis=0, dtype=np.float64)
        brightest = max(brightest, int(images.max()))
    shares = np.maximum(counts, 1).reshape(-1, *(1,) * (sums.ndim - 1))
    return Look(counts=counts, means=(sums / shares / 255).astype(np.float32), brightest=brightest)


def judge(
    table: Table,
    seen: Look,
    usual: Look,
    reference: Reference | None,
    classes: Sequence[str],
    *,
    alarms_a_year: float,
    checks_a_year: float,
    most_rows: int,
) -> tuple[dict[str, Any], list[int]]:
    """Judge a batch: sound, drifted, or broken.

    Args:
        table: the rows of the batch.
        seen: what they look like.
        usual: what the published train rows look like.
        reference: None where there is no model yet: labels and drift are then not looked at.
        classes: their names.
        alarms_a_year: false drift alarms that a year may have.
        checks_a_year: batches that are checked in a year.
        most_rows: of the batch whose features are compared.

    Returns:
        The verdict, JSON-ready, and the numbers of the rows that drift most, the most first.
    """
    shares = np.zeros(table.classes)
    shares[: len(usual.counts)] = usual.counts / usual.counts.sum()
    labels = np.concatenate([np.empty(0, np.uint8), *(labels for _, labels in table.chunks())])
    predictions = labels  # where there is no model to ask
    found = drift.Drift(alpha=drift.alpha(alarms_a_year, checks_a_year), alarm=False, why=None)
    rows: list[int] = []
    trusted = False
    if reference is not None and len(table):
        if trusted := _is_mostly_right(reference):
            known = labels < len(reference.model.classes)  # of a newer class it says nothing
            predictions = np.where(known, _predict(table, reference), labels)
        chosen = sample(len(table), most_rows)
        images, names = table.take(chosen)
        place = devices.resolve_device(reference.device)
        found = drift.drift(
            features.features(reference.model, reference.images, place),
            reference.labels,
            features.features(reference.model, images, place),
            names,
            table.classes,
            alarms_a_year=alarms_a_year,
            checks_a_year=checks_a_year,
        )
        if found.scores is not None:
            rows = chosen[np.argsort(-found.scores, kind="stable")].tolist()
    wrong = int((predictions != labels).sum())
    why: list[str] = []
    if len(table):  # of a batch that was erased, nothing is left to be broken
        why = drift.broken(labels, predictions, shares, seen.brightest, classes)
    outcome = "broken" if why else "drift" if found.alarm else "sound"
    if found.alarm and found.why:
        why.append(found.why)
    verdict = {
        "outcome": outcome,
        "why": why,
        "note": None if found.alarm else found.why,
        "rows": len(table),
        "counts": dict(zip(classes, seen.counts.tolist(), strict=True)),
        "usual_shares": dict(zip(classes, shares.tolist(), strict=True)),
        "contradicted": wrong if trusted else None,
        "auc": found.auc,
        "p_value": found.p_value,
        "label_p_value": found.label_p_value,
        "alpha": found.alpha,
        "class_aucs": dict(zip(classes, found.class_aucs or [None] * len(classes), strict=True)),
    }
    return verdict, rows


def _is_mostly_right(reference: Reference) -> bool:
    """Return whether the model may contradict labels: a trial of one epoch may not."""
    place = devices.resolve_device(reference.device)
    found = models.predict(reference.model, reference.images, place).argmax(axis=1)
    return 2 * int((found == reference.labels).sum()) > len(found)


def _predict(table: Table, reference: Reference) -> NDArray[np.uint8]:
    """Return what the model says of each row."""
    place = devices.resolve_device(reference.device)
    return np.concatenate(
        [
            models.predict(reference.model, images.astype(np.float32) / 255, place).argmax(axis=1)
            for images, _ in table.chunks()
        ]
    ).astype(np.uint8)


def sample(rows: int, most: int) -> NDArray[np.int64]:
    """Return the numbers of at most so many rows, drawn at random, in ascending order."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(SEED).choice(rows, most, replace=False))
