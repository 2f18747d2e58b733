"""Parquet in the table's schema and in that of Hugging Face: rows, refusals, foreign files."""

from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classifier.data import inputs, tables
from classifier.data.inputs import parquet as form
from classifier.errors import InputError
from tests.classifier.data.inputs.material import (
    CLASSES,
    SHAPE,
    drawn,
    encoded,
    floats,
    parquet,
    png,
    read,
    reasons,
    subject,
)

in_one_folder = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def test_a_table_of_ours_gives_its_bytes_back(tmp_path):
    images = np.arange(256, dtype=np.uint8).repeat(2).reshape(-1, 2)
    images[:, 1] ^= 255
    labels = np.arange(256, dtype=np.uint8) % 3
    about = tables.Description(dataset="toys", shape=(1, 2), classes=CLASSES, source="-")
    tables.write(tmp_path / "x.parquet", images.reshape(-1, 1, 2), labels, about)
    chunk = read(tmp_path / "x.parquet", subject(shape=(1, 2)))
    assert np.array_equal(chunk.images, images.reshape(-1, 1, 2))
    assert np.array_equal(chunk.labels, labels)
    assert chunk.groups == [None] * 256
    assert chunk.names[17] == "x.parquet row 17"


def columns_of(images):
    flat = images.reshape(len(images), -1)
    return {
        "fixed_size_list<float>": floats(images),
        "list<double>": pa.array(list(flat / 255)),
        "list<uint8>": pa.array(flat.tolist(), pa.list_(pa.uint8())),
        "large_list<int64>": pa.array(flat.tolist(), pa.large_list(pa.int64())),
        "fixed_size_list<uint8>": pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), 30),
        "list<list<float>>": pa.array((images / np.float32(255)).tolist()),
        "list<fixed_size_list<uint8>>": pa.array(
            images.tolist(), pa.list_(pa.list_(pa.uint8(), SHAPE[1]))
        ),
    }


@pytest.mark.parametrize("kind", columns_of(drawn(1)))
def test_images_may_lie_in_any_kind_of_list(kind, tmp_path):
    images = drawn(1200)
    path = parquet(tmp_path / "x", image=columns_of(images)[kind], label=[0, 1, 2] * 400)
    chunk = read(path)
    assert np.array_equal(chunk.images, images)
    assert chunk.labels.tolist() == [0, 1, 2] * 400
    assert chunk.refused == []


@pytest.mark.parametrize("kind", columns_of(drawn(1)))
def test_a_null_or_incomplete_image_moves_no_other(kind, tmp_path):
    images = drawn(5)
    column = columns_of(images)[kind]
    rows = column.to_pylist()
    rows[1] = None
    if "fixed" not in kind:
        rows[3] = rows[3][:-1]
    elif kind.startswith("list"):
        rows[3] = [*rows[3][:-1], None]
    path = parquet(tmp_path / "x", image=pa.array(rows, column.type), label=[0, 1, 2, 0, 1])
    chunk = read(path)
    good = [0, 2, 4] if rows[3] != column.to_pylist()[3] else [0, 2, 3, 4]
    assert np.array_equal(chunk.images, images[good])
    assert chunk.names == [f"x row {row}" for row in good]
    assert reasons(chunk)["x row 1"] == "no image: it is null"
    assert 3 in good or "lengths of (6, 5)" in reasons(chunk)["x row 3"]


def test_values_out_of_range_are_refused_with_what_was_found(tmp_path):
    values = drawn(7).reshape(7, -1) / 255
    values[1, 3] = np.nan
    values[2, 3] = -0.25
    values[3, 3] = 1.5
    values[4, 3] = np.inf
    values[5] *= 1000
    path = parquet(tmp_path / "x", image=pa.array(list(values)), label=[0] * 7)
    chunk = read(path)
    assert chunk.names == ["x row 0", "x row 6"]
    assert reasons(chunk) == {
        "x row 1": "a value is NaN or missing",
        "x row 2": f"values from -0.25 to {values[2].max():g}, not within 0 to 1",
        "x row 3": "values from 0 to 1.5, not within 0 to 1",
        "x row 4": "values from 0 to inf, not within 0 to 1",
        "x row 5": f"values from 0 to {values[5].max():g}, not within 0 to 1",
    }


def test_floats_that_reach_255_are_all_refused_dark_rows_too(tmp_path):
    images = drawn(3).astype(np.float32)
    images[1] = images[1] > 100
    path = parquet(tmp_path / "x", image=pa.array(list(images.reshape(3, -1))), label=[0] * 3)
    chunk = read(path)
    assert len(chunk.labels) == 0
    assert all("divide by 255" in reason for reason in reasons(chunk).values())
    assert len(chunk.refused) == 3


def test_integers_beyond_a_byte_are_refused(tmp_path):
    values = drawn(3).reshape(3, -1).astype(np.int64)
    values[0, 3], values[2, 3] = 256, -1
    chunk = read(parquet(tmp_path / "x", image=pa.array(list(values)), label=[0] * 3))
    assert chunk.names == ["x row 1"]
    assert "not within 0 to 255" in reasons(chunk)["x row 0"]


def test_labels_are_numbers_or_names(tmp_path):
    image = floats(drawn(4))
    for number, label in enumerate(
        (
            pa.array([2, 0, 1, 2], pa.int64()),
            pa.array([2, 0, 1, 2], pa.uint8()),
            ["star", "box", "ring", "star"],
            pa.array(["star", "box", "ring", "star"]).dictionary_encode(),
        )
    ):
        chunk = read(parquet(tmp_path / str(number), image=image, label=label))
        assert chunk.labels.tolist() == [2, 0, 1, 2]


def test_class_names_of_the_file_map_its_labels_by_name(tmp_path):
    image, label = floats(drawn(4)), [0, 1, 2, 3]
    ours = {"classes": ["star", "Box", "ring", "tree"]}
    features = {"label": {"names": ours["classes"], "_type": "ClassLabel"}}
    theirs = {"huggingface": {"info": {"features": features}}}
    for metadata in (ours, theirs):
        chunk = read(parquet(tmp_path / "x", metadata, image=image, label=label))
        assert chunk.labels.tolist() == [2, 1]
        assert reasons(chunk) == {
            "x row 1": 'no class "Box" (did you mean "box"?)',
            "x row 3": 'no class "tree"',
        }
        assert all(refused.image is not None for refused in chunk.refused)


def test_labels_without_a_class_are_refused(tmp_path):
    label = pa.array([12, None, -1, 2**62, 1], pa.int64())
    chunk = read(parquet(tmp_path / "x", image=floats(drawn(5)), label=label))
    assert chunk.labels.tolist() == [1]
    assert reasons(chunk) == {
        "x row 0": "label 12 has no class: there are 3",
        "x row 1": "no label: it is null",
        "x row 2": "label -1 has no class: there are 3",
        "x row 3": f"label {2**62} has no class: there are 3",
    }


@pytest.mark.parametrize("group", [["ann", None, "bob"], pa.array([7, None, 8], pa.int32())])
def test_groups_are_text_whatever_their_column(group, tmp_path):
    chunk = read(parquet(tmp_path / "x", image=floats(drawn(3)), label=[0] * 3, group=group))
    assert chunk.groups == [None if g is None else str(g) for g in pa.array(group).to_pylist()]


def test_encoded_pictures_go_through_prepare(tmp_path):
    images = drawn(1100)
    path = parquet(
        tmp_path / "x",
        image=encoded([png(image) for image in images]),
        label=[0] * 1100,
        group=[str(row) for row in range(1100)],
        row_group_size=700,
    )
    jobs = inputs.plan([path], subject())
    assert [job.rows for job in jobs] == [500, 200, 400]
    chunk = read(path)
    assert np.array_equal(chunk.images, images)
    assert chunk.names == [f"x row {row}" for row in range(1100)]
    assert chunk.groups == [str(row) for row in range(1100)]


def test_an_encoded_picture_that_is_missing_or_damaged_is_refused(tmp_path):
    image = png(drawn(1)[0])
    column = encoded([image, None, b"", b"GIF89a", image[:60], image])
    column = pa.concat_arrays([column, pa.array([None], column.type)])
    chunk = read(parquet(tmp_path / "x", image=column, label=[0] * 7))
    assert chunk.names == ["x row 0", "x row 5"]
    missing = "no picture: its bytes are not in the file"
    assert reasons(chunk)["x row 1"] == reasons(chunk)["x row 6"] == missing
    assert reasons(chunk)["x row 2"].startswith("not a readable picture (")


def test_rows_are_the_same_whatever_the_row_groups(tmp_path, monkeypatch):
    images = drawn(1234)
    monkeypatch.setattr(form, "ROWS", 100)
    labels = [row % 3 for row in range(1234)]
    for size in (1234, 333, 7):
        path = parquet(tmp_path / "x", image=floats(images), label=labels, row_group_size=size)
        chunk = read(path)
        assert np.array_equal(chunk.images, images)
        assert chunk.labels.tolist() == labels
        assert chunk.names == [f"x row {row}" for row in range(1234)]


def test_a_table_without_rows_gives_none(tmp_path):
    path = parquet(tmp_path / "x", image=floats(drawn(1))[:0], label=pa.array([], pa.uint8()))
    assert inputs.plan([path], subject()) == []


def turned():
    return pa.array(drawn(1, (5, 6)).tolist(), pa.list_(pa.list_(pa.uint8(), 6)))


BAD = {
    "no label": {"image": floats(drawn(1))},
    "no image": {"label": [0], "img": floats(drawn(1))},
    "fewer pixels": {"image": floats(drawn(1, (2, 2))), "label": [0]},
    "turned": {"image": turned(), "label": [0]},
    "too deep": {"image": pa.array([[[[[0]]]]]), "label": [0]},
    "texts": {"image": [["a"]], "label": [0]},
    "floating labels": {"image": floats(drawn(1)), "label": [0.5]},
    "null labels": {"image": floats(drawn(1)), "label": pa.nulls(1)},
    "listed groups": {"image": floats(drawn(1)), "label": [0], "group": [[1]]},
}


@pytest.mark.parametrize("columns", BAD.values(), ids=BAD)
def test_another_schema_fails_with_the_columns_found_and_needed(columns, tmp_path):
    path = tmp_path / "x.parquet"
    schema = pq.read_schema(parquet(path, **columns))
    with pytest.raises(InputError, match=r"x\.parquet has the columns .*, and needs ") as caught:
        inputs.plan([path], subject())
    assert all(
        f"{name} ({str(kind)[:20]}" in str(caught.value)
        for name, kind in zip(schema.names, schema.types, strict=True)
    )


@pytest.mark.parametrize("classes", ["no JSON", '"text"', "[1, 2]", "[" * 100_000, "{}"])
def test_class_names_that_cannot_be_read_fail(classes, tmp_path):
    path = parquet(tmp_path / "x", {"classes": classes}, image=floats(drawn(1)), label=[0])
    with pytest.raises(InputError, match="names its classes in metadata that cannot be read"):
        inputs.plan([path], subject())


@given(
    place=st.integers(0, 1 << 16),
    value=st.integers(0, 255),
    cut=st.one_of(st.just(0), st.integers(1, 3000)),
)
@in_one_folder
def test_a_damaged_file_fails_or_reads_equal_pixels(tmp_path, place, value, cut):
    images = drawn(50)
    path = parquet(tmp_path / "x", image=floats(images), label=[1] * 50)
    table = pq.read_table(path)
    pq.write_table(table, path, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[4 + place % (len(data) - 4)] = value
    path.write_bytes(data[: len(data) - cut])
    with suppress(InputError):  # and no other error
        chunk = read(path)
        assert {image.tobytes() for image in chunk.images} <= {image.tobytes() for image in images}


def test_a_file_that_changes_after_it_was_planned_fails(tmp_path):
    path = parquet(tmp_path / "x", image=floats(drawn(3)), label=[0] * 3)
    (job,) = inputs.plan([path], subject())
    parquet(path, image=floats(drawn(4)), label=[0] * 4)
    with pytest.raises(InputError, match=r"changed while it was read"):
        inputs.read(job, subject())
