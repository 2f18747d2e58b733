"""The two-sample test agrees with scikit-learn, keeps its level, and finds what is there."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.preprocessing import StandardScaler

from classifier.errors import InputError
from classifier.evaluation import two_sample

CPU = torch.device("cpu")


def normal(rows, width=5, *, shift=0.0, seed=0):
    """float32 [rows, width], whose first column has the mean `shift`."""
    drawn = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    drawn[:, 0] += shift
    return drawn


def test_scores_and_auc_agree_with_scikit_learn():
    scales = np.array([1, 100, 0.01, 1, 1], np.float32)
    reference, batch = normal(301) * scales + 7, normal(203, shift=0.5, seed=1) * scales + 7
    found = two_sample.two_sample(reference, batch, permutations=1, seed=3)
    random = np.random.default_rng(3)
    sides = [random.permutation(301), random.permutation(np.arange(301, 504))]
    pool = random.permutation(np.concatenate(sides))
    is_batch = pool >= 301
    targets = np.where(is_batch, 1.0, -1.0)
    fold = np.digitize(np.arange(504), [100, 201, 302, 403])
    expected = cross_val_predict(
        Ridge(alpha=two_sample.RIDGE * 504, fit_intercept=False),
        StandardScaler().fit_transform(np.concatenate([reference, batch]).astype(float)[pool]),
        targets - targets.mean(),
        cv=PredefinedSplit(fold),
    )
    by_row = np.empty(504)
    by_row[pool] = expected
    np.testing.assert_allclose(found.reference_scores, by_row[:301], atol=1e-4)
    np.testing.assert_allclose(found.scores, by_row[301:], atol=1e-4)
    assert found.auc == pytest.approx(roc_auc_score(is_batch, expected), abs=1e-4)
    assert found.scores.dtype == np.float32


def test_all_labellings_at_once_score_as_each_alone():
    rows = normal(120, 4)
    ridge = two_sample._Ridge(rows)
    random = np.random.default_rng(1)
    labellings = np.stack([random.permutation(120)[:30] for _ in range(7)])
    for scores, chosen in zip(ridge.scores(labellings), labellings, strict=True):
        targets = np.full(120, -1.0)
        targets[chosen] = 1
        expected = cross_val_predict(
            Ridge(alpha=two_sample.RIDGE * 120, fit_intercept=False),
            rows.astype(float),
            targets - targets.mean(),
            cv=PredefinedSplit(np.arange(120) // 24),
        )
        np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("values", [2, 5, 1_000_000])
def test_auc_with_ties_agrees_with_scikit_learn(values):
    random = np.random.default_rng(values)
    scores = random.integers(0, values, 300).astype(np.float32)
    positive = random.permutation(300)[:70]
    expected = roc_auc_score(np.isin(np.arange(300), positive), scores)
    assert two_sample.auc_of(scores, positive) == pytest.approx(expected, abs=1e-12)


def test_p_values_of_equal_distributions_are_uniform():
    values = [
        two_sample.two_sample(
            normal(260, 3, seed=2 * seed), normal(200, 3, seed=2 * seed + 1), permutations=59
        ).p_value
        for seed in range(100)
    ]
    assert kstest(values, "uniform").pvalue > 0.01
    assert min(values) < 0.1


def test_a_shift_is_found_and_the_p_value_is_never_zero():
    found = two_sample.two_sample(normal(300), normal(200, shift=1.5, seed=1), permutations=99)
    assert found.p_value == 1 / 100
    assert found.auc > 0.8


def test_features_without_differences_are_no_drift():
    found = two_sample.two_sample(np.ones((200, 3), np.float32), np.ones((210, 3), np.float32))
    assert (found.auc, found.p_value) == (0.5, 1.0)


def test_the_rows_that_drift_score_highest():
    batch = normal(300, seed=1)
    batch[:60, 2] += 4
    found = two_sample.two_sample(normal(500), batch, permutations=1)
    assert np.mean(np.argsort(-found.scores)[:60] < 60) > 0.9


def test_rows_beyond_the_sample_are_scored_too():
    rows = two_sample.MAX_ROWS + 400
    found = two_sample.two_sample(normal(rows), normal(rows, shift=1, seed=1), permutations=1)
    assert found.scores.shape == found.reference_scores.shape == (rows,)
    scores = np.concatenate([found.reference_scores, found.scores])
    expected = roc_auc_score(np.arange(2 * rows) >= rows, scores)
    assert found.auc == pytest.approx(expected, abs=0.01)
    assert 0.7 < found.auc < 0.8  # the optimum is Phi(1 / sqrt(2)), 0.76


def test_the_same_seed_gives_the_same_answer():
    first, again, other = (
        two_sample.two_sample(normal(300), normal(250, seed=1), permutations=50, seed=seed)
        for seed in (1, 1, 2)
    )
    assert (first.auc, first.p_value) == (again.auc, again.p_value)
    np.testing.assert_array_equal(first.scores, again.scores)
    assert first.auc != other.auc


def test_too_few_rows_and_values_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="The batch has 199 rows: a drift test needs 200"):
        two_sample.two_sample(normal(300), normal(199))
    harmed = normal(300)
    harmed[4, 2] = np.nan
    with pytest.raises(InputError, match="Reference features are not finite"):
        two_sample.two_sample(harmed, normal(200))
