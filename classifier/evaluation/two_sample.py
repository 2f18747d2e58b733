"""A classifier two-sample test: do two samples come from one distribution?"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from classifier.errors import InputError

MIN_ROWS = 200  # of a side; with fewer, an AUC below 0.6 says nothing
MAX_ROWS = 2_000  # of a side; more are sampled: 4,000 find an AUC higher by 0.01 at most
FOLDS = 5
RIDGE = 0.1  # penalty, as a share of the pooled rows, on standardised features; 1 finds less
PERMUTATIONS = 2_000  # also the labellings that are held at a time


@dataclass(frozen=True, kw_only=True)
class TwoSample:
    """How well a classifier tells the batch from the reference.

    `auc` is the probability that a batch row scores above a reference row; 0.5 is chance. `scores`,
    float32 [N], and `reference_scores`, float32 [R], are out of sample: the higher, the more the
    row looks like the batch and not like the reference.
    """

    auc: float
    p_value: float
    scores: np.ndarray
    reference_scores: np.ndarray


def two_sample(
    reference: np.ndarray, batch: np.ndarray, *, permutations: int = PERMUTATIONS, seed: int = 0
) -> TwoSample:
    """Test whether two samples come from one distribution, by a classifier (Lopez-Paz, Oquab 2017).

    Ridge regression on +-1 is fitted to four fifths of the pooled rows and scores the last fifth,
    in turn. The AUC of the scores is compared with that of permuted labels. More than 2,000 rows of
    a side are sampled; the classifier of all sampled rows scores the others.

    Args:
        reference: float32 [R, D], at least 200 rows.
        batch: float32 [N, D], at least 200 rows.
        permutations: of the labels; the least p-value is 1 / (1 + permutations).
        seed: of the sample, the folds and the permutations.

    Raises:
        InputError: a side has too few rows, or values that are not finite.
    """
    for name, rows in (("reference", reference), ("batch", batch)):
        if len(rows) < MIN_ROWS:
            raise InputError(f"The {name} has {len(rows)} rows: a drift test needs {MIN_ROWS}.")
        if not np.isfinite(rows).all():
            raise InputError(f"{name.title()} features are not finite: check the images, retrain.")
    random = np.random.default_rng(seed)
    sides = (np.arange(len(reference)), len(reference) + np.arange(len(batch)))
    kept = [random.permutation(side)[:MAX_ROWS] for side in sides]
    pool = random.permutation(np.concatenate(kept))  # folds are slices of this order
    count = len(kept[1])
    everything = _standardised(np.concatenate([reference, batch]), pool)
    ridge = _Ridge(everything[pool])
    observed = np.flatnonzero(pool >= len(reference))[None]
    scores = ridge.scores_of_all(everything, observed)
    scores[pool] = ridge.scores(observed)[0]
    auc = auc_of(scores[pool], observed[0])
    null = (
        auc_of(row, chosen)
        for labellings in _labellings(len(pool), count, permutations, random)
        for row, chosen in zip(ridge.scores(labellings), labellings, strict=True)
    )
    return TwoSample(
        auc=auc,
        p_value=(1 + sum(value >= auc for value in null)) / (1 + permutations),
        scores=scores[len(reference) :],
        reference_scores=scores[: len(reference)],
    )


class _Ridge:
    """Ridge regression of centred +-1 targets on rows, float32 [M, D], without intercept.

    The scores are linear in the targets, so that a matrix product a fold serves all labellings.
    """

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        bounds = np.linspace(0, len(rows), FOLDS + 1).astype(int)
        self.folds = [slice(*pair) for pair in pairwise(bounds)]
        grams = [(rows[fold].T @ rows[fold]).astype(np.float64) for fold in self.folds]
        penalty = RIDGE * len(rows) * np.eye(rows.shape[1])
        self.gram = sum(grams) + penalty
        self.held_out = [
            np.linalg.inv(self.gram - gram).astype(np.float32) @ rows[fold].T
            for fold, gram in zip(self.folds, grams, strict=True)
        ]

    def scores(self, labellings: np.ndarray) -> np.ndarray:
        """Return cross-fitted scores, float32 [P, M]; labellings, int [P, N], name batch rows."""
        targets = self._targets(labellings)
        moments = [targets[:, fold] @ self.rows[fold] for fold in self.folds]
        total = np.sum(moments, axis=0)
        held_out = zip(moments, self.held_out, strict=True)
        return np.concatenate([(total - moment) @ solved for moment, solved in held_out], axis=1)

    def scores_of_all(self, others: np.ndarray, labelling: np.ndarray) -> np.ndarray:
        """Return scores, float32 [len(others)], of the regression on all rows."""
        weights = np.linalg.solve(self.gram, (self._targets(labelling) @ self.rows)[0])
        return others @ weights.astype(np.float32)

    def _targets(self, labellings: np.ndarray) -> np.ndarray:
        mean = np.float32(2 * labellings.shape[1] / len(self.rows) - 1)
        targets = np.full((len(labellings), len(self.rows)), -1 - mean, np.float32)
        np.put_along_axis(targets, labellings, 1 - mean, axis=1)
        return targets


def _standardised(rows: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Return float32 rows less mean and over deviation of the pool; a constant column is 0."""
    mean, deviation = (f(rows[pool], axis=0, dtype=np.float64) for f in (np.mean, np.std))
    scale = np.where(deviation > 1e-6 * (1e-30 + np.abs(mean)), deviation, np.inf)
    return ((rows - mean) / scale).astype(np.float32)


def _labellings(
    rows: int, count: int, permutations: int, random: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield int [P, count]: the rows that a permutation calls the batch, some at a time."""
    for start in range(0, permutations, PERMUTATIONS):
        part = min(PERMUTATIONS, permutations - start)
        yield np.stack([random.choice(rows, count, replace=False) for _ in range(part)])


def auc_of(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the AUC of scores [M], of which `positive` are indices; ties count one half."""
    ordered, count = np.sort(scores), len(positive)
    own = np.sort(scores[positive])  # sorted, they are found faster
    twice_ranks = sum(int(ordered.searchsorted(own, side).sum()) for side in ("left", "right"))
    return (twice_ranks - count * count) / (2 * count * (len(scores) - count))
