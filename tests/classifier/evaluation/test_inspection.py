"""Inspection of batches: sound, drifted or broken, each with its reason, and nothing invented."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from classifier import models
from classifier.data import tables
from classifier.data.parts import Part, Table
from classifier.evaluation import inspection

SHAPE = (4, 4)
CLASSES = ("a", "b", "c", "d")
KEYS = {
    "outcome", "why", "note", "rows", "counts", "usual_shares", "contradicted", "auc", "p_value",
    "label_p_value", "alpha", "class_aucs",
}  # fmt: skip


def described(classes=CLASSES):
    return tables.Description(dataset="toys", shape=SHAPE, classes=classes, source="5e" * 32)


def drawn(labels, seed, scale=1.0, shift=0.0):
    """Faint noise, and a bright pixel at the place of the label: uint8 [N, 4, 4]."""
    random = np.random.default_rng(seed)
    images = random.normal(60 + shift, 15, (len(labels), *SHAPE)).clip(0, 130)
    images.reshape(len(labels), 16)[np.arange(len(labels)), labels] = 250
    return (images * scale).round().astype(np.uint8)


def mixed(count, seed=0, classes=4):
    return np.random.default_rng(seed).integers(0, classes, count, dtype=np.uint8)


def table(folder, labels, seed=1, classes=CLASSES, number=None, **options):
    """A batch of these labels, in two parts."""
    half = len(labels) // 3
    images = drawn(labels, seed, **options)
    parts = []
    for name, rows in (("train", slice(half, None)), ("recent", slice(0, half))):
        path = folder / f"{name}.parquet"
        tables.write(path, images[rows], labels[rows], described(classes))
        parts.append(Part(path=path))
    return Table(parts, classes=number or len(classes))


@pytest.fixture(autouse=True)
def _small_row_groups(monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP", 100)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The published train rows, as their table."""
    return table(tmp_path_factory.mktemp("published"), mixed(800, 7), seed=7)


@pytest.fixture(scope="module")
def reference():
    """A network that answers with the brightest of the first pixels, and 400 rows."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.eye(16)[:4] * 10)
    model = models.Model(network=network, dataset="toys", shape=SHAPE, classes=CLASSES)
    labels = mixed(400, 3)
    images = drawn(labels, 4).astype(np.float32) / 255
    return inspection.Reference(model=model, images=images, labels=labels, device="cpu")


def judged(batch, published, reference, classes=CLASSES, most_rows=2_000):
    return inspection.judge(
        batch,
        inspection.look_at(batch),
        inspection.look_at(published),
        reference,
        classes,
        alarms_a_year=1.0,
        checks_a_year=52.0,
        most_rows=most_rows,
    )


def test_a_look_has_counts_mean_images_and_the_brightest_pixel(tmp_path):
    labels = mixed(250, classes=3)  # and none of class d
    images = drawn(labels, 1)
    seen = inspection.look_at(table(tmp_path, labels))
    assert seen.counts.tolist() == [int((labels == n).sum()) for n in range(4)]
    assert seen.brightest == 250
    for label in range(3):
        mean = images[labels == label].astype(np.float64).mean(axis=0) / 255
        np.testing.assert_allclose(seen.means[label], mean, atol=1e-6)
    assert seen.means.dtype == np.float32
    assert not seen.means[3].any()


def test_a_look_at_no_rows_has_zeros(tmp_path):
    seen = inspection.look_at(table(tmp_path, mixed(0)))
    assert seen.counts.tolist() == [0, 0, 0, 0]
    assert (seen.brightest, seen.means.any()) == (0, False)


def test_a_batch_like_the_reference_is_sound(tmp_path, published, reference):
    labels = mixed(400)
    verdict, rows = judged(table(tmp_path, labels), published, reference)
    assert (verdict["outcome"], verdict["why"]) == ("sound", [])
    assert (verdict["rows"], verdict["contradicted"]) == (400, 0)
    assert verdict["counts"] == {name: int((labels == n).sum()) for n, name in enumerate(CLASSES)}
    assert 0.4 < verdict["auc"] < 0.6
    assert sorted(rows) == list(range(400))


def test_a_verdict_is_json_with_the_same_keys_with_and_without_a_model(
    tmp_path, published, reference
):
    batch = table(tmp_path, mixed(300))
    for given in (reference, None):
        verdict, _ = judged(batch, published, given)
        assert set(verdict) == KEYS
        assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict


def test_usual_shares_are_those_of_the_published_rows(tmp_path, published):
    labels = mixed(800, 7)
    verdict, _ = judged(table(tmp_path, mixed(30)), published, None)
    expected = {name: (labels == n).mean() for n, name in enumerate(CLASSES)}
    assert verdict["usual_shares"] == pytest.approx(expected)


def test_without_a_model_labels_and_drift_are_not_looked_at(tmp_path, published):
    verdict, rows = judged(table(tmp_path, mixed(400), shift=60), published, None)
    assert (verdict["outcome"], verdict["why"], rows) == ("sound", [], [])
    for key in ("contradicted", "auc", "p_value", "label_p_value"):
        assert verdict[key] is None
    assert verdict["class_aucs"] == dict.fromkeys(CLASSES)


def test_without_a_model_a_wrong_scale_and_a_class_gone_are_still_broken(tmp_path, published):
    verdict, _ = judged(table(tmp_path, mixed(400, classes=3), scale=1 / 255), published, None)
    assert verdict["outcome"] == "broken"
    gone, scale = verdict["why"]
    assert gone.startswith("Class d has no rows")
    assert scale == "The brightest pixel is 1 of 255: the scale is wrong."


@pytest.mark.parametrize(("wrong", "outcome"), [(150, "sound"), (151, "broken")])
def test_labels_that_the_model_contradicts_are_broken_from_half_on(
    tmp_path, published, reference, wrong, outcome
):
    labels = mixed(300)
    batch = table(tmp_path, labels)
    moved = {row: int(labels[row] + 1) % 4 for row in range(wrong)}
    half = 100
    parts = [
        Part(
            path=tmp_path / f"{name}.parquet",
            labels={row - first: n for row, n in moved.items() if first <= row < stop},
        )
        for name, first, stop in (("recent", 0, half), ("train", half, 300))
    ]
    batch = Table(parts)
    verdict, _ = judged(batch, published, reference)
    assert verdict["contradicted"] == wrong
    assert verdict["outcome"] == outcome
    sentence = f"The model contradicts {wrong} of 300 labels."
    assert verdict["why"] == ([sentence] if outcome == "broken" else [])


def test_a_model_that_is_mostly_wrong_contradicts_no_label(tmp_path, published, reference):
    batch = table(tmp_path, mixed(300))
    poor = replace(reference, labels=(reference.labels + 1) % 4)
    verdict, _ = judged(batch, published, poor)
    assert (verdict["outcome"], verdict["contradicted"]) == ("sound", None)


def test_a_sample_is_drawn_from_all_rows_and_small_tables_are_taken_whole():
    drawn_rows = inspection.sample(1_000, 100)
    assert len(set(drawn_rows.tolist())) == 100
    assert drawn_rows.max() > 900
    assert inspection.sample(50, 100).tolist() == list(range(50))


def test_a_few_labels_are_never_broken(tmp_path, published, reference):
    """Below 100 labels a contradiction says too little, and below 200 rows there is no test."""
    labels = mixed(99)
    tables.write(tmp_path / "a.parquet", drawn(labels, 1), (labels + 1) % 4, described())
    verdict, _ = judged(Table([Part(path=tmp_path / "a.parquet")]), published, reference)
    assert verdict["contradicted"] == 99
    assert (verdict["outcome"], verdict["why"]) == ("sound", [])


def test_a_class_that_is_gone_is_broken_and_named(tmp_path, published, reference):
    verdict, _ = judged(table(tmp_path, mixed(300, classes=3)), published, reference)
    assert verdict["outcome"] == "broken"
    expected = (mixed(800, 7) == 3).mean() * 300
    assert verdict["why"][0] == f"Class d has no rows, but {expected:.0f} were expected."
    assert verdict["counts"]["d"] == 0


def test_images_of_another_scale_are_broken(tmp_path, published, reference):
    verdict, _ = judged(table(tmp_path, mixed(300), scale=1 / 255), published, reference)
    assert verdict["outcome"] == "broken"
    assert "The brightest pixel is 1 of 255: the scale is wrong." in verdict["why"]


@pytest.mark.parametrize("compared", [400, 300])
def test_images_that_differ_are_drift_and_the_strangest_rows_come_first(
    tmp_path, published, reference, compared
):
    labels = mixed(400)
    images = drawn(labels, 1)
    strange = np.random.default_rng(5).permutation(400)[:250]
    columns = images[strange].reshape(250, -1)
    columns[:, 4:] = 255 - columns[:, 4:] // 4
    images[strange] = columns.reshape(250, *SHAPE)
    tables.write(tmp_path / "a.parquet", images, labels, described())
    batch = Table([Part(path=tmp_path / "a.parquet")])
    verdict, rows = judged(batch, published, reference, most_rows=compared)
    assert (verdict["outcome"], verdict["contradicted"]) == ("drift", 0)
    (why,) = verdict["why"]
    assert why == f"The images differ from the reference (AUC {verdict['auc']:.2f})."
    assert verdict["p_value"] <= verdict["alpha"] == pytest.approx(1 / 52 / 2)
    assert np.isin(rows[:150], strange).mean() > 0.95
    assert len(set(rows)) == compared


def test_other_class_shares_are_drift(tmp_path, published, reference):
    labels = np.concatenate([np.zeros(250, np.uint8), mixed(150)])
    verdict, _ = judged(table(tmp_path, labels), published, reference)
    assert verdict["outcome"] == "drift"
    assert any("class shares differ" in why for why in verdict["why"])
    assert verdict["label_p_value"] <= verdict["alpha"]


@pytest.mark.parametrize("count", [30, 199])
def test_too_few_rows_for_a_drift_test_are_no_reason_of_trouble(
    tmp_path, published, reference, count
):
    verdict, rows = judged(table(tmp_path, mixed(count), shift=60), published, reference)
    assert (verdict["outcome"], verdict["why"], rows) == ("sound", [], [])
    assert (verdict["auc"], verdict["p_value"], verdict["label_p_value"]) == (None, None, None)
    assert verdict["contradicted"] == 0


def test_too_few_rows_are_no_reason_beside_what_is_broken(tmp_path, published, reference):
    verdict, _ = judged(table(tmp_path, mixed(150), scale=1 / 255), published, reference)
    assert verdict["outcome"] == "broken"
    assert not any("drift test" in why for why in verdict["why"])


def test_at_most_so_many_rows_are_compared_the_same_each_time(tmp_path, published, reference):
    batch = table(tmp_path, mixed(400))
    first, rows = judged(batch, published, reference, most_rows=250)
    again, same = judged(batch, published, reference, most_rows=250)
    assert (first, rows) == (again, same)
    assert len(set(rows)) == 250
    assert set(rows) < set(range(400))
    assert first["rows"] == 400


def test_rows_of_a_class_that_the_model_does_not_know_do_not_contradict_it(
    tmp_path, published, reference
):
    classes = (*CLASSES, "e")
    labels = np.concatenate([mixed(100), np.full(200, 4, np.uint8)])
    verdict, _ = judged(
        table(tmp_path, labels, classes=classes), published, reference, classes=classes
    )
    assert verdict["contradicted"] == 0
    assert verdict["counts"]["e"] == 200
    assert verdict["usual_shares"]["e"] == 0
    assert verdict["class_aucs"]["e"] is None
    assert (verdict["outcome"], len(verdict["class_aucs"])) == ("drift", 5)  # of the class shares


def test_a_class_that_the_base_never_had_may_be_missing(tmp_path, published, reference):
    verdict, _ = judged(
        table(tmp_path, mixed(300), number=5), published, reference, classes=(*CLASSES, "e")
    )
    assert (verdict["outcome"], verdict["why"], verdict["counts"]["e"]) == ("sound", [], 0)


@pytest.mark.parametrize("with_model", [True, False])
def test_a_batch_without_rows_is_sound(tmp_path, published, reference, with_model):
    """Nothing is left of it when all its rows are erased."""
    verdict, rows = judged(table(tmp_path, mixed(0)), published, reference if with_model else None)
    assert (verdict["outcome"], verdict["why"], verdict["rows"], rows) == ("sound", [], 0, [])
