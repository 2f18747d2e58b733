"""Drift: the tests agree with scikit-learn and SciPy, keep their level, and find what is there."""

import numpy as np
import pytest
import torch
from scipy.stats import PermutationMethod, chi2_contingency, kstest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.preprocessing import StandardScaler
from torch import nn

from classifier.data import idx
from classifier.errors import ArgumentError, InputError
from classifier.evaluation import drift, two_sample
from classifier.evaluation.features import features
from classifier.models import EVALUATION_ROWS, Model, predict
from classifier.training import networks

CPU = torch.device("cpu")


def normal(rows, width=5, *, shift=0.0, seed=0):
    """float32 [rows, width], whose first column has the mean `shift`."""
    drawn = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    drawn[:, 0] += shift
    return drawn


def labels_of(rows, classes=3, seed=0):
    return np.random.default_rng(seed).integers(0, classes, rows).astype(np.uint8)


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


def images_of(rows, *shape):
    return np.random.default_rng(0).random((rows, *shape), dtype=np.float32)


def probabilities(logits):
    return torch.from_numpy(logits).softmax(1).numpy()


@pytest.mark.parametrize("name", ["cnn", "best"])
def test_features_are_what_the_last_linear_layer_takes(name):
    model, images = model_of(networks.build(name, (28, 28), 10, {})), images_of(7, 28, 28)
    model.network.train()
    found = features(model, images, CPU)
    last = model.network.layers[-1]
    logits = found @ last.weight.detach().numpy().T + last.bias.detach().numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(probabilities(logits), predict(model, images, CPU), atol=1e-5)


def test_features_of_a_network_without_linear_layers_are_its_logits():
    model, images = model_of(networks.build("post", (28, 28), 10, {})), images_of(7, 28, 28)
    found = features(model, images, CPU)
    np.testing.assert_allclose(probabilities(found), predict(model, images, CPU), atol=1e-6)


class Reversed(nn.Module):
    """Its last layer is registered first and called by keyword; a third one never runs."""

    def __init__(self):
        super().__init__()
        self.last, self.first, self.idle = nn.Linear(6, 3), nn.Linear(4, 6), nn.Linear(2, 2)
        self.seen = []

    def forward(self, images):
        self.seen.append(len(images))
        return self.last(input=self.first(images.flatten(1)))


def test_the_last_linear_layer_is_the_one_that_runs_last():
    model, images = model_of(Reversed(), (2, 2), 3), images_of(5, 2, 2)
    first = model.network.first
    expected = images.reshape(5, 4) @ first.weight.detach().numpy().T + first.bias.detach().numpy()
    np.testing.assert_allclose(features(model, images, CPU), expected, atol=1e-6)


def test_images_go_through_the_network_in_parts_and_no_hook_stays():
    model = model_of(Reversed(), (2, 2), 3)
    assert len(features(model, images_of(2 * EVALUATION_ROWS + 1, 2, 2), CPU)) == 4_001
    assert model.network.seen == [EVALUATION_ROWS, EVALUATION_ROWS, 1]
    assert not any(module._forward_pre_hooks for module in model.network.modules())


def test_features_of_a_row_do_not_depend_on_its_neighbours():
    network = nn.Sequential(
        nn.Flatten(), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 6), nn.Linear(6, 3)
    )
    model, images = model_of(network, (2, 2), 3), images_of(20, 2, 2)
    alone = np.concatenate([features(model, images[i : i + 1], CPU) for i in range(20)])
    np.testing.assert_allclose(features(model, images, CPU), alone, atol=1e-6)


class Tokens(nn.Module):
    """A Linear over tokens, [N, 14, 28], and then their mean."""

    def __init__(self, merged):
        super().__init__()
        self.layer, self.merged = nn.Linear(28, 3), merged

    def forward(self, images):
        tokens = images[:, :14].reshape(-1, 28) if self.merged else images[:, :14]
        return self.layer(tokens).reshape(len(images), -1, 3).mean(1)


def test_many_features_are_projected_so_that_distances_about_stay():
    images = images_of(30, 28, 28)
    found = features(model_of(Tokens(merged=False), classes=3), images, CPU)
    assert found.shape == (30, 256)
    whole = images[:, :14].reshape(30, -1)
    ratios = [
        np.linalg.norm(found[i] - found[j]) / np.linalg.norm(whole[i] - whole[j])
        for i in range(30)
        for j in range(i)
    ]
    assert 0.97 < np.mean(ratios) < 1.03  # a ratio has a deviation of 1 / sqrt(2 * 256), 0.044
    assert 0.8 < min(ratios) < max(ratios) < 1.2


def test_rows_that_a_network_merges_give_its_logits():
    model, images = model_of(Tokens(merged=True), classes=3), images_of(5, 28, 28)
    found = features(model, images, CPU)
    np.testing.assert_allclose(probabilities(found), predict(model, images, CPU), atol=1e-6)


def test_features_of_images_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"\(5, 5\), but the model is for \(28, 28\)"):
        features(model_of(Reversed()), images_of(2, 5, 5), CPU)


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
