"""Near-copies of test images are found however they were moved or coded; honest rows are not."""

import io
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from classifier.data import idx
from classifier.data.near import NearIndex
from classifier.errors import InputError

MNIST = Path(__file__).parents[2] / "fixtures" / "mnist"
QUALITIES = (75, 85, 95)
SHIFTS = list(product(range(-2, 3), repeat=2))
BORDERS = pytest.mark.parametrize("border", ["constant", "edge"])
SUBJECTS = pytest.mark.parametrize("subject", ["mnist", "digits", "colour", "four-channel"])


def photographs(count, channels, seed):
    """Soft random pictures [count, 32, 32, channels], their power falling as in photographs."""
    generator = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.rfftfreq(32))
    frequency[0, 0] = np.inf
    noise = np.fft.rfft2(generator.normal(size=(count, 32, 32, channels)), axes=(1, 2))
    soft = np.fft.irfft2(noise / frequency[:, :, None] ** 1.5, axes=(1, 2))
    soft = 0.7 * soft.mean(3, keepdims=True) + 0.3 * soft  # colours go together
    soft *= 50 / soft.std((1, 2, 3), keepdims=True)
    return np.clip(soft + 128, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def subjects():
    """By name: test images, and others that are no copies of them."""
    digits = (load_digits().images * 255 / 16).astype(np.uint8)
    return {
        "mnist": (
            idx.read(MNIST / "t10k-images-idx3-ubyte.gz"),
            idx.read(MNIST / "train-images-idx3-ubyte.gz"),
        ),
        "digits": (digits[:300], digits[300:]),
        "colour": (photographs(200, 3, seed=1), photographs(200, 3, seed=2)),
        "four-channel": (photographs(50, 4, seed=1), photographs(50, 4, seed=2)),
    }


@pytest.fixture(scope="module")
def indexes(subjects):
    return {name: NearIndex(test) for name, (test, _) in subjects.items()}


def shifted(images, dy, dx, border):
    """Moved down by dy and to the right by dx; background or the edge enters."""
    height, width = images.shape[1:3]
    fill = [(0, 0), (2, 2), (2, 2), (0, 0)][: images.ndim]
    padded = np.pad(images, fill, mode=border)
    return padded[:, 2 - dy : 2 - dy + height, 2 - dx : 2 - dx + width]


def jpeg(images, quality):
    """Each image in a file of its own; four channels as four grey ones."""
    if images.shape[3:] == (4,):
        return np.stack([jpeg(images[..., c], quality) for c in range(4)], axis=3)
    coded = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image)).save(file, "JPEG", quality=quality)
        coded.append(np.asarray(Image.open(file)))
    return np.stack(coded)


def recall(index, planted):
    """Share of planted rows that are found as the test image of the same number."""
    return (index.find(planted) == np.arange(len(planted))).mean()


@SUBJECTS
def test_finds_every_exact_copy(subject, subjects, indexes):
    test, _ = subjects[subject]
    np.testing.assert_array_equal(indexes[subject].find(test[::-1]), np.arange(len(test))[::-1])


@SUBJECTS
@BORDERS
def test_finds_every_shift_by_up_to_two_pixels(subject, border, subjects, indexes):
    test, _ = subjects[subject]
    for dy, dx in SHIFTS:
        assert recall(indexes[subject], shifted(test[:50], dy, dx, border)) == 1, (dy, dx)


@SUBJECTS
@pytest.mark.parametrize("quality", QUALITIES)
def test_finds_copies_coded_as_jpeg(subject, quality, subjects, indexes):
    test, _ = subjects[subject]
    assert recall(indexes[subject], jpeg(test, quality)) >= 0.99


@SUBJECTS
@BORDERS
@pytest.mark.parametrize("quality", QUALITIES)
def test_finds_shifted_copies_coded_as_jpeg(subject, border, quality, subjects, indexes):
    test, _ = subjects[subject]
    dys, dxs = np.random.default_rng(0).integers(-2, 3, (2, len(test)))
    moved = [
        shifted(test[[i]], dy, dx, border)[0]
        for i, (dy, dx) in enumerate(zip(dys, dxs, strict=True))
    ]
    assert recall(indexes[subject], jpeg(np.stack(moved), quality)) >= 0.98


@SUBJECTS
@pytest.mark.parametrize("step", [2, 8, 16])
def test_finds_copies_with_rounded_greys(subject, step, subjects, indexes):
    test, _ = subjects[subject]
    rounded = np.minimum((test.astype(int) + step // 2) // step * step, 255).astype(np.uint8)
    assert recall(indexes[subject], rounded) == 1


@SUBJECTS
def test_other_images_are_no_copies(subject, subjects, indexes):
    _, others = subjects[subject]
    np.testing.assert_array_equal(indexes[subject].find(others), -1)


def test_a_shift_by_four_pixels_is_no_copy(subjects, indexes):
    test, _ = subjects["colour"]
    moved = np.roll(test, 4, axis=2)
    np.testing.assert_array_equal(indexes["colour"].find(moved), -1)


def test_a_stroke_half_as_long_is_no_copy():
    long, short = np.zeros((2, 1, 28, 28), np.uint8)
    long[:, 4:24, 13:16] = 255
    short[:, 4:14, 13:16] = 255
    assert NearIndex(long).find(short) == [-1]


@pytest.mark.parametrize("shape", [(28, 28), (8, 8), (32, 32, 3)])
def test_blank_images_are_near_only_to_equal_ones(shape):
    blank = np.stack([np.full(shape, grey, np.uint8) for grey in (0, 100, 255)])
    almost = np.stack([np.full(shape, grey, np.uint8) for grey in (1, 101, 254)])
    index = NearIndex(blank)
    np.testing.assert_array_equal(index.find(almost), -1)
    np.testing.assert_array_equal(index.find(blank), [0, 1, 2])


def test_a_blank_row_is_near_no_test_image(indexes):
    blank = np.stack([np.full((28, 28), grey, np.uint8) for grey in range(256)])
    np.testing.assert_array_equal(indexes["mnist"].find(blank), -1)


def test_a_speck_of_dirt_is_near_a_speck_in_the_same_place_only():
    """JPEG wipes out much of a faint speck; that must not make all specky paper alike."""
    places = [(y, x) for y in (5, 11, 17, 23) for x in (5, 11, 17, 23)]
    specks = np.zeros((len(places), 28, 28), np.uint8)
    for number, (y, x) in enumerate(places):
        specks[number, y, x] = 20
    index = NearIndex(specks[::2])
    np.testing.assert_array_equal(index.find(specks[1::2]), -1)
    np.testing.assert_array_equal(index.find(specks[::2]), np.arange(8))
    np.testing.assert_array_equal(index.find(shifted(specks[::2], 2, 1, "edge")), np.arange(8))


def test_of_several_test_images_the_first_equal_one_is_named():
    image = photographs(1, 3, seed=0)
    others = photographs(3, 3, seed=1)
    index = NearIndex(np.concatenate([others, image, image]))
    assert index.find(image) == [3]


def test_of_several_near_test_images_the_nearest_is_named(subjects):
    image = subjects["mnist"][0][:1]
    index = NearIndex(np.concatenate([jpeg(image, 75), jpeg(image, 95)]))
    assert index.find(image) == [1]


def test_all_copied_images_are_named(subjects):
    test, others = subjects["mnist"]
    near = shifted(test[:3], 1, 0, "constant")
    index = NearIndex(np.concatenate([test, near]))
    copied = index.copied(np.concatenate([test[:3], others[:50]]))
    assert copied == {0, 1, 2, len(test), len(test) + 1, len(test) + 2}


def test_more_copies_than_are_asked_for_at_first_are_all_named():
    image = photographs(1, 1, seed=1)[0, :, :, 0]
    noise = np.random.default_rng(0).integers(0, 2, (200, *image.shape), np.uint8)
    many = np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8)
    assert NearIndex(many).copied(image[None]) == set(range(200))


@pytest.mark.parametrize("quality", QUALITIES)
def test_an_original_of_coded_test_images_is_found_too(subjects, quality):
    """As a published train row of which a coded copy came into the recent test set."""
    images = subjects["mnist"][1]
    coded = NearIndex(jpeg(images, quality))
    found = coded.find(images) == np.arange(len(images))
    assert found.mean() >= 0.995


def test_the_answer_does_not_depend_on_the_rows_beside(subjects, indexes):
    test, others = subjects["mnist"]
    rows = np.concatenate([others[:100], jpeg(test[:100], 85)])
    order = np.random.default_rng(0).permutation(len(rows))
    together = indexes["mnist"].find(rows[order])
    alone = np.concatenate([indexes["mnist"].find(rows[[i]]) for i in order])
    np.testing.assert_array_equal(together, alone)


def test_a_channel_axis_of_one_changes_nothing(subjects, indexes):
    test, _ = subjects["mnist"]
    rows = shifted(test[:50], 1, -2, "constant")
    found = NearIndex(test[..., None]).find(rows[..., None])
    np.testing.assert_array_equal(found, indexes["mnist"].find(rows))


def test_images_that_are_not_square_are_found_when_shifted():
    test = photographs(30, 3, seed=3)[:, :20]
    assert recall(NearIndex(test), shifted(test, 2, -1, "edge")) == 1


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 6, 7])
def test_tiny_images_are_found_when_equal(side):
    test = np.random.default_rng(side).integers(0, 256, (20, side, side), np.uint8)
    test[0] = 7
    _, first = np.unique(test, axis=0, return_index=True)
    np.testing.assert_array_equal(NearIndex(test).find(test[np.sort(first)]), np.sort(first))


def test_no_test_images_and_no_rows_are_fine():
    rows = photographs(2, 3, seed=0)
    np.testing.assert_array_equal(NearIndex(rows[:0]).find(rows), [-1, -1], strict=True)
    np.testing.assert_array_equal(NearIndex(rows).find(rows[:0]), np.array([], int), strict=True)


@pytest.mark.parametrize(
    "rows",
    [np.zeros((1, 28, 28), np.float32), np.zeros((1, 27, 28), np.uint8), np.zeros(28, np.uint8)],
)
def test_rejects_rows_of_another_type_or_shape(rows, indexes):
    with pytest.raises(InputError, match=r"must be uint8 \[N, 28, 28\], not .*convert"):
        indexes["mnist"].find(rows)


@pytest.mark.parametrize(
    "images", [np.zeros((1, 28, 28)), np.zeros(9, np.uint8), np.zeros((1,) * 5, np.uint8)]
)
def test_rejects_test_images_of_another_type_or_number_of_dimensions(images):
    with pytest.raises(InputError, match="must be uint8"):
        NearIndex(images)
