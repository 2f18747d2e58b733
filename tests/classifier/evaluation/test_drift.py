"""Drift: the tests agree with scikit-learn and SciPy, keep their level, and find what is there."""

import numpy as np
import pytest
import torch
from scipy.stats import PermutationMethod, chi2_contingency, kstest
from sklearn.metrics import roc_auc_score

from classifier.data import idx
from classifier.errors import ArgumentError
from classifier.evaluation import drift, two_sample
from classifier.evaluation.features import features
from classifier.models import Model
from classifier.training import networks

CPU = torch.device("cpu")


def normal(rows, width=5, *, shift=0.0, seed=0):
    """float32 [rows, width], whose first column has the mean `shift`."""
    drawn = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    drawn[:, 0] += shift
    return drawn


def labels_of(rows, classes=3, seed=0):
    return np.random.default_rng(seed).integers(0, classes, rows).astype(np.uint8)


@pytest.mark.parametrize("shares", [(0.4, 0.3, 0.2, 0.1), (0.35, 0.3, 0.23, 0.12)])
def test_the_p_value_of_label_shift_agrees_with_scipy(shares):
    random = np.random.default_rng(5)
    reference = random.choice(4, 900, p=(0.4, 0.3, 0.2, 0.1)).astype(np.uint8)
    batch = random.choice(4, 300, p=shares).astype(np.uint8)
    table = np.stack([np.bincount(reference), np.bincount(batch)])
    method = PermutationMethod(n_resamples=2_000, rng=np.random.default_rng(0))
    expected = chi2_contingency(table, correction=False, method=method).pvalue
    found = drift.label_shift(reference, batch, 4, permutations=20_000)
    assert found == pytest.approx(expected, abs=0.03)
    assert found == pytest.approx(chi2_contingency(table, correction=False).pvalue, abs=0.03)


def test_p_values_of_equal_class_shares_are_uniform():
    values = [
        drift.label_shift(
            labels_of(600, 10, seed), labels_of(250, 10, seed + 500), 10, permutations=199
        )
        for seed in range(400)
    ]
    assert kstest(values, "uniform").pvalue > 0.01


def test_equal_class_shares_and_absent_classes_are_no_label_shift():
    assert drift.label_shift(np.repeat([1, 3], 200), np.repeat([1, 3], 100), 5) == 1.0
    assert drift.label_shift(np.full(200, 1), np.full(100, 1), 5) == 1.0


def test_a_class_that_grows_is_a_label_shift():
    grown = np.concatenate([labels_of(400), np.zeros(200, np.uint8)])
    assert drift.label_shift(labels_of(1_000, seed=1), grown, 3, permutations=999) == 1 / 1_000


def test_alpha_spreads_the_budget_over_checks_and_both_tests():
    assert drift.alpha(1, 52) == pytest.approx(1 / 104)
    assert drift.alpha(3, 365) * 2 * 365 == pytest.approx(3)
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ArgumentError, match="above zero"):
            drift.alpha(1, bad)
        with pytest.raises(ArgumentError, match="above zero"):
            drift.alpha(bad, 52)


def test_a_sound_batch_does_not_alarm():
    found = drift.drift(normal(600), labels_of(600), normal(300, seed=1), labels_of(300, seed=1), 3)
    assert not found.alarm
    assert found.why is None
    assert found.alpha == drift.alpha(1, 52)
    assert found.p_value > found.alpha
    assert found.label_p_value > found.alpha


def test_a_difference_that_is_certain_but_small_does_not_alarm():
    found = drift.drift(
        normal(2_000),
        labels_of(2_000),
        normal(2_000, shift=0.2, seed=1),
        labels_of(2_000),
        3,
        permutations=208,
    )
    assert found.p_value <= found.alpha
    assert 0.5 < found.auc < 0.6
    assert not found.alarm


def test_a_large_difference_alarms_and_says_how_large():
    found = drift.drift(
        normal(600), labels_of(600), normal(300, shift=1, seed=1), labels_of(300, seed=1), 3
    )
    assert found.alarm
    assert found.why == f"The images differ from the reference (AUC {found.auc:.2f})."


def test_class_shares_alarm_alone():
    grown = np.concatenate([labels_of(150), np.zeros(150, np.uint8)])
    found = drift.drift(normal(600), labels_of(600), normal(300, seed=1), grown, 3)
    assert found.alarm
    assert found.why.startswith("The class shares differ from the reference (p ")
    assert found.p_value > found.alpha


@pytest.mark.parametrize(("reference", "batch"), [(199, 400), (400, 199)])
def test_fewer_than_200_rows_are_not_tested(reference, batch):
    found = drift.drift(
        normal(reference), labels_of(reference), normal(batch, shift=9), labels_of(batch), 3
    )
    assert not found.alarm
    assert (found.auc, found.p_value, found.label_p_value, found.scores) == (None,) * 4
    assert found.why == "No drift test: it needs 200 reference and batch rows, and has 199."


def test_the_class_that_drifts_is_told_apart():
    reference, reference_labels, batch_labels = normal(900), labels_of(900), labels_of(450, seed=1)
    reference_labels[:20], batch_labels[:19] = 3, 3
    batch = normal(450, seed=1)
    batch[batch_labels == 1, 0] += 3
    found = drift.drift(reference, reference_labels, batch, batch_labels, 4, permutations=208)
    whole = two_sample.two_sample(reference, batch, permutations=1)
    for number in range(3):
        own = whole.scores[batch_labels == number]
        theirs = whole.reference_scores[reference_labels == number]
        expected = roc_auc_score([1] * len(own) + [0] * len(theirs), [*own, *theirs])
        assert found.class_aucs[number] == pytest.approx(expected, abs=1e-3)
        assert (found.class_aucs[number] > 0.9) == (number == 1)
    assert found.class_aucs[3] is None


def test_an_alarm_stays_possible_when_checks_are_frequent():
    found = drift.drift(
        normal(200), labels_of(200), normal(200, shift=3), labels_of(200), 3, checks_a_year=1_500
    )
    assert found.p_value <= found.alpha == 1 / 3_000
    assert found.alarm


@pytest.mark.parametrize(
    ("rows", "wrong", "sentences"),
    [(99, 99, 0), (100, 50, 0), (100, 51, 1), (1_000, 1_000, 1)],
)
def test_more_than_half_of_100_labels_contradicted_is_broken(rows, wrong, sentences):
    labels = np.arange(rows).astype(np.uint8) % 2
    predictions = labels.copy()
    predictions[:wrong] ^= 1
    found = drift.broken(labels, predictions, np.array([0.5, 0.5]), 255)
    assert len(found) == sentences
    assert all(f"contradicts {wrong:,} of {rows:,} labels" in sentence for sentence in found)


@pytest.mark.parametrize(
    ("share", "found"),
    [(0.099, []), (0.1, ["Class 2 has no rows, but 20 were expected."])],
)
def test_a_class_that_is_gone_is_broken_from_20_rows_expected(share, found):
    labels = np.arange(200).astype(np.uint8) % 2
    shares = np.array([0.9 - share, 0.1, share])
    assert drift.broken(labels, labels, shares, 255) == found


@pytest.mark.parametrize(("brightest", "count"), [(1, 1), (25, 1), (26, 0), (255, 0)])
def test_a_scale_that_leaves_all_dark_is_broken(brightest, count):
    labels = np.zeros(10, np.uint8)
    found = drift.broken(labels, labels, np.array([1.0]), brightest)
    assert found == [f"The brightest pixel is {brightest} of 255: the scale is wrong."] * count


def model_of(network, shape=(28, 28), classes=10):
    return Model(network=network, dataset="mnist", shape=shape, classes=("a",) * classes)


def test_inverted_digits_alarm_and_other_digits_of_the_pool_do_not(pytestconfig):
    folder = pytestconfig.rootpath / "tests" / "fixtures" / "mnist"
    images = idx.read(folder / "train-images-idx3-ubyte.gz").astype(np.float32) / 255
    labels = idx.read(folder / "train-labels-idx1-ubyte.gz")
    order = np.random.default_rng(0).permutation(len(images))
    reference, batch = order[:500], order[500:]
    model = model_of(networks.build("cnn", (28, 28), 10, {}))
    sound, inverted = (
        drift.drift(
            features(model, images[reference], CPU),
            labels[reference],
            features(model, pixels, CPU),
            labels[batch],
            10,
            permutations=208,
        )
        for pixels in (images[batch], 1 - images[batch])
    )
    assert not sound.alarm
    assert inverted.alarm
    assert inverted.auc > 0.99
