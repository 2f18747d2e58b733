"""Difficulties are measured once for each seed, and fitted to what was measured."""

import numpy as np
import pytest

from benchmarks import clock, difficulties
from classifier.data import idx
from tests.conftest import FIXTURE


def fixture():
    """The images of the tests, as `data.raw` gives them."""
    return {
        f"{ours}-{what}": idx.read(FIXTURE / f"{theirs}-{what}-{kind}-ubyte.gz")
        for ours, theirs in (("train", "train"), ("test", "t10k"))
        for what, kind in (("images", "idx3"), ("labels", "idx1"))
    }


def drawn(shape, rows, seeds):
    """What that many seeds measure where the difficulties are beta."""
    random = np.random.default_rng(0)
    wrong = random.random((seeds, rows)) < random.beta(*shape, rows)
    counts = np.bincount(wrong.sum(axis=0), minlength=seeds + 1)
    return wrong, difficulties.Measured(
        about="drawn", rows=rows, errors=wrong.sum(axis=1), counts=counts
    )


def test_flips_are_those_of_all_pairs():
    wrong, measured = drawn((0.1, 1), 500, 4)
    pairs = [(wrong[i] != wrong[j]).sum() for i in range(4) for j in range(i)]
    assert measured.flips == pytest.approx(np.mean(pairs))


def test_the_shape_is_found_again():
    _, measured = drawn((0.05, 0.5), 100_000, 10)
    assert measured.shape == pytest.approx((0.05, 0.5), rel=0.05)
    chances = measured.draw(np.random.default_rng(0))
    assert chances.sum() == pytest.approx(measured.errors.mean(), rel=0.05)
    assert "p 0.0" not in str(measured)


def test_a_worse_model_finds_every_row_harder_by_the_same_odds():
    chances = np.array([0, 1e-9, 0.01, 0.3, 0.9, 1])
    equal, worse, better = difficulties.of_worse(chances, np.array([0, 0.2, -0.2]))
    assert equal == pytest.approx(chances)
    assert (worse.sum(), better.sum()) == pytest.approx(
        (chances.sum() + 0.2, chances.sum() - 0.2), abs=1e-3
    )
    some = slice(1, -1)
    odds = worse[some] / (1 - worse[some]) / (chances[some] / (1 - chances[some]))
    assert odds == pytest.approx([odds[0]] * 4)


def test_what_is_checked_in_is_ten_seeds_of_cnn_on_all_test_rows():
    measured = difficulties.read()
    assert measured.about.startswith("`cnn`, ")
    assert measured.counts.sum() == measured.rows == 10_000
    assert measured.counts @ np.arange(11) == measured.errors.sum()


def test_a_trained_model_is_wrong_on_some_rows():
    wrong = difficulties._wrong_rows(fixture(), "post", "float32", 0)
    assert 0 < len(set(wrong)) < 100
    assert set(wrong) <= set(range(200))


def test_an_interrupted_measurement_goes_on_and_a_whole_one_starts_again(tmp_path, monkeypatch):
    file, trained = tmp_path / "errors.jsonl", []

    def train(raw, recipe, precision, seed):
        trained.append(seed)
        return np.arange(seed)

    monkeypatch.setattr(difficulties, "_wrong_rows", train)
    with pytest.raises(SystemExit, match="0 of 3 seeds"):
        difficulties.read(file, 3)
    difficulties.measure(file, fixture(), seeds=2)
    with pytest.raises(SystemExit, match="2 of 3 seeds"):
        difficulties.read(file, 3)
    difficulties.measure(file, fixture(), seeds=3)
    assert trained == [0, 1, 2]
    measured = difficulties.read(file, 3)
    assert measured.errors.tolist() == [0, 1, 2]
    assert measured.counts.tolist() == [198, 1, 1, 0]
    difficulties.measure(file, fixture(), seeds=3)
    assert trained == [0, 1, 2, 0, 1, 2]


def test_a_measurement_of_another_processor_starts_again(tmp_path, monkeypatch):
    file = tmp_path / "errors.jsonl"
    monkeypatch.setattr(difficulties, "_wrong_rows", lambda *_: np.arange(3))
    difficulties.measure(file, fixture(), seeds=2)
    monkeypatch.setattr(clock, "processor", lambda: "another")
    difficulties.measure(file, fixture(), seeds=3)
    assert difficulties.read(file, 3).about == "`cnn`, float32, another"
    assert file.read_text().count("another") == 3
