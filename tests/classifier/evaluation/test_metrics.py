import numpy as np
import pytest
from scipy import stats

from classifier.errors import InputError
from classifier.evaluation import metrics


@pytest.fixture
def answers():
    """500 rows of 4 classes, the last of which has no row of its own."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 500).astype(np.uint8)
    logits = random.normal(0, 1, (500, 4)) + 2 * np.eye(4)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, probabilities.astype(np.float32)


def test_agrees_with_the_definitions_written_out(answers):
    labels, probabilities = answers
    predictions = probabilities.argmax(axis=1)
    found = metrics.score(labels, probabilities)
    assert found["rows"] == 500
    assert found["errors"] == np.sum(predictions != labels)
    assert found["test_accuracy"] == pytest.approx(np.mean(predictions == labels))
    right = stats.binomtest(int(np.sum(predictions == labels)), 500)
    assert found["interval"] == pytest.approx(list(right.proportion_ci(method="exact")))
    exact = probabilities.astype(np.float64)
    assert found["log_loss"] == pytest.approx(
        -np.log(exact[np.arange(500), labels] / exact.sum(axis=1)).mean()
    )
    confusion = np.array(found["confusion"])
    for true in range(4):
        for predicted in range(4):
            assert confusion[true, predicted] == np.sum(
                (labels == true) & (predictions == predicted)
            )
        entry = found["per_class"][true]
        correct = confusion[true, true]
        assert entry["class"] == true
        assert entry["support"] == confusion[true].sum()
        assert entry["precision"] == pytest.approx(correct / max(1, confusion[:, true].sum()))
        assert entry["recall"] == pytest.approx(correct / max(1, confusion[true].sum()))


def test_a_class_without_rows_is_there_with_zeros(answers):
    last = metrics.score(*answers)["per_class"][3]
    assert (last["support"], last["recall"], last["f1"]) == (0, 0, 0)


def test_predictions_come_back_as_they_were_written(answers, tmp_path):
    labels, probabilities = answers
    for name in ("first", "second"):
        metrics.write_predictions(tmp_path / name, labels, probabilities)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    read = metrics.read_predictions(tmp_path / "first")
    expected = (labels, probabilities.argmax(axis=1).astype(np.uint8), probabilities)
    for array, original in zip(read, expected, strict=True):
        np.testing.assert_array_equal(array, original, strict=True)


def test_a_tie_goes_to_the_lowest_class(tmp_path):
    probabilities = np.full((1, 3), 1 / 3, dtype=np.float32)
    metrics.write_predictions(tmp_path / "tie", np.zeros(1, np.uint8), probabilities)
    assert metrics.read_predictions(tmp_path / "tie")[1].tolist() == [0]


@pytest.mark.parametrize("harm", ["missing", "emptied", "truncated", "another table"])
def test_a_file_that_is_no_predictions_is_named(answers, tmp_path, harm):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "predictions.parquet"
    metrics.write_predictions(path, *answers)
    if harm == "missing":
        path.unlink()
    elif harm == "another table":
        pq.write_table(pa.table({"probabilities": [1.0]}), path)
    else:
        path.write_bytes(path.read_bytes()[: 0 if harm == "emptied" else -20])
    with pytest.raises(InputError, match=r"predictions\.parquet holds no predictions"):
        metrics.read_predictions(path)
