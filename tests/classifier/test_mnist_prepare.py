"""MNIST's `prepare`: pictures of digits, however they look, come to the form of MNIST."""

import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.Image import Resampling
from scipy import ndimage
from sklearn.neighbors import KNeighborsClassifier

from classifier.data import idx
from classifier.datasets import load
from classifier.datasets.mnist import prepare
from classifier.errors import InputError
from tests.conftest import FIXTURE, PROJECT

SHAPE = (28, 28)
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
MODES += ("LAB", "I", "F", "I;16", "I;16B", "I;16L")


@pytest.fixture(scope="module")
def digits():
    """uint8 [200, 28, 28]: the fixture's test images."""
    return idx.read(FIXTURE / "t10k-images-idx3-ubyte.gz")


@pytest.fixture(scope="module")
def reader():
    """Nearest neighbours, fitted to the fixture's train images."""
    images = idx.read(FIXTURE / "train-images-idx3-ubyte.gz")
    labels = idx.read(FIXTURE / "train-labels-idx1-ubyte.gz")
    return KNeighborsClassifier(3, metric="cosine").fit(images.reshape(len(images), -1), labels)


def prepared(pictures):
    return np.stack([prepare(picture, SHAPE) for picture in pictures])


def enlarged(image, *size):
    return Image.fromarray(image).resize(size, Resampling.BICUBIC)


def pasted(mask, *, paper, ink, size=(300, 200), at=(150, 40)):
    """A picture with a digit of that mask somewhere on it."""
    picture = Image.new("RGB", size, paper)
    picture.paste(Image.new("RGB", mask.size, ink), at, mask)
    return picture


def compressed(picture, quality=60):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file)


def transparent(image, colour):
    """A digit of that colour; alpha is its ink."""
    picture = Image.new("RGBA", (90, 90), (*colour, 0))
    picture.putalpha(enlarged(image, 90, 90))
    return picture


def dashed_palette(image):
    """A palette picture whose colour 0 is transparent, and would be the ink's were it opaque."""
    picture = Image.fromarray((image > 127).astype(np.uint8), mode="P")
    picture.putpalette([0, 0, 0, 0, 0, 0])
    picture.info["transparency"] = 0
    return picture.resize((112, 112))


def sixteen_bits(image):
    return Image.fromarray(65535 - np.asarray(enlarged(image, 70, 70), dtype=np.uint16) * 257)


def noisy(image):
    noise = np.random.default_rng(int(image.sum())).normal(0, 5, (120, 120))
    paper = 230 - 0.7 * np.asarray(enlarged(image, 120, 120), dtype=np.float64)
    return Image.fromarray((paper + noise).clip(0, 255).astype(np.uint8))


RENDERINGS = {
    "small": lambda image: enlarged(255 - image, 61, 61),
    "white on black": lambda image: enlarged(image, 84, 84),
    "blue ink on yellow paper, off centre": lambda image: pasted(
        enlarged(image, 90, 90), paper=(240, 230, 120), ink=(20, 30, 160)
    ),
    "JPEG of it": lambda image: compressed(
        pasted(enlarged(image, 90, 90), paper=(240, 230, 120), ink=(20, 30, 160))
    ),
    "JPEG of 28 x 28": lambda image: compressed(Image.fromarray(image)),
    "faint": lambda image: enlarged((200 - 0.2 * image).astype(np.uint8), 90, 90),
    "bilevel": lambda image: enlarged(image, 224, 224).convert("1", dither=Image.Dither.NONE),
    "black on transparent": lambda image: transparent(image, (0, 0, 0)),
    "white on transparent": lambda image: transparent(image, (255, 255, 255)),
    "transparent palette": dashed_palette,
    "16 bits": sixteen_bits,
    "CMYK": lambda image: enlarged(255 - image, 80, 80).convert("CMYK"),
    "with noise": noisy,
    "huge": lambda image: enlarged(255 - image, 1100, 1100),
}


def likeness(image, other):
    """Correlation, the best of shifts by up to a pixel: a centre halfway may go to either."""
    moved = (np.roll(other, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1))
    return max(np.corrcoef(image.ravel(), near.ravel())[0, 1] for near in moved)


@pytest.mark.parametrize("rendering", RENDERINGS.values(), ids=list(RENDERINGS))
def test_a_rendered_digit_comes_back_like_the_original(rendering, digits, reader):
    digits = digits[:60]
    found = prepared(rendering(image) for image in digits)
    alike = list(map(likeness, digits, found))
    assert np.median(alike) > 0.96
    assert min(alike) > 0.7
    labels = idx.read(FIXTURE / "t10k-labels-idx1-ubyte.gz")[:60]
    before, after = (reader.score(rows.reshape(60, -1), labels) for rows in (digits, found))
    assert after >= before - 0.05
    assert found.mean() == pytest.approx(digits.mean(), rel=0.15)


def test_a_stretched_picture_keeps_its_own_aspect_ratio(digits):
    for image in digits[:20]:
        left, top, right, bottom = Image.fromarray(image).getbbox()
        wide = Image.fromarray(255 - image).resize((28 * 4, 28 * 2), Resampling.BOX)
        found = Image.fromarray(prepare(wide, SHAPE)).getbbox()
        ratio = (found[2] - found[0]) / (found[3] - found[1])
        assert ratio == pytest.approx(2 * (right - left) / (bottom - top), rel=0.25)


def test_images_of_mnist_come_back_to_the_byte_in_either_polarity(digits):
    pictures = [Image.fromarray(image) for image in digits]
    np.testing.assert_array_equal(prepared(pictures), digits)
    np.testing.assert_array_equal(prepared(ImageOps.invert(p) for p in pictures), digits)
    np.testing.assert_array_equal(prepared(p.convert("RGB") for p in pictures), digits)


@pytest.mark.parametrize("rendering", RENDERINGS.values(), ids=list(RENDERINGS))
def test_what_is_prepared_already_is_left_as_it_is(rendering, digits):
    once = prepared(rendering(image) for image in digits[:40])
    np.testing.assert_array_equal(prepared(map(Image.fromarray, once)), once)


def test_an_image_off_the_form_by_two_pixels_is_moved_back(digits):
    moved = [np.roll(image, 2, axis=1) for image in digits if not image[:, -2:].any()]
    centres = [ndimage.center_of_mass(image)[1] for image in prepared(map(Image.fromarray, moved))]
    assert np.abs(np.array(centres) - 14).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (28, 28), (61, 40)], ids=str)
@pytest.mark.parametrize("value", [0, 1])
def test_a_blank_picture_gives_zeros(mode, size, value):
    picture = Image.new(mode, size, value if mode in {"1", "I", "F"} or ";" in mode else None)
    assert not prepare(picture, SHAPE).any()


def test_the_noise_of_a_compressed_blank_paper_is_no_digit():
    noise = np.random.default_rng(0).normal(200, 1.5, (80, 60)).astype(np.uint8)
    assert not prepare(compressed(Image.fromarray(noise)), SHAPE).any()


def test_specks_far_apart_are_no_digit():
    picture = Image.new("L", (900, 900), 255)
    for corner in ((2, 2), (890, 895)):
        picture.putpixel(corner, 0)
    assert not prepare(picture, SHAPE).any()


def test_a_picture_without_pixels_is_blank():
    assert not prepare(Image.new("L", (0, 5)), SHAPE).any()


def test_floats_that_are_no_numbers_do_no_harm(digits):
    values = np.asarray(enlarged(digits[0], 56, 56), dtype=np.float32) / 255
    values[0, :3] = np.nan, np.inf, -np.inf
    assert prepare(Image.fromarray(values), SHAPE).dtype == np.uint8


@pytest.mark.parametrize("full", [1, 1023, 4095])
def test_pixels_of_other_depths_are_scaled_from_their_own_white(full, digits):
    values = np.asarray(enlarged(digits[0], 84, 84), dtype=np.float64) / 255
    deep = Image.fromarray((values * full).astype(np.float32 if full == 1 else np.uint16))
    expected = prepare(enlarged(digits[0], 84, 84), SHAPE).astype(int)
    assert np.abs(prepare(deep, SHAPE) - expected).max() <= 8


def pictures():
    """Pictures of any mode and of 1 to 200 pixels a side, by seed: noise, strokes or blank."""
    sides = st.integers(1, 200)
    return st.builds(
        _picture, st.sampled_from(MODES), sides, sides, st.integers(0, 2**32 - 1), st.booleans()
    )


def _picture(mode, width, height, seed, sparse):
    random = np.random.default_rng(seed)
    probe = np.asarray(Image.new(mode, (1, 1)))
    values = random.integers(0, 256, (height, width, *probe.shape[2:]))
    if sparse:
        values[random.random((height, width)) < 0.9] = random.integers(0, 256)
    if mode == "1":
        return Image.fromarray(values > 127)
    deep = values * 257 if probe.itemsize > 1 else values
    return Image.frombytes(mode, (width, height), deep.astype(probe.dtype).tobytes())


@settings(max_examples=200, deadline=None)
@given(pictures())
def test_any_picture_gives_an_image_with_its_digit_in_the_box_and_centred(picture):
    image = prepare(picture, SHAPE)
    assert image.dtype == np.uint8
    assert image.shape == SHAPE
    if not image.any():
        return
    left, top, right, bottom = Image.fromarray(image).getbbox()
    assert max(right - left, bottom - top) <= 20
    for centre, (first, last) in zip(
        ndimage.center_of_mass(image), ((top, bottom), (left, right)), strict=True
    ):
        clamped = first == 0 or last == 28  # an odd shape that would reach over the edge
        assert abs(centre - 14) <= 1 or clamped


def test_another_shape_keeps_the_proportion_of_the_box(digits):
    image = prepare(enlarged(digits[0], 100, 100), (56, 56))
    left, top, right, bottom = Image.fromarray(image).getbbox()
    assert image.shape == (56, 56)
    assert 38 <= max(right - left, bottom - top) <= 40


def test_a_shape_with_channels_is_refused(digits):
    with pytest.raises(InputError, match="give another `prepare`"):
        prepare(Image.fromarray(digits[0]), (28, 28, 3))


def test_mnist_declares_it():
    assert load("mnist").prepare is prepare


def test_preparing_does_not_load_torch():
    code = (
        "import sys; from PIL import Image; from classifier.datasets.mnist import prepare; "
        "prepare(Image.new('RGB', (40, 40)), (28, 28)); assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
