"""Pictures in folders of classes, brought to one shape and to IDX."""

import shutil
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from classifier import datasets
from classifier.data import idx
from classifier.errors import InputError
from classifier.sources import image_folders
from classifier.sources import local as local_source
from tests.classifier.sources.loopback import DIGESTS, contents, digits, fetch_into

CLASSES = ("cat", "dog")
in_one_folder = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def shelf(tmp_path):
    """Two pictures of each class to train with, one to test with: cats are dark, dogs are light."""
    for number, (name, grey) in enumerate(zip(CLASSES, (40, 200), strict=True)):
        for index in range(2):
            draw(tmp_path / "shelf" / "train" / name / f"{index}.png", grey + 10 * index)
        draw(tmp_path / "shelf" / "test" / name / f"{number}.jpg", grey)
    return tmp_path / "shelf"


def draw(path, colour, mode="L", size=(9, 7)):
    """A picture of one colour, 9 wide and 7 high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


def pets(**fields):
    return digits(**{"shape": (4, 6), "classes": CLASSES} | fields)


def refusal(shelf, folder, dataset):
    with pytest.raises(InputError) as caught:
        fetch_into(dataset, folder, shelf)
    assert list(folder.iterdir()) == []
    return str(caught.value)


def test_gives_resized_images_with_the_classes_taking_turns(shelf, folder):
    assert fetch_into(pets(), folder, shelf) == "local folder"
    images = idx.read(folder / "train-images.idx")
    assert images.shape == (4, 4, 6)
    assert [set(image.ravel().tolist()) for image in images] == [{40}, {200}, {50}, {210}]
    assert idx.read(folder / "train-labels.idx").tolist() == [0, 1, 0, 1]
    assert idx.read(folder / "test-images.idx").shape == (2, 4, 6)
    assert idx.read(folder / "test-labels.idx").tolist() == [0, 1]
    assert len(contents(folder)) == 4


def test_a_class_with_more_pictures_goes_on_alone(shelf, folder):
    draw(shelf / "train" / "cat" / "2.png", 60)
    fetch_into(pets(), folder, shelf)
    assert idx.read(folder / "train-labels.idx").tolist() == [0, 1, 0, 1, 0]


def test_a_shape_of_three_channels_keeps_colours(shelf, folder):
    draw(shelf / "train" / "cat" / "0.png", (10, 20, 30), mode="RGB")
    fetch_into(pets(shape=(4, 6, 3)), folder, shelf)
    images = idx.read(folder / "train-images.idx")
    assert images.shape == (4, 4, 6, 3)
    assert images[0, 0, 0].tolist() == [10, 20, 30]
    assert images[1, 0, 0].tolist() == [200, 200, 200]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_a_shape_without_channels_makes_grey_of_colours(mode, shelf, folder):
    picture = Image.new("RGB", (9, 7), (80, 80, 80))
    picture = picture.quantize() if mode == "P" else picture.convert(mode)
    picture.save(shelf / "train" / "cat" / "0.png")
    fetch_into(pets(), folder, shelf)
    assert set(idx.read(folder / "train-images.idx")[0].ravel().tolist()) == {80}


@pytest.mark.parametrize("name", ["a.PNG", "a.jpeg", "a.bmp", "a.gif", "a.tif", "a.webp"])
def test_a_picture_may_have_any_common_format(name, shelf, folder):
    draw(shelf / "test" / "dog" / name, 200)
    fetch_into(pets(), folder, shelf)
    assert idx.shape(folder / "test-images.idx")[0] == 3


def test_other_files_beside_pictures_do_not_count(shelf, folder):
    content = local_source.content_digest(shelf)
    (shelf / "train" / "cat" / "notes.txt").write_text("Cats")
    (shelf / "train" / "notes.txt").write_text("Pets")
    (shelf / "more").mkdir()
    assert local_source.content_digest(shelf) == content
    fetch_into(pets(), folder, shelf)
    assert idx.shape(folder / "train-images.idx")[0] == 4


def test_a_folder_of_no_class_is_named(shelf, folder):
    path = draw(shelf / "test" / "fox" / "0.png", 90)
    assert (
        refusal(shelf, folder, pets()) == f"{path.parent} is not a class: the classes are cat, dog."
    )


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("left", [True, False], ids=["empty", "missing"])
def test_each_class_needs_pictures(left, split, shelf, folder):
    shutil.rmtree(shelf / split / "dog")
    if left:
        (shelf / split / "dog").mkdir()
    sentence = refusal(shelf, folder, pets())
    assert sentence == f"{shelf / split / 'dog'} holds no pictures: each class needs some."


@pytest.mark.parametrize("split", ["train", "test"])
def test_without_one_of_the_two_splits_it_is_no_folder_of_pictures(split, shelf, folder):
    shutil.rmtree(shelf / split)
    (other,) = {"train", "test"} - {split}
    assert refusal(shelf, folder, pets()) == (
        f"{shelf} has a folder {other} and none {split}: both are needed."
    )


def test_folders_without_any_picture_say_how_to_supply_them(shelf, folder):
    for path in shelf.glob("*/*/*"):
        path.unlink()
    assert "has no file for train-images; it holds test, train. Give" in refusal(
        shelf, folder, pets()
    )


def png(width, height):
    """A small file whose header promises a picture of that size."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"abc")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


DAMAGED = {
    "empty": b"",
    "text": b"<!DOCTYPE html>",
    "a header alone": b"\x89PNG\r\n\x1a\n",
    "cut": png(9, 7),
    "a large promise": png(9_000, 9_000),
    "a larger promise": png(12_000, 12_000),
    "an absurd promise": png(2**31 - 1, 2**31 - 1),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_picture_is_named(content, shelf, folder):
    path = shelf / "train" / "dog" / "1.png"
    path.write_bytes(content)
    sentence = refusal(shelf, folder, pets())
    assert sentence.startswith(f"{path} is not a readable picture (")
    assert sentence.endswith("): remove it.")


changes = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=5)


@given(kind=st.sampled_from(["png", "jpg", "bmp", "gif", "tif", "webp"]), changes=changes)
@in_one_folder
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow goes on without what is not pixels
def test_any_bytes_are_a_picture_or_refused_and_nothing_else(kind, changes, tmp_path):
    path = draw(tmp_path / f"changed.{kind}", 90)
    content = bytearray(path.read_bytes())
    for place, byte in changes:
        content[place % len(content)] = byte
    path.write_bytes(content)
    with suppress(InputError):
        assert image_folders._decoded(path).size[0] > 0


def test_a_folder_called_like_a_picture_is_named(shelf, folder):
    (shelf / "train" / "dog" / "2.png").mkdir()
    assert "2.png is not a readable picture" in refusal(shelf, folder, pets())
    with pytest.raises(InputError, match=r"2\.png cannot be read: Is a directory"):
        local_source.content_digest(shelf)


def test_a_dataset_that_names_no_shape_says_where_to_name_it(shelf, folder):
    sentence = refusal(shelf, folder, datasets.load("folder"))
    assert sentence == (
        f"{shelf} holds pictures, but dataset 'folder' names no shape: give --image-size, such as "
        "64x64 or 64x64x3."
    )


def test_a_dataset_that_pins_its_files_takes_no_pictures(shelf, folder):
    sentence = refusal(shelf, folder, pets(digests=DIGESTS))
    assert "dataset 'digits' takes other files: declare one for them" in sentence


@pytest.mark.parametrize(
    ("prepared", "described"),
    [
        (np.zeros((6, 4), np.uint8), "uint8 (6, 4)"),
        (np.zeros((4, 6), np.float32), "float32 (4, 6)"),
        (np.zeros((4, 6, 1), np.uint8), "uint8 (4, 6, 1)"),
    ],
)
def test_what_prepare_makes_has_the_shape(prepared, described, shelf, folder):
    sentence = refusal(shelf, folder, pets(prepare=lambda *_: prepared))
    first = shelf / "train" / "cat" / "0.png"
    assert sentence == f"`prepare` of digits made {described} of {first}, not uint8 (4, 6)."


def test_a_dataset_may_prepare_pictures_in_its_own_way(shelf, folder):
    def prepare(picture, shape):
        return np.full(shape, picture.width, np.uint8)

    fetch_into(pets(prepare=prepare), folder, shelf)
    assert set(idx.read(folder / "train-images.idx").ravel().tolist()) == {9}


def test_a_mistake_in_prepare_is_not_told_as_a_damaged_picture(shelf, folder):
    def prepare(picture, shape):
        raise ValueError("not a number")

    with pytest.raises(ValueError, match="not a number"):
        fetch_into(pets(prepare=prepare), folder, shelf)
    assert list(folder.iterdir()) == []


def test_content_is_that_of_the_pictures_under_their_names(shelf, tmp_path):
    content = local_source.content_digest(shelf)
    assert local_source.content_digest(shutil.copytree(shelf, tmp_path / "copy")) == content
    draw(shelf / "train" / "cat" / "0.png", 41)
    assert local_source.content_digest(shelf) != content
    shutil.move(tmp_path / "copy" / "train" / "cat" / "1.png", tmp_path / "copy/train/dog/2.png")
    assert local_source.content_digest(tmp_path / "copy") != content


def test_sixteen_bits_a_pixel_are_scaled_and_not_clipped(shelf, folder):
    for path in shelf.glob("*/*/*"):
        Image.fromarray(np.full((7, 9), 0x4000, np.uint16)).save(path.with_suffix(".png"))
    for path in shelf.glob("test/*/*.jpg"):
        path.unlink()
    fetch_into(pets(), folder, shelf)
    assert set(idx.read(folder / "test-images.idx").ravel()) == {0x4000 // 257}


def test_a_photograph_is_turned_as_the_camera_was_held(tmp_path):
    pixels = np.zeros((8, 16), np.uint8)
    pixels[:, 8:] = 255
    picture, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be shown a quarter clockwise
    picture.save(tmp_path / "x.png", exif=exif)
    turned = np.asarray(image_folders._decoded(tmp_path / "x.png"))
    assert turned.shape == (16, 8)
    assert turned[:8].max() == 0
    assert turned[8:].min() == 255


@pytest.mark.parametrize("channels", [2, 4])
def test_a_shape_that_no_picture_has_needs_a_prepare(channels):
    with pytest.raises(InputError, match="give a `prepare`"):
        datasets.resize_to_shape(Image.new("RGB", (4, 4)), (4, 4, channels))
