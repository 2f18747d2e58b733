"""Drift: whether a batch of data differs from reference rows that the model did not train on.

The tests hold for rows that are independent of each other: a batch of one new writer is drift.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from classifier.errors import ArgumentError
from classifier.evaluation.two_sample import MIN_ROWS, PERMUTATIONS, TwoSample, auc_of, two_sample

MIN_AUC = 0.6  # less is no alarm, however certain
MIN_CLASS_ROWS = 20
MIN_LABELS = 100
MIN_BRIGHTEST = 26  # of 255: a tenth, which images in 0..1 that were taken for 0..255 never reach


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Verdict on a batch; all but `alpha`, `alarm` and `why` is None where no test was made.

    `class_aucs` tells the same classifier's AUC within each class, and None where either side has
    fewer than 20 rows of it. `why` says what raised the alarm, or why there was no test.
    """

    alpha: float
    alarm: bool
    why: str | None
    auc: float | None = None
    p_value: float | None = None
    label_p_value: float | None = None
    scores: np.ndarray | None = None
    class_aucs: list[float | None] | None = None


def label_shift(
    reference_labels: np.ndarray,
    batch_labels: np.ndarray,
    classes: int,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> float:
    """Return the p-value of equal class shares: the chi-square statistic under permuted labels.

    Args:
        reference_labels: uint8 [R].
        batch_labels: uint8 [N].
        classes: their number.
        permutations: of the pooled labels; each gives the batch its own size.
        seed: of the permutations.
    """
    reference, batch = (
        np.bincount(labels, minlength=classes) for labels in (reference_labels, batch_labels)
    )
    pooled = reference + batch
    pooled, batch = pooled[pooled > 0], batch[pooled > 0]
    expected = pooled * (batch.sum() / pooled.sum())

    def statistic(counts: np.ndarray) -> np.ndarray:  # a fixed multiple of both rows' chi-square
        return np.asarray(((counts - expected) ** 2 / expected).sum(axis=-1))

    random = np.random.default_rng(seed)
    null = random.multivariate_hypergeometric(pooled, batch.sum(), size=permutations)
    as_far = np.sum(statistic(null) >= statistic(batch) * (1 - 1e-9))  # equal but for rounding
    return float((1 + as_far) / (1 + permutations))


def alpha(alarms_a_year: float, checks_a_year: float) -> float:
    """Return the level of each of the two tests (features, class shares) of a check.

    Raises:
        ArgumentError: a number is not finite and above zero.
    """
    if not (0 < alarms_a_year < math.inf and 0 < checks_a_year < math.inf):
        raise ArgumentError("Alarms and checks a year must be finite and above zero.")
    return alarms_a_year / checks_a_year / 2


def drift(
    reference_features: np.ndarray,
    reference_labels: np.ndarray,
    batch_features: np.ndarray,
    batch_labels: np.ndarray,
    classes: int,
    *,
    alarms_a_year: float = 1.0,
    checks_a_year: float = 52.0,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Drift:
    """Test a batch, once, for a shift of its features and of its class shares.

    Features alarm with p <= alpha and an AUC of at least 0.6; class shares with p <= alpha. A side
    with fewer than 200 rows is not tested.

    Args:
        reference_features: float32 [R, D], of rows that the model did not train on.
        reference_labels: uint8 [R].
        batch_features: float32 [N, D].
        batch_labels: uint8 [N].
        classes: their number.
        alarms_a_year: false alarms to be expected, both tests together.
        checks_a_year: how many batches are tested.
        permutations: of either test; more where alpha needs them.
        seed: of sample, folds and permutations.

    Raises:
        ArgumentError: alarms or checks a year are not finite and above zero.
        InputError: features are not finite.
    """
    level = alpha(alarms_a_year, checks_a_year)
    fewest = min(len(reference_features), len(batch_features))
    if fewest < MIN_ROWS:
        why = f"No drift test: it needs {MIN_ROWS} reference and batch rows, and has {fewest}."
        return Drift(alpha=level, alarm=False, why=why)
    count = max(permutations, math.ceil(2 / level))  # so that p can reach alpha
    found = two_sample(reference_features, batch_features, permutations=count, seed=seed)
    labels = label_shift(reference_labels, batch_labels, classes, permutations=count, seed=seed)
    reasons = []
    if found.p_value <= level and found.auc >= MIN_AUC:
        reasons.append(f"The images differ from the reference (AUC {found.auc:.2f}).")
    if labels <= level:
        reasons.append(f"The class shares differ from the reference (p {labels:.2g}).")
    return Drift(
        alpha=level,
        alarm=bool(reasons),
        why=" ".join(reasons) or None,
        auc=found.auc,
        p_value=found.p_value,
        label_p_value=labels,
        scores=found.scores,
        class_aucs=_class_aucs(found, reference_labels, batch_labels, classes),
    )


def _class_aucs(
    found: TwoSample, reference_labels: np.ndarray, batch_labels: np.ndarray, classes: int
) -> list[float | None]:
    aucs: list[float | None] = []
    for number in range(classes):
        reference = found.reference_scores[reference_labels == number]
        batch = found.scores[batch_labels == number]
        tested = min(len(reference), len(batch)) >= MIN_CLASS_ROWS
        both = np.concatenate([batch, reference])
        aucs.append(auc_of(both, np.arange(len(batch))) if tested else None)
    return aucs


def broken(
    labels: np.ndarray,
    predictions: np.ndarray,
    reference_shares: np.ndarray,
    brightest: int,
    classes: Sequence[str] = (),
) -> list[str]:
    """Return a sentence for each thing that is broken about a batch; none when it is sound.

    Args:
        labels: uint8 [N].
        predictions: uint8 [N], of the present model.
        reference_shares: float [classes], that add up to 1.
        brightest: pixel of the batch, in 0..255.
        classes: their names; numbers unless given.
    """
    sentences = []
    wrong = int(np.sum(labels != predictions))
    if len(labels) >= MIN_LABELS and 2 * wrong > len(labels):
        sentences.append(f"The model contradicts {wrong:,} of {len(labels):,} labels.")
    counts = np.bincount(labels, minlength=len(reference_shares))
    for number, share in enumerate(reference_shares):
        expected = share * len(labels)
        if counts[number] == 0 and expected >= MIN_CLASS_ROWS:
            name = classes[number] if classes else number
            sentences.append(f"Class {name} has no rows, but {expected:.0f} were expected.")
    if brightest < MIN_BRIGHTEST:
        sentences.append(f"The brightest pixel is {brightest} of 255: the scale is wrong.")
    return sentences
